"""A task of timm's training script around RobustLoss."""

from typing import Any, cast

from torch import Tensor, nn

try:
    from timm.task import TrainingTask
except ImportError as error:
    raise ImportError(
        f"robusttune.integration.timm needs a newer timm, with timm.task ({error}): pip install -U timm"
    ) from error

from robusttune.integration.state import LossState, Resumable
from robusttune.run import distributed
from robusttune.training.robust_loss import RobustLoss


class RobustTask(TrainingTask):
    """A training task of timm: {"loss", "output", …} is what both speak of.

    The optimizer, gradient clipping, averaged weights and DDP get RobustLoss, whose parameters are the model's and the heads'. What is
    evaluated and saved is the model alone: a checkpoint loads with `timm.create_model(…, checkpoint_path=…)`, and holds the heads'
    state in `task_state`, from which `--resume` goes on.

    Args:
        robust_loss: around the model, with the mean and std of pixels on [0,1], `data_config["mean"]` and `["std"]`.

    Example:
        >>> import torch
        >>> from robusttune import ThreatModel
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> task = RobustTask(RobustLoss(model, ThreatModel("l2", eps=0.5), images=torch.rand(4, 1, 8, 8)))
        >>> list(task.get_checkpoint_state()["state_dict"])
        ['1.weight', '1.bias']
    """

    def __init__(self, robust_loss: RobustLoss) -> None:
        parameter = next(robust_loss.parameters())
        super().__init__(device=parameter.device, dtype=parameter.dtype, verbose=False)
        self.trainable_module: nn.Module = robust_loss
        if hasattr(robust_loss.model, "no_weight_decay"):  # create_optimizer_v2 asks the module that it gets
            names = {f"model.{name}" for name in cast(Any, robust_loss.model).no_weight_decay()}
            cast(Any, robust_loss).no_weight_decay = lambda: names

    @property
    def robust_loss(self) -> RobustLoss:
        """The RobustLoss, without DDP around it."""
        return cast(RobustLoss, getattr(self.trainable_module, "module", self.trainable_module))

    def prepare_distributed(self, device_ids: object = None, **settings: object) -> "RobustTask":
        """Wrap RobustLoss in DDP, where several processes work together; return the task.

        The arguments are timm's and are not used: buffers must not be synchronised between the forward passes of a step, and the device
        is that of the model.
        """
        self.trainable_module = distributed.replicated(self.trainable_module)
        return self

    def get_eval_model(self, module: nn.Module | None = None, ema: bool = False) -> nn.Module | None:
        """Return the model, or its averaged copy, without RobustLoss."""
        if module is not None:
            return module
        if not ema:
            return self.robust_loss.model
        averaged = self.get_trainable_module(ema=True)
        return None if averaged is None else cast(Any, averaged).module.model

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, object]:
        """Return the state of the heads, for the checkpoint."""
        return {} if ema else dict(Resumable(self.robust_loss).state_dict())

    def load_task_state(
        self, state: dict[str, object] | None, strict: bool = True, module: nn.Module | None = None, ema: bool = False
    ) -> None:
        """Restore the state of the heads; a checkpoint without one, of a pre-trained model, leaves them as they are."""
        if state and not ema:
            Resumable(self.robust_loss).load_state_dict(cast(LossState, state))

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the losses of a batch, and the logits of the adversarial images."""
        out: dict[str, Tensor] = self.trainable_module(images, labels)
        return out
