"""Adversarial training of a LightningModule that stays as it is: a callback of Lightning."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError(f"robusttune.integration.lightning needs lightning ({error}): pip install lightning") from error

from robusttune.data.batches import hard_labels, unpacked
from robusttune.integration.state import (
    LossState,
    Resumable,
    add_heads,
    average_gradients,
    heads_beside,
    without_gradients,
)
from robusttune.model.devices import dtype_of
from robusttune.training.robust_loss import RobustLoss

REPLACED = ("training_step", "configure_gradient_clipping")  # methods of the LightningModule
SHARDING = ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy")  # by name: DeepSpeed need not be installed


class RobustTraining(Callback):
    """A callback that replaces `training_step` by a RobustLoss, and leaves the keys of checkpoints unchanged.

    `state_dict` of a checkpoint has exactly the keys of your LightningModule, whose `load_from_checkpoint` loads it. The heads
    of the pretext tasks are in the callback's own state and, by `configure_optimizers`, in the optimizer's first group; `ckpt_path=`
    restores both exactly. Heads of tasks of weight 0 do not count in gradient clipping, as the model must not feel them. Each step
    logs `train_loss`, `train_robust` and the pretext losses by name; each epoch logs `val_robust_accuracy`, under the attack of the
    RobustLoss, for ModelCheckpoint and EarlyStopping.

    Args:
        robust_loss: around the LightningModule, whose forward then gives logits, or around a module inside it. It must not be an
            attribute of the LightningModule.
        validate: attack the validation images, too; False saves that time.

    Raises:
        ValueError: in `fit`, for a module that does not fit.

    Example:
        >>> from robusttune import RobustLoss, ThreatModel
        >>> class Classifier(LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        ...     def forward(self, images):
        ...         return self.net(images)
        >>> module = Classifier()
        >>> robust_loss = RobustLoss(module, ThreatModel("l2", eps=0.5), images=torch.rand(4, 1, 8, 8))
        >>> trainer = Trainer(callbacks=[RobustTraining(robust_loss)], logger=False, accelerator="cpu")
        >>> list(module.state_dict())
        ['net.1.weight', 'net.1.bias']
    """

    def __init__(self, robust_loss: RobustLoss, *, validate: bool = True) -> None:
        self.robust_loss, self.validates = robust_loss, validate
        self._runs = False
        self._replaced: dict[str, object] = {}  # what the user set on the module itself under these names

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the module, and replace its `training_step` by RobustLoss."""
        self._check(trainer, pl_module)
        robust_loss = self.robust_loss

        # A function, as StochasticWeightAveraging copies the module with all of its attributes.
        def training_step(batch: object, batch_idx: int = 0) -> Mapping[str, Tensor]:
            out = _called(robust_loss, batch, training=True)
            losses = {f"train_{name}": value.detach() for name, value in out.items() if name != "output"}
            pl_module.log_dict(losses, batch_size=len(out["output"]))
            return out

        clips = pl_module.configure_gradient_clipping

        def configure_gradient_clipping(optimizer: object, *arguments: object, **settings: object) -> None:
            with without_gradients(heads_beside(robust_loss)):
                clips(optimizer, *arguments, **settings)  # type: ignore[arg-type]

        if stage == "fit":
            self._runs = True
            self._replaced = {name: each for name, each in vars(pl_module).items() if name in REPLACED}
            vars(pl_module).update(zip(REPLACED, (training_step, configure_gradient_clipping), strict=True))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the module its own `training_step` back."""
        self._give_back(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the module its own `training_step` back after an error, too."""
        self._give_back(pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the heads to the module's device, and give them to the optimizers."""
        self._follow(pl_module)
        for optimizer in trainer.optimizers[:1]:
            add_heads(optimizer, self.robust_loss)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the heads to the module's device, where `validate` runs without `fit`."""
        self._follow(pl_module)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Average the heads' gradients over the processes; DDP does so for the module's."""
        average_gradients(self.robust_loss.heads)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Log the accuracy on the batch under attack."""
        if self.validates:
            labels = hard_labels(unpacked(batch, wait=False)[1])
            found = _called(self.robust_loss, batch, training=False)["output"].argmax(1)
            right = (found == labels.to(found.device)).float().mean()
            pl_module.log("val_robust_accuracy", right, on_epoch=True, batch_size=len(labels), sync_dist=True)

    def state_dict(self) -> dict[str, object]:
        """Return the state of the heads and of the random numbers, for the checkpoint."""
        return dict(Resumable(self.robust_loss).state_dict())

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Restore that state."""
        Resumable(self.robust_loss).load_state_dict(cast(LossState, state_dict))

    def _give_back(self, pl_module: LightningModule) -> None:
        if self._runs:
            for name in REPLACED:
                vars(pl_module).pop(name, None)
            vars(pl_module).update(self._replaced)
            self._runs = False

    def _follow(self, pl_module: LightningModule) -> None:
        for part in (self.robust_loss.heads, self.robust_loss.pixels):
            part.to(pl_module.device)
        self.robust_loss.heads.to(dtype_of(self.robust_loss.model))

    def _check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        inside = list(pl_module.modules())
        if any(module is self.robust_loss for module in inside):
            raise ValueError(
                "the RobustLoss is an attribute of the LightningModule, so that its weights would be in every checkpoint: keep it "
                "outside, and pass it to RobustTraining alone"
            )
        if not any(module is self.robust_loss.model for module in inside):
            raise ValueError(
                "the model of the RobustLoss is not in the LightningModule: make RobustLoss(module, …), or RobustLoss(module.net, "
                "…) with the part of it that gives logits"
            )
        if not pl_module.automatic_optimization:
            raise ValueError(
                "the LightningModule optimizes manually, and RobustTraining takes the place of its training_step: call a "
                "RobustLoss of your own in that step"
            )
        strategy = type(trainer.strategy).__name__
        if strategy in SHARDING:
            raise ValueError(
                f"{strategy} splits the weights among processes, and an attack needs all of them in each process: use strategy='ddp' or one "
                "device"
            )


def _called(robust_loss: RobustLoss, batch: object, *, training: bool) -> dict[str, Tensor]:
    """Call RobustLoss on a batch; the modes of its model, which Lightning sets, stay as they are."""
    robust_loss.training = training
    with torch.inference_mode(False):
        images, labels = unpacked(batch, wait=False)
    out: dict[str, Tensor] = robust_loss(images, labels)
    return out
