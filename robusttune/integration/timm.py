"""A task of timm's training script around RobustLoss."""

from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn

try:
    from timm.models import group_parameters
    from timm.task import TrainingTask
except ImportError as error:
    raise ImportError(
        f"robusttune.integration.timm needs a newer timm, with timm.task ({error}): pip install -U timm"
    ) from error

from robusttune.integration.state import LossState, Resumable, heads_beside
from robusttune.run import distributed
from robusttune.training.robust_loss import RobustLoss

MODEL = "model."  # before the names of the model's parameters in a RobustLoss


class RobustTask(TrainingTask):
    """A training task of timm: {"loss", "output", …} is what both speak of.

    The optimizer, averaged weights and DDP get RobustLoss, whose parameters are the model's and the heads'; gradient clipping gets
    them without the heads of tasks of weight 0, which the model must not feel. Layer decay knows the model's layers. What is evaluated
    and saved is the model alone: a checkpoint loads with `timm.create_model(…, checkpoint_path=…)`, and holds the heads' state in
    `task_state`, from which `--resume` goes on.

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
        model, asked = cast(Any, robust_loss.model), cast(Any, robust_loss)  # timm asks what its optimizer gets
        if hasattr(model, "no_weight_decay"):
            names = {f"{MODEL}{name}" for name in model.no_weight_decay()}
            asked.no_weight_decay = lambda: names
        if hasattr(model, "group_matcher"):
            asked.group_matcher = lambda coarse=False: _layer_of(model, coarse)

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

    def get_clip_parameters(self, exclude_head: bool = False) -> list[nn.Parameter]:
        """Return the parameters whose gradients are clipped; with `exclude_head`, without the last two of the model, as timm does."""
        beside = {id(each) for each in heads_beside(self.robust_loss)}
        heads = [each for each in self.robust_loss.heads.parameters() if id(each) not in beside]
        weights = list(self.robust_loss.model.parameters())
        return (weights[:-2] if exclude_head else weights) + heads

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


def _layer_of(model: nn.Module, coarse: bool) -> Callable[[str], int]:
    """Return timm's map from a parameter's name in the RobustLoss to its layer; heads are in the last one, as a classifier is."""
    layers: dict[str, int] = group_parameters(model, cast(Any, model).group_matcher(coarse=coarse), reverse=True)
    last = max(layers.values())
    return lambda name: layers[name.removeprefix(MODEL)] if name.startswith(MODEL) else last
