"""The decision whether the radius grows from 0 at the start of a run."""

import torch
from torch import Tensor

from robusttune.training.batch import LoadedBatch
from robusttune.training.micro_batches import fitting_counted
from robusttune.training.robust_loss import RobustLoss
from robusttune.training.validation import score
from robusttune.types import AutoBool

ROBUST_START = 0.5


def ramps(
    choice: AutoBool, robust_loss: RobustLoss, batch: tuple[Tensor, Tensor], micro_batch: int | None = None
) -> bool:
    """Choose whether eps grows from 0: as the user says; with "auto" unless the model resists the attack already.

    Args:
        choice: the user's choice.
        robust_loss: with the model at the start of the run.
        batch: images (N,C,H,W) and labels, to measure the model on.
        micro_batch: images that go through the model at once; None for all.

    Raises:
        ValueError: neither True, False nor "auto".
    """
    if isinstance(choice, bool):
        return choice
    if choice != "auto":
        raise ValueError(f"eps_ramp is {choice!r}, but it must be True, False or 'auto'")
    size = micro_batch or len(batch[0])
    parts = list(zip(*(torch.split(values, size) for values in batch), strict=True))
    with fitting_counted(robust_loss, LoadedBatch(*batch), micro_batch):
        start = score(robust_loss, parts, robust_loss.threat)
    return start.robust < ROBUST_START * start.clean or start.clean <= ROBUST_START / robust_loss.classifier.classes
