"""The parser of the command line: argparse, fed by signatures, with files of options and completion for shells."""

import sys
from argparse import SUPPRESS, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

import yaml

from robusttune.cli.errors import UsageError
from robusttune.cli.options import (
    COMMANDS,
    GROUPS,
    REQUIRED,
    RUN,
    Arguments,
    Request,
    default_of,
    group_of,
    help_of,
    options_of,
    request_of,
)
from robusttune.cli.signatures import Parameter, summary
from robusttune.cli.values import read, texts_of
from robusttune.cli.words import with_values
from robusttune.plugins import did_you_mean
from robusttune.run.about import is_published
from robusttune.run.settings import with_fractions

DESCRIPTION = (
    "Makes an existing image classifier hard to fool, and measures how hard. An error is one line; --debug shows where it "
    "came from."
)

# Options of many commands, and what they are called in the others.
INSTEAD = {"--out": "--path", "--budget": "--time_budget", "--time_budget": "--budget"}


class _Parser(ArgumentParser):
    """A parser that raises a UsageError, where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        _, required, names = message.partition("arguments are required: ")
        raise UsageError(_missing(self.prog.split()[-1], [names]) if required else message)


def parse(arguments: Sequence[str]) -> Request:
    """Read a command and its options: flags come before files of options, and those before defaults.

    Raises:
        UsageError: they do not fit the command.
        SystemExit: the help, or whatever else was asked for, has been printed.
    """
    command, *rest = arguments or [""]
    command = command if command.startswith("-") else command.replace("-", "_")
    known = command in COMMANDS
    try:
        if command.startswith("-"):
            _print_only(arguments)
        if not known:
            raise UsageError(f"a command is needed: {', '.join(COMMANDS)}{did_you_mean(command, COMMANDS)}")
        return _request(command, rest)
    except UsageError as error:
        raise UsageError(f"{error}; robusttune {command + ' ' if known else ''}--help explains") from error


def _print_only(arguments: Sequence[str]) -> None:
    """Print the help, the version or a completion script, and exit; return if none of these is asked for."""
    whole = _Parser("robusttune", description=DESCRIPTION, allow_abbrev=False)
    whole.add_argument("--version", action="version", version=f"robusttune {version('robusttune')}")
    whole.add_argument("--debug", action="store_true", help="show where an error came from")
    whole.add_argument("--print_completion", metavar="SHELL", help="print a completion script for bash, zsh or another")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND")
    for command in COMMANDS:
        _add_options(commands.add_parser(command, help=_about(command).splitlines()[0]), command)
    shell = whole.parse_args(arguments).print_completion
    if shell is not None:
        try:
            import shtab
        except ImportError as error:
            raise UsageError("--print_completion needs shtab: pip install 'robusttune[cli]'") from error
        shell = shell.removeprefix("shtab-")
        if shell not in shtab.SUPPORTED_SHELLS:
            raise UsageError(f"--print_completion is {shell!r}, but it must be {' or '.join(shtab.SUPPORTED_SHELLS)}")
        print(shtab.complete(whole, shell))
        sys.exit()


def _about(command: str) -> str:
    return summary(f"{COMMANDS[command].file}:run_{command}")


def _add_options(parser: ArgumentParser, command: str) -> None:
    """Add the options of a command; their values stay texts, and those that are left out stay out."""
    parser.description = _about(command)
    parser.formatter_class, parser.allow_abbrev = RawDescriptionHelpFormatter, False  # examples keep their lines
    if COMMANDS[command].function is not None:
        needed = " ".join(f"--{name} {name.upper()}" for name in COMMANDS[command].required)
        either = needed.replace("--model MODEL", "(RUN | --model MODEL)") if "run" in options_of(command) else needed
        parser.usage = f"robusttune {command} {either} [--option value ...]"
        parser.add_argument(
            "--config", action="append", metavar="FILE", help="a YAML file of these options; flags come first"
        )
        parser.add_argument("--print_config", action="store_true", help="print what such a file holds, and exit")
    groups = {title: parser.add_argument_group(title) for title in (REQUIRED, *GROUPS, RUN)}
    for name, option in options_of(command).items():
        place = parser if COMMANDS[command].function is None else groups[group_of(command, name)]
        several = "+" if "Sequence" in option.types else None if option.keyword or option.required else "?"
        text = help_of(option).replace("%", "%%")
        text += "; not needed with RUN" if (command, name) == ("evaluate", "model") else ""
        flag, shown = f"--{name}" if option.keyword else name, "[true|false]" if "bool" in option.types else None
        shown = "RUN" if (command, name) == ("evaluate", "run") else shown
        action = (
            "extend" if several == "+" else "store"
        )  # an option that is written twice must not lose its first words
        place.add_argument(flag, nargs=several, action=action, default=SUPPRESS, help=text, metavar=shown)


def _request(command: str, words: Sequence[str]) -> Request:
    """Read the options of a command, or print them as a file of options and exit."""
    parser = _Parser(f"robusttune {command}")
    _add_options(parser, command)
    options = options_of(command)
    namespace, unknown = parser.parse_known_args(with_values(words, options))
    flags = vars(namespace)
    files, shown = flags.pop("config", None) or [], flags.pop("print_config", False)
    written: dict[str, str | list[str]] = {}
    for file in files:
        written.update(texts_of(file))
    written.update(flags)
    unknown = unknown or [f"--{name}" for name in written if name not in options]
    if unknown:
        raise UsageError(_why_unknown(unknown[0], options))
    defaults = {name: default_of(option) for name, option in options.items() if option.default is not ...}
    values = {name: read(options[name], text) for name, text in {**defaults, **written}.items()}
    if command == "estimate" and values["which"] is not None and "split" not in written:
        values["split"] = COMMANDS["evaluate"].split  # whose cost is asked for
    values = _with_published(command, values, written)
    of_run = command == "evaluate" and values["run"] is not None
    if not shown:
        _check_required(command, {"model": "of the run", **values} if of_run else values)
    if of_run:
        known = _options_of_run(
            str(values["run"]), {name: values[name] for name in ("model", "norm", "trust") if name in written}
        )
        values |= {name: value for name, value in known.items() if name not in written}
    if shown:
        print(yaml.safe_dump(with_fractions(values), sort_keys=False, allow_unicode=True), end="")
        sys.exit()
    _check_required(command, values)
    return request_of(command, values)


def _with_published(command: str, values: Arguments, written: dict[str, str | list[str]]) -> Arguments:
    """Take what the folder of a published model knows, where --model names one; torch is imported for it."""
    name = values.get("model")
    if not is_published(name):
        return values
    from robusttune.cli.runs import options_of_published

    try:
        known = options_of_published(str(name))
    except ValueError as error:
        raise UsageError(str(error)) from error
    if command == "evaluate":
        del written["model"]
        return {**values, "run": known["checkpoint"]}
    unset = {option: value for option, value in known.items() if option in values and option not in written}
    return {**values, **unset, "model": known["model"]}


def _check_required(command: str, values: Arguments) -> None:
    """Raise a UsageError if a required option is missing or empty."""
    missing = [f"--{name}" for name in COMMANDS[command].required if values.get(name) in (None, "")]
    if missing:
        raise UsageError(_missing(command, missing))


def _missing(command: str, names: Sequence[str]) -> str:
    examples = [line.strip() for line in _about(command).splitlines() if line.strip().startswith("robusttune ")]
    example, _, _ = examples[0].partition("  #")
    return f"missing: {', '.join(names)}; for example: {example.strip()}"


def _options_of_run(folder: str, asked: Arguments) -> Arguments:
    """Read the options that the folder of a run gives; torch is imported for it."""
    from robusttune.cli.runs import options_of_run

    try:
        return options_of_run(folder, **asked)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _why_unknown(word: str, options: dict[str, Parameter]) -> str:
    """Explain what is wrong with a word that no option takes."""
    if not word.startswith("-"):
        return f"{word!r} follows no option that takes it"
    name = word.partition("=")[0]
    by_place = [option for option in options if not options[option].keyword]
    if name.removeprefix("--") in by_place:
        return f"there is no option {name}: write its value alone, in this order: {' '.join(map(str.upper, by_place))}"
    known = [f"--{option}" for option in options if option not in by_place]
    instead = INSTEAD.get(name, "")
    hint = (
        f" (did you mean {instead!r}?)"
        if instead in known
        else did_you_mean(name, [*known, "--config", "--print_config"])
    )
    return f"there is no option {name}{hint}"
