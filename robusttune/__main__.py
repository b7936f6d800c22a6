"""The program `robusttune`, also `python -m robusttune`; its `doctor` needs neither torch nor timm."""

import sys
from collections.abc import Sequence

from robusttune.cli.doctor import doctor, why_unusable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code, as `robusttune.cli.main` gives it."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given == ["doctor"]:
        text, wrong = doctor()
        print(text)
        return 1 if wrong else 0
    try:
        from robusttune.cli.main import main as command_line
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if "--debug" in given:
            raise
        said = " ".join(why_unusable(error).split())
        print(f"robusttune: error: {said} (--debug shows where)", file=sys.stderr)
        return 1
    return command_line(given)


if __name__ == "__main__":
    sys.exit(main())
