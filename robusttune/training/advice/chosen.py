"""A choice of a setting with its reason, and all choices of an advice together."""

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from robusttune.norms import NormLike

Settings: TypeAlias = dict[str, Any]  # arguments of `harden`
AdvicePurpose: TypeAlias = Literal["attacks", "corruptions", "monitoring", "unsure"]
YOURS = "you said so"
DEFAULT = "the default of harden"


class Choice(NamedTuple):
    """A setting, or a figure to expect.

    Attributes:
        name: the name of the setting as `harden` spells it, or of what is expected.
        value: in words.
        why: the reason in a sentence or two; empty if there is nothing to explain.
        source: "measured by us (…)", "from the literature (…)", "measured on this machine", "unknown", "you said so", or "the default of
            harden".
    """

    name: str
    value: str
    why: str
    source: str


@dataclass(frozen=True)
class Wishes:
    """Wishes of the user; None for each that was left out.

    Attributes:
        norm, eps: the norm and the radius of the adversary.
        purpose: the purpose of the training.
        budget: seconds.
    """

    norm: NormLike | None
    eps: float | None
    purpose: AdvicePurpose | None
    budget: float | None


@dataclass
class Chosen:
    """The settings that are advised so far.

    Attributes:
        settings: arguments of `harden`.
        choices: each with its reason.
        todo: what the user has to do first, or should look at.
    """

    settings: Settings = field(default_factory=dict)
    choices: list[Choice] = field(default_factory=list)
    todo: list[str] = field(default_factory=list)

    def say(self, name: str, value: str, why: str, source: str) -> None:
        """Add a choice."""
        self.choices.append(Choice(name, value, why, source))
