"""Requirements on measured accuracies, as people write them: robust>=0.45, robust.low@linf:8/255>=0.4, robust:0.01."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from robusttune.norms import canonical
from robusttune.plugins import did_you_mean
from robusttune.run.settings import as_written, number, shown_radius

ROBUST = "robust"
# Names of what can be required: the evaluation and the metric that measure it.
METRICS = {
    "clean": ("clean", "accuracy"),
    "balanced": ("clean", "balanced accuracy"),
    "worst_class": ("clean", "worst-class accuracy"),
    ROBUST: ("", "accuracy"),  # under the worst of all attacks at one radius
    "corruptions": ("corruptions", "accuracy"),
    "certified": ("certified", "certified accuracy"),
}
AT_A_RADIUS = (ROBUST, "certified")
PAIRED = ("clean", ROBUST)  # metrics of which each image's answer is known
NAME = r"\s*(?P<metric>\w+)(?P<low>\.low)?(?:@(?P<norm>\w+):(?P<eps>[\w./+-]+))?\s*"
REQUIREMENT = re.compile(NAME + r">=\s*(?P<limit>\S+)\s*")
MARGIN = re.compile(NAME + r":\s*(?P<limit>\S+)\s*")


@dataclass(frozen=True)
class Requirement:
    """A lower limit of an accuracy, or a margin of how much of it may be lost.

    Attributes:
        text: as it was written.
        metric: a name in METRICS.
        limit: a share, above 0 and at most 1.
        low: compare the lower end of the 95% interval with the limit, rather than the value.
        norm, eps: the adversary; None for that of the training.
    """

    text: str
    metric: str
    limit: float
    low: bool = False
    norm: str | None = None
    eps: float | None = None

    @property
    def adversary(self) -> str:
        """The adversary in words; "" for that of the training."""
        return "" if self.norm is None or self.eps is None else f"{self.norm} eps {shown_radius(self.eps)}"


def requirements_of(texts: Iterable[object]) -> list[Requirement]:
    """Read requirements such as "robust>=0.45".

    Raises:
        ValueError: one cannot be read, names an unknown metric or norm, or its limit is no share.

    Example:
        >>> requirements_of(["clean>=0.9", "robust.low@linf:8/255>=0.4"])[1].adversary
        'linf eps 8/255'
    """
    return [_requirement(str(text)) for text in _texts(texts, "require", "'robust>=0.45'")]


def margins_of(texts: Iterable[object]) -> list[Requirement]:
    """Read margins such as "robust:0.01", of how much accuracy may be lost.

    Raises:
        ValueError: one cannot be read, or is of a metric for which the images' answers are not known.

    Example:
        >>> margins_of(["robust@l2:0.5:0.01"])[0].limit
        0.01
    """
    return [_margin(str(text)) for text in _texts(texts, "fail_if_worse", "'robust:0.01'")]


def _texts(texts: Iterable[object], name: str, example: str) -> list[object]:
    found: list[object] = [texts] if isinstance(texts, str) else list(texts)
    if not found:
        raise ValueError(
            f"{name}= is empty, so that nothing would be checked: name what is required, such as {example}"
        )
    return found


def _requirement(text: str) -> Requirement:
    match = REQUIREMENT.fullmatch(text)
    if match is None:
        raise ValueError(
            f"the requirement {text!r} cannot be read{_why(text)}: write METRIC>=SHARE, such as 'robust>=0.45', "
            "'robust.low>=0.45' (the lower end of the 95% interval) or 'robust@linf:8/255>=0.45', in quotes in a shell, as > "
            "alone writes to a file"
        )
    return _checked(text, match, "the requirement")


def _why(text: str) -> str:
    operator = re.search(r"[<>=!]+", text)
    return "" if operator is None or operator[0] == ">=" else f" ({operator[0]!r} is not >=)"


def _margin(text: str) -> Requirement:
    match = MARGIN.fullmatch(text)
    if match is None:
        raise ValueError(
            f"the margin {text!r} cannot be read: write METRIC:SHARE, such as 'robust:0.01', or 'robust@linf:8/255:0.01'"
        )
    margin = _checked(text, match, "the margin")
    if margin.metric not in PAIRED or margin.low:
        raise ValueError(
            f"the margin {text!r} is of {match['metric']}{match['low'] or ''}, but two models are compared image by image, by "
            f"{' or '.join(PAIRED)}: name one of these"
        )
    if margin.limit == 1:
        raise ValueError(f"the margin {text!r} allows any loss: write the largest share that may be lost, such as 0.01")
    return margin


def _checked(text: str, match: re.Match[str], what: str) -> Requirement:
    """Return a requirement whose parts were looked at.

    Raises:
        ValueError: a part does not fit.
    """
    metric, norm = match["metric"], match["norm"]
    if metric not in METRICS:
        raise ValueError(
            f"{what} {text!r} names {metric!r}{did_you_mean(metric, METRICS)}, but what can be required is {', '.join(METRICS)}"
        )
    if norm is not None and metric not in AT_A_RADIUS:
        raise ValueError(f"{what} {text!r} names a radius, but {metric} has none: leave {match['norm']}:… out")
    if metric == "certified" and norm is None:
        raise ValueError(f"{what} {text!r} names no radius: write it as certified@l2:0.25>=0.5")
    eps = None
    if norm is not None:
        try:
            norm, eps = str(canonical(norm)), number(match["eps"])
        except ValueError as error:
            raise ValueError(f"{what} {text!r}: {error}") from error
    if eps is not None and eps <= 0 and metric == ROBUST:
        raise ValueError(f"{what} {text!r} is at radius {eps:g}, which is no attack: write clean, or a radius above 0")
    return Requirement(text, metric, _share(text, match["limit"], what), match["low"] is not None, norm, eps)


def _share(text: str, limit: str, what: str) -> float:
    """Read a share above 0, and at most 1.

    Raises:
        ValueError: it is no share, such as a percentage.
    """
    try:
        share = number(limit.removesuffix("%"))
    except ValueError as error:
        raise ValueError(f"{what} {text!r}: {error}") from error
    if limit.endswith("%") or 1 < share <= 100:
        raise ValueError(
            f"{what} {text!r} has a percentage, but shares from 0 to 1 are needed: write {as_written(share / 100)}"
        )
    if not 0 < share <= 1:
        always = ", which always holds" if share == 0 and what == "the requirement" else ""
        raise ValueError(f"{what} {text!r} has {limit}{always}, but a share above 0 and at most 1 is needed")
    return share
