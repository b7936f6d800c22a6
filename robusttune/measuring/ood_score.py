"""Out-of-distribution score from a rotation head and the classifier (Hendrycks et al. 2019)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from robusttune.measuring.subject import Subject


def check_heads(subject: Subject) -> None:
    """Check that there is a rotation head.

    Raises:
        ValueError: there is no rotation head.
    """
    if subject.heads is None:
        raise ValueError("ood needs a rotation head: pass heads=, the folder of the run that trained it")
    if "rotation" not in subject.heads.tasks:
        raise ValueError(
            f"ood needs a rotation head, but there are {', '.join(subject.heads.tasks)}: train one with harden"
        )


def ood_score(subject: Subject, pixels: Tensor) -> Tensor:
    """Return the out-of-distribution score (N,) of images (N,C,H,W) on [0,1]; the higher, the less familiar.

    The score is the mean cross-entropy of the rotation head over all rotations, minus the divergence of the uniform
    distribution from the classifier's probabilities.

    Raises:
        ValueError: there is no rotation head.

    Source: Hendrycks et al., arXiv:1906.12340, section 4.2.
    """
    check_heads(subject)
    assert subject.heads is not None
    turns = turns_of(pixels.shape[1:])
    total = torch.zeros(len(pixels), device=pixels.device)
    for number, turn in enumerate(turns):
        features = subject.features(torch.rot90(pixels, turn, (2, 3)))
        with torch.no_grad():
            answers = subject.heads["rotation"](features)[:, : len(turns)]
        total += F.cross_entropy(answers.float(), torch.full_like(total, number, dtype=torch.long), reduction="none")
    with torch.no_grad():
        log_probabilities = subject.logits(pixels).log_softmax(1)
    # The mean log-probability is minus the divergence, up to a constant.
    return total / len(turns) + log_probabilities.mean(1)


def turns_of(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the quarter turns after which images (C,H,W) have the same shape."""
    return (0, 1, 2, 3) if shape[1] == shape[2] else (0, 2)
