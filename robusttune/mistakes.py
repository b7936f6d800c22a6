"""What is wrong with a command's arguments, in one line."""

import re
from collections.abc import Mapping
from difflib import get_close_matches

from robusttune.options import SOURCES, Command, parser, plain_type


def mistake(error: Exception, arguments: list[str], commands: Mapping[str, Command]) -> str:
    """What is wrong with the arguments, in one line that says what to do."""
    command = next((each for each in arguments if each in commands), "")
    said = str(error)
    key = re.search(r'Parser key "(?:\w+\.)?(\w+)"', said)
    value = re.search(r"(?:Given|Got) value: (.*)", said)
    unknown = re.match(r"unrecognized arguments: (--\w+)", said)
    needs = re.findall(r"Expected an? <class '(\w+)'>|Not of type (\w+)", said)
    kinds = [plain_type(each) for pair in needs for each in pair if each and each != "NoneType"]
    if key and value and kinds:
        said = f"--{key[1]} is {value[1]!r}, but it must be a {' or '.join(dict.fromkeys(map(str, kinds)))}"
    elif unknown and command:
        own = parser(commands)._subcommands_action._name_parser_map[command]
        close = get_close_matches(unknown[1], list(own._option_string_actions), n=1)
        said = f"there is no option {unknown[1]}{f': did you mean {close[0]}?' if close else ''}"
    elif said.startswith("the following arguments are required"):
        names = [each.partition(".")[2] for each in said.partition(": ")[2].split(", ")]
        said = f"missing: {', '.join('--' * (each in SOURCES) + each for each in names)}"
    elif "subcommand" in said:
        close = get_close_matches(next(iter(arguments), ""), commands, n=1)
        said = f"a command is needed: {', '.join(commands)}{f' (did you mean {close[0]}?)' if close else ''}"
    else:
        said = re.sub(r'Parser key "(?:\w+\.)?(\w+)":', r"--\1:", said)
    return f"{' '.join(said.split())}; robusttune {command + ' ' if command else ''}--help explains"
