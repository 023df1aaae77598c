"""`python -m tfmodels.cli`, the same as `tfmodels`."""

import sys

from tfmodels.cli.main import main

sys.exit(main())
