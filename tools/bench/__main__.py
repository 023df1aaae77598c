"""The command line of the package."""

from tools.bench.command import main

main()
