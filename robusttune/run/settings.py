"""Numeric settings: numbers as people write them, and checks of their ranges."""

import math
import re
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple, cast

from robusttune.types import check_kinds, refuse_arrays, shown


class AllowedRange(NamedTuple):
    """A range of numbers: in words, as a test of a number, and the kind of number, such as `numbers.Integral`."""

    words: str
    holds: Callable[[float], bool]
    kind: type = Real


ANY_WHOLE = AllowedRange("a whole number of 64 bits", lambda value: -(2**63) <= value < 2**63, Integral)
COUNT = AllowedRange("a whole number of at least 1", lambda value: value >= 1, Integral)
NOT_NEGATIVE_COUNT = AllowedRange("a whole number of at least 0", lambda value: value >= 0, Integral)
EPOCHS = AllowedRange("a whole number from 1 to 100,000", lambda value: 1 <= value <= 100_000, Integral)
EPOCHS_BEFORE = AllowedRange("a whole number from 0 to 100,000", lambda value: 0 <= value <= 100_000, Integral)
ATTACK_STEPS = AllowedRange("a whole number from 1 to 10,000", lambda value: 1 <= value <= 10_000, Integral)
NOT_NEGATIVE = AllowedRange("a finite number of at least 0", lambda value: value >= 0)
MODERATE = AllowedRange("a number from 0 to 1e30", lambda value: 0 <= value <= 1e30)
POSITIVE = AllowedRange("a finite number above 0", lambda value: value > 0)
SHARE = AllowedRange("a number from 0 to 1", lambda value: 0 <= value <= 1)
DECAY = AllowedRange("a number from 0 to below 1", lambda value: 0 <= value < 1)
FALSE_ALARMS = AllowedRange("a share of batches from 0.0001 to 0.5", lambda value: 1e-4 <= value <= 0.5)
NUMBERS = {
    "epochs": EPOCHS,
    "pretrain_epochs": EPOCHS_BEFORE,
    "finetune": EPOCHS_BEFORE,
    "accumulate": COUNT,
    "micro_batch": COUNT,
    "max_steps": COUNT,
    "checkpoint_every": COUNT,
    "steps": ATTACK_STEPS,
    "subset": COUNT,
    "seed": ANY_WHOLE,
    "lr": MODERATE,
    "weight_decay": MODERATE,
    "clip_grad": POSITIVE,
    "step_size": AllowedRange("a number above 0, and at most 1,000,000,", lambda value: 0 < value <= 1e6),
    "time_budget": POSITIVE,
    "min_clean": SHARE,
    "unlabeled_share": AllowedRange("a share of each batch, above 0 and below 1,", lambda value: 0 < value < 1),
    "ema": DECAY,
    "awp": AllowedRange("a share of a weight's norm, from 0 (no weight perturbation) to below 1,", DECAY.holds),
}
UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86400),
}
NEEDED = (
    *("epochs", "pretrain_epochs", "finetune", "accumulate", "seed", "awp", "size", "batch_size", "workers"),
    *("false_alarms", "draws", "choosing_draws", "sigma", "alpha", "radii", "images", "steps of sanity"),
)


def check_settings(settings: Mapping[str, object]) -> None:
    """Check arguments by their names, as far as that shows without model and images; unknown names are left out.

    Raises:
        ValueError: a number outside its range, an argument of another kind than its name says, or notes that are no dict.
    """
    refuse_arrays(settings)
    for name, allowed in NUMBERS.items():
        if name in settings and (settings[name] is not None or name in NEEDED):
            check_number(name, settings[name], allowed)
    check_kinds(settings)
    notes = settings.get("notes")
    if notes is not None and not (isinstance(notes, Mapping) and all(isinstance(name, str) for name in notes)):
        raise ValueError(
            f"notes is {shown(notes)}, but a dict with words as keys is needed, such as {{'ticket': 'A-17'}}"
        )


def check_number(name: str, value: object, allowed: AllowedRange) -> None:
    """Raise a ValueError unless the value is a number in the range."""
    # A whole number that is in a range without an end can still be too large for torch.
    if allowed.kind is Integral and in_range(value, allowed):
        allowed = ANY_WHOLE
    if not in_range(value, allowed):
        hint = "" if name in NEEDED else ", or None for the default"
        raise ValueError(f"{name} is {shown(value)}, but {allowed.words} is needed{hint}")


def in_range(value: object, allowed: AllowedRange) -> bool:
    """Return True for a finite number in the range; True and False themselves are no numbers."""
    if not isinstance(value, allowed.kind) or isinstance(value, bool):
        return False
    try:
        size = float(cast(float, value))
    except OverflowError:  # a whole number beyond the largest float
        return False
    return math.isfinite(size) and allowed.holds(cast(float, value))


def number(text: str) -> float:
    """Read a finite number, which may be a fraction such as 8/255.

    Raises:
        ValueError: the text is no number.

    Example:
        >>> number("8/255") == 8 / 255, number("1e-3")
        (True, 0.001)
    """
    # Not fractions.Fraction: it refuses 0.5/255, and needs minutes for 1e999999999.
    above, slash, below = text.partition("/")
    try:
        value = float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is no finite number: write it as 0.03, 3e-2 or 8/255")
    return value


def seconds_of(value: float | str | None, name: str = "time_budget") -> float | None:
    """Read a length of time: seconds, or a text such as "2h", "1h 30min", "45 s"; None stays None.

    Args:
        value: above 0.
        name: the name of the argument, for the error.

    Raises:
        ValueError: it is no time above 0.

    Example:
        >>> [seconds_of(value) for value in ("2h", "1h 30min", 45, "45", "0.5 days")]
        [7200.0, 5400.0, 45.0, 45.0, 43200.0]
    """
    if value is None:
        return None
    total = _sum_of_units(value) if isinstance(value, str) else value
    if not in_range(total, POSITIVE):
        raise ValueError(f"{name} is {shown(value)}, but seconds, or a text such as '90min', '2h' or '1d', are needed")
    return float(cast(float, total))


def _sum_of_units(text: str) -> float | None:
    """Add up amounts with units, or return a number without one; None for any other text."""
    parts = re.findall(r"([\d.]+)\s*([a-z]+)", text.lower())
    whole = "".join(amount + unit for amount, unit in parts) == re.sub(r"\s", "", text.lower())
    with_units = parts and whole and all(unit in UNITS for _, unit in parts)
    try:
        return sum(number(amount) * UNITS[unit] for amount, unit in parts) if with_units else number(text)
    except ValueError:
        return None


def as_written(value: float) -> str:
    """Write a number as people do: as a fraction of 255 where it is one and has no short decimal form.

    Example:
        >>> as_written(8 / 255), as_written(0.5), as_written(0.5 / 255), as_written(1 / 7)
        ('8/255', '0.5', '0.5/255', '0.14285714285714285')
    """
    decimal, levels = f"{value:g}", round(255 * value, 6)
    if float(decimal) == value:
        return decimal
    return f"{levels:g}/255" if float(f"{levels:g}") / 255 == value else repr(float(value))


def duration(seconds: float) -> str:
    """Write seconds for people.

    Example:
        >>> duration(0.5), duration(75), duration(7300)
        ('0.5 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def epochs_in_words(count: int) -> str:
    """Write a number of epochs for people.

    Example:
        >>> epochs_in_words(1), epochs_in_words(2)
        ('1 epoch', '2 epochs')
    """
    return f"{count:,} epoch{'s' * (count != 1)}"


def shown_radius(value: float) -> str:
    """Write a radius for people: as a multiple of 1/255 or a short decimal where it is one, within rounding.

    It need not be read back to the same number, which `as_written` is for.

    Example:
        >>> shown_radius(8 / 255), shown_radius(0.03137254902), shown_radius(1.5 * 0.1), shown_radius(0.2886751)
        ('8/255', '8/255', '0.15', '0.2887')
    """
    decimal, levels = f"{value:.6g}", f"{255 * value:.4g}"
    for text, close in ((decimal, float(decimal)), (f"{levels}/255", float(levels) / 255)):
        if math.isclose(close, value, rel_tol=1e-9):
            return text
    return f"{value:.4g}"


def numbers(values: object) -> Any:
    """Replace strings such as 8/255 and 1e-3, which YAML reads as words, by numbers, in lists and mappings too.

    Example:
        >>> numbers({"linf": "8/255", "names": ["fog"]})
        {'linf': 0.0313..., 'names': ['fog']}
    """
    if isinstance(values, Mapping):
        return {key: numbers(value) for key, value in values.items()}
    if isinstance(values, list):
        return [numbers(value) for value in values]
    if not isinstance(values, str):
        return values
    try:
        return number(values)
    except ValueError:
        return values


def with_fractions(values: object) -> object:
    """Replace numbers such as 8/255 by the text of the fraction, in lists and mappings too; `numbers` reads them back.

    Example:
        >>> with_fractions({"linf": 8 / 255, "l2": 0.5, "all": [4 / 255, 1]})
        {'linf': '8/255', 'l2': 0.5, 'all': ['4/255', 1]}
    """
    if isinstance(values, Mapping):
        return {key: with_fractions(value) for key, value in values.items()}
    if isinstance(values, list):
        return [with_fractions(value) for value in values]
    text = as_written(values) if isinstance(values, float) and math.isfinite(values) else ""
    return text if "/" in text else values
