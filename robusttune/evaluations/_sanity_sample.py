"""The sample of images that all sanity checks share, and the outcome of a check."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from robusttune import plugins
from robusttune.attacks import Attack, NoGradientError
from robusttune.data.splits import subset_of
from robusttune.evaluations import LossName, Subject
from robusttune.norms import default_eps
from robusttune.threat import ThreatModel

SLACK = 0.03


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        value: the number that the check looks at.
        ok: the check passed.
        says: the meaning, in a sentence.
    """

    value: float
    ok: bool
    says: str


class Sample:
    """The images that all checks share, and the answers to them under the attacks that several checks need.

    Args:
        subject: the model and its images.
        images: the number of images to use, drawn with the seed from a plain DataLoader, the first ones of other loaders.
        steps: the number of steps of the attacks; some checks take several times as many.

    Raises:
        ValueError: there are no images.
    """

    def __init__(self, subject: Subject, images: int, steps: int) -> None:
        subject = replace(subject, loader=subset_of(subject.loader, images, subject.seed))
        self.subject, self.steps = subject, steps
        threat = subject.threat
        self.threat = threat if threat.eps > 0 else ThreatModel(threat.norm, default_eps(threat.norm, subject.shape))
        batches: list[tuple[Tensor, Tensor]] = []
        for batch in subject.batches():
            if batches and batch[0].shape[1:] != batches[0][0].shape[1:]:
                continue  # the checks compare images of one size
            batches.append(batch)
        if not batches:
            raise ValueError("sanity saw no images: the loader is empty")
        self.pixels = torch.cat([pixels for pixels, _ in batches])
        self.labels = torch.cat([labels for _, labels in batches])
        # Accuracies on fewer images vary more.
        self.slack = max(SLACK, 1 / math.sqrt(len(self.pixels)))

    def right(self, pixels: Tensor) -> Tensor:
        """Return which images (N,) the model classifies right."""
        return self.subject.predicted(pixels) == self.labels

    def after(
        self, attack: Attack, threat: ThreatModel | None = None, *, loss: LossName = "cross_entropy", start: int = 0
    ) -> Tensor:
        """Return which images (N,) are right before and after an attack; `start` chooses the random start."""
        generator = self.subject.generator()
        generator.manual_seed(generator.initial_seed() + start)
        adversarial = self.subject.attacked(
            self.pixels, self.labels, attack, threat or self.threat, loss=loss, generator=generator
        )
        return self.clean & self.right(adversarial)

    @cached_property
    def clean(self) -> Tensor:
        """The images (N,) that are right without an attack."""
        return self.right(self.pixels)

    @cached_property
    def by_cross_entropy(self) -> Tensor:
        """The images (N,) that are right after APGD on the cross-entropy."""
        return self.after(apgd(self.steps))

    @cached_property
    def by_gradients(self) -> Tensor:
        """The images (N,) that are right after APGD on both losses; without gradients, those that are right before."""
        try:
            return self.by_cross_entropy & self.after(apgd(self.steps), loss="margin")
        except NoGradientError:
            return self.clean


def apgd(steps: int) -> Attack:
    """Return APGD with this number of steps."""
    return plugins.configured("attacks", "apgd", steps=steps)


def share(flags: Tensor) -> float:
    """Return the share of flags (N,) that are True."""
    return float(flags.float().mean())
