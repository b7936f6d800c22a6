"""The program `robusttune`, also `python -m robusttune`. Its `doctor` needs neither torch nor timm."""

import sys

from robusttune.cli import main

if __name__ == "__main__":
    sys.exit(main())
