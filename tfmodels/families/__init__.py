"""One file per architecture."""

from tfmodels.runtime.backend import check_backend

check_backend()
