"""A Trainer of Hugging Face's transformers whose loss is RobustLoss."""

import logging
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

try:
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_utils import TrainOutput, get_last_checkpoint
except ImportError as error:
    raise ImportError(
        f"robusttune.integration.transformers needs transformers ({error}): pip install transformers accelerate"
    ) from error

from robusttune.integration.state import Resumable, add_heads, average_gradients
from robusttune.run import distributed
from robusttune.training.robust_loss import RobustLoss

FILE = "robust_loss.pt"
logger = logging.getLogger("robusttune")

Setting: TypeAlias = Any  # whatever Trainer takes there
Computed: TypeAlias = Any  # a loss, or a pair of a loss and outputs


class RobustTrainer(Trainer):
    """A Trainer that takes a RobustLoss where Trainer takes a model, and trains that model with it.

    Optimizer, scheduler, callbacks and checkpoints are Trainer's own: the optimizer of `args` trains the heads, too, and a checkpoint
    is that of the plain model, which `from_pretrained` loads. The state of the heads is a file beside it, `robust_loss.pt`, and
    `train(resume_from_checkpoint=…)` restores it exactly; `load_best_model_at_end` gives the heads of the best model. Batches are those of image classification: `pixel_values`, `labels`. Several
    processes, under torchrun or accelerate launch, average gradients, and at each step of the optimizer the running statistics, too.

    Args:
        robust_loss: around an image classification model of transformers, or any model whose forward names `pixel_values`.
        args: as for Trainer.
        attack_evaluation: `evaluate` attacks: `compute_metrics` gets the logits of adversarial images, and `eval_loss` is the robust
            loss. False for the model's own loss on unchanged images.
        settings: everything else that Trainer takes, by name, such as `train_dataset=`.

    Raises:
        ValueError: FSDP, DeepSpeed or label smoothing in `args`, or `compute_loss_func=`; a checkpoint without the heads' state.
    """

    def __init__(
        self,
        robust_loss: RobustLoss,
        args: TrainingArguments | None = None,
        *,
        attack_evaluation: bool = True,
        **settings: Setting,
    ) -> None:
        self.robust_loss, self.attack_evaluation = robust_loss, attack_evaluation
        super().__init__(robust_loss.model, args, **settings)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ValueError(
                "FSDP and DeepSpeed split the weights among processes, and an attack needs all of them in each process: leave fsdp= and "
                "deepspeed= out of TrainingArguments; several processes work without them"
            )
        if self.label_smoother is not None or self.compute_loss_func is not None:
            raise ValueError(
                "the loss is that of RobustLoss, which label_smoothing_factor= and compute_loss_func= do not change: leave them out, and pass "
                "RobustLoss objective=partial(adversarial, label_smoothing=…), or criterion=… in the same way"
            )
        robust_loss.heads.to(self.args.device)
        robust_loss.pixels.to(self.args.device)
        # RobustLoss gives a mean over the batch, which Trainer divides by the number of accumulated batches.
        self.loss_is_scaled_for_ga, self.model_accepts_loss_kwargs = False, False
        self.add_callback(_BesideModel(robust_loss))

    def create_optimizer(self, *arguments: Setting, **settings: Setting) -> torch.optim.Optimizer:
        """Make Trainer's optimizer over the model, and let it train the heads, too."""
        optimizer = super().create_optimizer(*arguments, **settings)
        add_heads(optimizer, self.robust_loss)
        return optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Computed:
        """Compute the robust loss of a batch; with `return_outputs`, the logits of the adversarial images, too."""
        if not model.training and not self.attack_evaluation:
            return super().compute_loss(model, inputs, return_outputs)
        self.robust_loss.training = model.training
        with self.accelerator.autocast():
            out = self.robust_loss(pixel_values=inputs["pixel_values"], labels=inputs["labels"])
        return (out["loss"], {"loss": out["loss"], "logits": out["output"]}) if return_outputs else out["loss"]

    def training_step(self, *arguments: Setting, **settings: Setting) -> Tensor:
        """Take Trainer's step; average gradients and running statistics over processes, as RobustLoss does not call the wrapped model."""
        loss: Tensor = super().training_step(*arguments, **settings)
        if self.accelerator.sync_gradients:
            average_gradients(self.robust_loss)
            distributed.average(self.robust_loss.model.buffers())
        return loss

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *arguments: Setting, **settings: Setting
    ) -> TrainOutput:
        """Train; with `resume_from_checkpoint`, restore the heads before Trainer restores the rest."""
        folder = resume_from_checkpoint or None
        if folder is True:
            folder = _last_checkpoint(self.args.output_dir)
        if isinstance(folder, str):
            path = Path(folder) / FILE
            if not path.exists():
                raise ValueError(
                    f"{str(path)!r} is missing, so the heads cannot go on where they were: resume from a checkpoint that "
                    "RobustTrainer wrote, or load the model with from_pretrained and begin a new run"
                )
            Resumable(self.robust_loss).load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return super().train(resume_from_checkpoint, *arguments, **settings)


def _last_checkpoint(folder: str | None) -> str | None:
    found: str | None = get_last_checkpoint(folder)  # type: ignore[no-untyped-call]
    return found


class _BesideModel(TrainerCallback):
    """Does for the heads what Trainer does for the model alone: sets gradients to zero, saves, and loads the best ones at the end."""

    def __init__(self, robust_loss: RobustLoss) -> None:
        self.robust_loss = robust_loss

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: object
    ) -> None:
        self.robust_loss.heads.zero_grad()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: object) -> None:
        if state.is_world_process_zero:
            folder = Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"
            torch.save(dict(Resumable(self.robust_loss).state_dict()), folder / FILE)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: object
    ) -> None:
        if not args.load_best_model_at_end or state.best_model_checkpoint is None:
            return
        path = Path(state.best_model_checkpoint) / FILE
        if path.exists():
            self.robust_loss.heads.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["heads"])
        else:
            logger.warning(
                "%s is missing: the heads are those of the last step, beside the weights of the best model", path
            )
