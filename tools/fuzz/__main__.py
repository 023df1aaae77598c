import sys

from tools.fuzz.command import main

sys.exit(main())
