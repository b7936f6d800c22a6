"""What `robusttune` and `python -m robusttune` run; `doctor` works although torch, torchvision or timm cannot be imported."""

import sys
from collections.abc import Sequence

from robusttune.doctor import doctor


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code, as `robusttune.cli.main` gives it."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given == ["doctor"]:
        text, wrong = doctor()
        print(text)
        return 1 if wrong else 0
    try:
        from robusttune import cli
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if "--debug" in given:
            raise
        said = " ".join(str(error).split())
        print(f"robusttune: error: {said} (--debug shows where)", file=sys.stderr)
        return 1
    return cli.main(given)


if __name__ == "__main__":
    sys.exit(main())
