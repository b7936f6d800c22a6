"""How strange an image is to a model that was trained to tell turns, too."""

import torch
from torch import Tensor
from torch.nn import functional as F

from robusttune.measuring.subject import Subject


def strangeness(subject: Subject, pixels: Tensor) -> Tensor:
    """How much at a loss the rotation head and the classifier are on each of the images (N,C,H,W) in [0,1]: (N,).

    The mean cross-entropy of the rotation head over all turns, less how far the class probabilities are from uniform.

    Raises:
        ValueError: there is no rotation head.

    Source: Hendrycks et al., arXiv:1906.12340, section 4.2.
    """
    if subject.heads is not None and "rotation" not in subject.heads.tasks:
        raise ValueError(
            f"ood needs a rotation head, but there are {', '.join(subject.heads.tasks)}: train one with harden"
        )
    turns = (0, 1, 2, 3) if pixels.shape[2] == pixels.shape[3] else (0, 2)
    total = torch.zeros(len(pixels), device=pixels.device)
    for number, turn in enumerate(turns):
        features = subject.features(torch.rot90(pixels, turn, (2, 3)))
        assert subject.heads is not None
        with torch.no_grad():
            answers = subject.heads["rotation"](features)[:, : len(turns)]
        total += F.cross_entropy(answers.float(), torch.full_like(total, number, dtype=torch.long), reduction="none")
    with torch.no_grad():
        logs = subject.logits(pixels).log_softmax(1)
    # The divergence of the uniform distribution from the model's, up to what is the same for all images.
    return total / len(turns) + logs.mean(1)
