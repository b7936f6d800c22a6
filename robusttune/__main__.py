"""The entry point of `robusttune` and of `python -m robusttune`."""

import sys

from robusttune.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
