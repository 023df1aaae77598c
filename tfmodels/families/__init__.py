"""One file per architecture; `<family>_gguf.py` beside it where GGUF files of it can be read."""

from tfmodels.runtime.backend import check_setting

check_setting()
