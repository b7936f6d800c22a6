"""What is wrong with a command's arguments, in one line."""

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches

from robusttune.cli.options import LISTS, SOURCES, Command, completes, parser, plain_type

UNREADABLE = "Problems parsing config:"
# Arguments that are options of another name, or none.
STANDING = {
    "test_loader": "test_split",
    "val_loader": "val_split",
    "unlabeled_loader": "unlabeled",
    "init_from": "checkpoint",
}
WORDS = {"True": "true", "False": "false", "None": "null"}


def mistake(error: Exception, arguments: list[str], commands: Mapping[str, Command]) -> str:
    """What is wrong with the arguments, in one line that says what to do."""
    command = next((each for each in arguments if each in commands), "")
    said = str(error)
    key = re.search(r'Parser key "(?:\w+\.)?(\w+)"', said)
    value = re.search(r"(?:Given|Got) value: (.*)|convert string to float: '(.*)'", said)
    unknown = re.match(r"unrecognized arguments: --(\w+)|Subcommand '\w+' does not accept option '(\w+)'", said)
    needs = re.findall(r"Expected an? <class '(?:\w+\.)*(\w+)'>|Not of type (\w+)", said)
    kinds = [plain_type(each) for pair in needs for each in pair if each and each != "NoneType"]
    if key and value and kinds:
        said = f"--{key[1]} is {value[1] or value[2]!r}, but it must be a {' or '.join(dict.fromkeys(map(str, kinds)))}"
    elif "--print_completion" in arguments and not completes():
        said = "--print_completion needs shtab: pip install 'robusttune[cli]'"
    elif unknown and command:
        name = f"--{unknown[1] or unknown[2]}"
        own = parser(commands)._subcommands_action._name_parser_map[command]
        close = get_close_matches(name, list(own._option_string_actions), n=1)
        said = f"there is no option {name}{f': did you mean {close[0]}?' if close else ''}"
    elif said.startswith("the following arguments are required"):
        names = [each.partition(".")[2] for each in said.partition(": ")[2].split(", ")]
        said = f"missing: {', '.join('--' * (each in SOURCES) + each for each in names)}"
    elif said.startswith((UNREADABLE, "Unexpected config:")):
        why = " ".join(said.partition(":")[2].split()) or "it is empty"
        said = (
            f"{_file(arguments)} is no YAML file of options, 'name: value' line by line, as --print_config shows: {why}"
        )
    elif "subcommand" in said:
        close = get_close_matches(next(iter(arguments), ""), commands, n=1)
        said = f"a command is needed: {', '.join(commands)}{f' (did you mean {close[0]}?)' if close else ''}"
    else:
        said = re.sub(r'Parser key "(?:\w+\.)?(\w+)":', r"--\1:", said)
    return f"{' '.join(said.split())}; robusttune {command + ' ' if command else ''}--help explains"


def _file(arguments: list[str]) -> str:
    """The file of options that was named last."""
    named = [after for each, after in zip(arguments, [*arguments[1:], ""], strict=True) if each == "--config"]
    named += [each.partition("=")[2] for each in arguments if each.startswith("--config=")]
    return f"--config {named[-1]!r}" if named else "--config"


def in_options(said: str, options: Collection[str]) -> str:
    """What the library says, with options in the place of its arguments.

    Example:
        >>> in_options("out='a' is not empty: pass resume=True to go on", {"out", "resume"})
        "--out 'a' is not empty: pass --resume true to go on"
    """

    def shown(found: re.Match[str]) -> str:
        name, value = STANDING.get(found[1], found[1]), WORDS.get(found[2], found[2])
        return f"--{name} {value}" if value or re.match(r"[\w'\"{\[…-]", said[found.end() :]) else f"--{name}"

    names = "|".join(sorted({*options, *STANDING, *LISTS}))
    return re.sub(rf"(?<![\w.(])({names})=((?:True|False|None)\b|)", shown, said)
