"""The command line of the package."""

from tools.make_reference.command import main

main()
