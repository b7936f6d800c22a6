"""Words of a command line before they are parsed: spelling of options, and flags without a value."""

from collections.abc import Mapping, Sequence

from robusttune.cli.errors import UsageError
from robusttune.cli.signatures import Parameter
from robusttune.cli.values import read


def underscored(word: str) -> str:
    """Write an option with underscores: --batch-size is --batch_size."""
    name, equals, value = word.partition("=")
    return f"--{name[2:].replace('-', '_')}{equals}{value}" if word.startswith("--") else word


def with_values(words: Sequence[str], options: Mapping[str, Parameter]) -> list[str]:
    """Give a value to each flag that has none: --resume is --resume=true, and --no_resume is --resume=false.

    Example:
        >>> resume = Parameter("resume", frozenset({"bool"}), "", False, False, True)
        >>> with_values(["--resume", "--no_resume", "--resume", "false"], {"resume": resume})
        ['--resume=true', '--resume=false', '--resume', 'false']
    """
    flags = {f"--{name}": option for name, option in options.items() if option.keyword and "bool" in option.types}
    negated = {f"--no_{name[2:]}": f"{name}=false" for name in flags if f"no_{name[2:]}" not in options}
    takes_words = any(not option.keyword for option in options.values())
    result = []
    for place, word in enumerate(words):
        following = words[place + 1] if place + 1 < len(words) else None
        if word in negated:
            result.append(negated[word])
        elif word in flags and not _is_value(following, flags[word], takes_words):
            result.append(f"{word}=true")
        else:
            result.append(word)
    return result


def _is_value(word: str | None, flag: Parameter, takes_words: bool) -> bool:
    """Return True for a value of the flag, and for a misspelt one where no other argument takes words."""
    if word is None or word.startswith("--"):
        return False
    try:
        read(flag, word)
    except UsageError:
        return not takes_words
    return True
