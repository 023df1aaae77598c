"""The command line of the package."""

from tools.bench.command import main

if __name__ == "__main__":  # processes of its own read this, too
    main()
