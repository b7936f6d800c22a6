"""The command line: `robusttune harden | estimate | evaluate | pretrain | report | compare | poc | replay | advise | draw_eps |
save | push | export | doctor`."""

import importlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from functools import partial

from robusttune.cli.doctor import why_unusable
from robusttune.cli.errors import UsageError, in_options, worded
from robusttune.cli.options import COMMANDS, Request, options_of
from robusttune.cli.parser import parse
from robusttune.cli.words import underscored


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return 0 if all went well, 1 on an error, 2 for arguments that do not fit, 130 after Ctrl-C."""
    warnings.formatwarning = lambda message, *rest, **keywords: (
        f"robusttune: warning: {in_options(str(message), options)}\n"
    )
    _make_streams_usable()
    words = [underscored(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    debug, words = "--debug" in words, [word for word in words if word != "--debug"]
    options: Iterable[str] = ()
    try:
        request = parse(words)
        options = options_of(request.command)
        with worded(options), _printing_once():
            return _run(request)
    except KeyboardInterrupt:
        return _say("stopped; with --out, --resume goes on", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at its end
        return _say(
            "error: a program at the other end has closed the output, as head does, or a connection: --out keeps results in files",
            1,
        )
    except UsageError as error:
        return _say(f"error: {error}", 2)
    except Exception as error:
        if debug:
            raise
        return _say(f"error: {in_options(str(error), options) or type(error).__name__} (--debug shows where)", 1)


def _make_streams_usable() -> None:
    """Let stdout write what its encoding lacks as an escape, and let output go nowhere where a stream is closed."""
    nowhere = partial(open, os.devnull, "w", encoding="utf-8")
    if sys.stdout is None:
        sys.stdout = nowhere()
    if sys.stderr is None:
        sys.stderr = nowhere()
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _printing_once() -> AbstractContextManager[object]:
    """Print results in the first of several processes alone, inside this context."""
    return nullcontext() if os.environ.get("RANK", "0") == "0" else redirect_stdout(io.StringIO())


def _run(request: Request) -> int:
    """Import what a command needs, and run it.

    Raises:
        ImportError: it cannot be imported, as where torch and torchvision do not fit each other.
    """
    module = COMMANDS[request.command].file.removesuffix(".py").replace("/", ".")
    try:
        run: Callable[..., int] = getattr(importlib.import_module(f"robusttune.{module}"), f"run_{request.command}")
    except Exception as error:
        raise ImportError(why_unusable(error)) from error
    needed = () if request.sources is None else (request.sources, request.arguments)
    trusted = request.extra.get("model") if request.sources is None else request.sources.model
    if trusted is None and "trust" not in request.extra:
        return run(*needed, **request.extra)
    trust = importlib.import_module("robusttune.model.trust")
    with trust.trusting(trusted, all_of_them=bool(request.extra.get("trust"))):
        return run(*needed, **request.extra)


def _say(message: str, code: int) -> int:
    """Print one line about the end of a command."""
    print("robusttune:", *message.split(), file=sys.stderr)
    return code
