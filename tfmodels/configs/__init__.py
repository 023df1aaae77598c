"""Configurations: JSON in and out, the spellings of transformers 4 and 5 normalised once.

A family's own fields are in its family file.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what is an attribute of this package once it is imported
    from tfmodels.configs import base as base
    from tfmodels.configs import rotary as rotary
