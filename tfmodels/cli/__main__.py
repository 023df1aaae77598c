"""`python -m tfmodels.cli`, the same as `tfmodels`."""

from tfmodels.cli.main import leave

leave()
