"""`python -m tfmodels`, the same as `tfmodels`."""

from tfmodels.cli.main import leave

leave()
