"""Norms as users write them, and their radii."""

import math
from collections.abc import Iterable
from numbers import Real
from typing import TYPE_CHECKING

from robusttune import plugins
from robusttune.types import shown

if TYPE_CHECKING:
    from robusttune.norms import Norm, NormLike

ALIASES = {"inf": "linf", "linfinity": "linf", "l_inf": "linf", "2": "l2", "l_2": "l2"}


def canonical(norm: "NormLike | None") -> "str | Norm":
    """Return the name of the file in `norms/` for a user's spelling of a norm; return an object unchanged.

    Raises:
        ValueError: the norm is unknown.
    """
    if norm is None or isinstance(norm, bool):
        norm = str(norm)
    if isinstance(norm, str | int | float):
        word = (
            ("inf" if norm == math.inf else str(norm).removesuffix(".0"))
            if not isinstance(norm, str)
            else norm.lower().strip()
        )
        norm = ALIASES.get(word, word)
    plugins.find("norms", norm)
    return norm


def default_eps(norm: "NormLike", shape: tuple[int, ...]) -> float:
    """Return the customary radius of a norm for images of shape (C,H,W), in pixel units on [0,1]."""
    return plugins.find("norms", canonical(norm)).default_eps(shape)


def radii(norm: "NormLike", eps: float, multiples: Iterable[float]) -> list[float]:
    """Return the distinct multiples of a radius, sorted; for linf they are capped at 1, the distance from black to white.

    Example:
        >>> radii("linf", 0.25, (8, 0, 1, 4)), radii("l2", 0.25, (0, 8))
        ([0.0, 0.25, 1.0], [0.0, 2.0])
    """
    most = 1.0 if canonical(norm) == "linf" else math.inf
    return sorted({min(most, multiple * eps) for multiple in multiples})


def checked_eps(eps: object, norm: "NormLike") -> float:
    """Return a radius as a float.

    Raises:
        ValueError: it is no number, is negative or not finite, or is above 1 for linf.
    """
    if isinstance(eps, bool) or not isinstance(eps, Real):
        raise ValueError(f"eps is {shown(eps)}, but a number in pixel units on [0, 1] is needed, such as 8/255 or 0.5")
    try:
        radius = float(eps)
    except OverflowError:  # a whole number beyond the largest float
        radius = math.inf
    if not math.isfinite(radius) or radius < 0:
        raise ValueError(f"eps is {shown(eps)}, but it must be a finite number of at least 0, in pixel units on [0, 1]")
    if norm == "linf" and radius > 1:
        raise ValueError(f"eps is {eps} for linf, but pixels span [0, 1]: did you mean {radius:g}/255?")
    return radius
