"""Checks of the facts in files of earlier runs: a file may be damaged, or written by somebody who means harm."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

from robusttune.run.settings import number
from robusttune.types import shown

LARGEST_SIDE, MOST_CHANNELS, MOST_OUTPUTS = 2**14, 1024, 10**7
LARGEST = 1e6  # of the numbers in mean and std, which are below 2; NaN and infinity are not below it


class WrongFact(ValueError):
    """A fact that is not of its kind, in words."""


class Kind(NamedTuple):
    """The kind of a fact: in words, and as a test of a value."""

    words: str
    holds: Callable[[object], bool]


def check_facts(facts: Mapping[str, object], kinds: Mapping[str, Kind]) -> None:
    """Raise a WrongFact for the first fact that is not of its kind; those that are missing or None are left out."""
    for name in wrong_facts(facts, kinds):
        raise WrongFact(f"its {name} is {shown(facts[name])}, but it must be {kinds[name].words}")


def wrong_facts(facts: Mapping[str, object], kinds: Mapping[str, Kind]) -> list[str]:
    """Name the facts that are not of their kind; those that are missing or None are left out."""
    return [name for name, kind in kinds.items() if facts.get(name) is not None and not kind.holds(facts[name])]


def check_statistics(facts: Mapping[str, object]) -> None:
    """Raise a WrongFact unless mean and std, of kind NUMBERS, fit each other and the channels."""
    mean, std = (cast(Sequence[float] | None, facts.get(name)) for name in ("mean", "std"))
    channels = cast(int | None, facts.get("channels"))
    if mean is None and std is None:
        return
    counts = {None if each is None else len(each) for each in (mean, std)}
    if len(counts) == 1 and counts <= {1, channels or len(mean or ())} and min(std or [0]) > 0:
        return
    raise WrongFact(
        f"its mean is {shown(mean)} and its std {shown(std)}, but each must be one number, or one for each of its channels, "
        f"{shown(channels)}, and those of std above 0"
    )


def check_input(arguments: Mapping[str, object]) -> None:
    """Raise a WrongFact unless mean and std among the arguments of a run are numbers, or lists of them, that fit each other."""
    values = {name: arguments.get(name) for name in ("mean", "std")}
    listed = {name: [value] if isinstance(value, int | float) else value for name, value in values.items()}
    check_facts(listed, {"mean": NUMBERS, "std": NUMBERS})
    check_statistics(listed)


def _whole(value: object, most: int, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _list(value: object, holds: Callable[[object], bool]) -> bool:
    return isinstance(value, list | tuple) and all(map(holds, value))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, value))


def _is_radius(value: object) -> bool:
    try:
        return isinstance(value, str) and number(value) >= 0
    except ValueError:
        return False


def _is_shape(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 4 and all(map(COUNT.holds, value))


def _is_texts_by_name(value: object) -> bool:
    return isinstance(value, Mapping) and _list([*value, *value.values()], _is_text)


def _is_continuation(value: object) -> bool:
    """Return True for a note of a continuation: the epochs and steps after which it was, and the limits before and after it."""
    after = value.get("after") if isinstance(value, Mapping) else None
    return isinstance(after, Mapping) and all(_whole(after.get(name), 2**63 - 1, 0) for name in ("epochs", "steps"))


TEXT = Kind("text", _is_text)
TEXTS = Kind("a list of texts", lambda value: _list(value, _is_text))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
MAPPING = Kind("an object with names", _is_mapping)
COUNT = Kind("a whole number of at least 1, of 64 bits", lambda value: _whole(value, 2**63 - 1))
CHANNELS = Kind(f"a whole number from 1 to {MOST_CHANNELS:,}", lambda value: _whole(value, MOST_CHANNELS))
OUTPUTS = Kind(f"a whole number from 1 to {MOST_OUTPUTS:,}", lambda value: _whole(value, MOST_OUTPUTS))
NUMBERS = Kind("a list of numbers", lambda value: _list(value, _is_number))
SIZE = Kind(
    f"height and width, whole numbers from 1 to {LARGEST_SIDE:,}",
    lambda value: _list(value, lambda side: _whole(side, LARGEST_SIDE)) and len(value) == 2,  # type: ignore[arg-type]
)
ABOUT = {
    "classes": TEXTS,
    "outputs": OUTPUTS,
    "size": SIZE,
    "channels": CHANNELS,
    "mean": NUMBERS,
    "std": NUMBERS,
    "input_known": FLAG,
    "norm": TEXT,
    "eps": Kind("text with a number of at least 0, such as '8/255'", _is_radius),
    "held_out": TEXT,
    "model": TEXT,
    "model_args": MAPPING,
    "seen_corruptions": TEXTS,
}
OF_COMMAND = {
    "model": TEXT,
    "model_args": MAPPING,
    "channels": CHANNELS,
    "classes": OUTPUTS,
}
# Of a run's folder, beside what its arguments and its command are checked for where they are used.
OF_RUN = {
    "run": TEXT,
    "arguments": MAPPING,
    "objects": TEXTS,
    "loaders": TEXTS,
    "command": MAPPING,
    "data": MAPPING,
    "start": TEXT,
    "versions": Kind("an object with names and texts", _is_texts_by_name),
    "teacher": MAPPING,
    "labelling": MAPPING,
    "continued": Kind(
        "a list of objects with the epochs and steps under 'after'", lambda value: _list(value, _is_continuation)
    ),
    "device": TEXT,
    "threads": COUNT,
}
OF_DATA = {
    "shape": Kind("four whole numbers of at least 1", _is_shape),
    "images": COUNT,
    "batches": COUNT,
    "first": TEXT,
    "fingerprint": TEXT,
    "held out": TEXT,
    "without labels": TEXT,
}
