"""A LightningModule that is hardened by a callback: the module stays as it is, and so do its checkpoints.

pip install lightning
python examples/loop_lightning.py
"""

import logging
import tempfile
import warnings
from pathlib import Path

import lightning
import torch
from loops import EPOCHS, RATE, SETTINGS, THREAT, finish, measured, scene
from torch import nn

from robusttune import RobustLoss
from robusttune.integration.lightning import RobustTraining


class Classifier(lightning.LightningModule):
    """Trains a classifier as ever; it knows nothing of attacks."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images)

    def training_step(self, batch: tuple, index: int) -> torch.Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def validation_step(self, batch: tuple, index: int) -> None:
        images, labels = batch
        self.log("val_accuracy", (self(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), RATE, momentum=0.9)


def trainer(*callbacks: lightning.Callback, **settings: object) -> lightning.Trainer:
    """A quiet trainer on the CPU."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    settings = {"max_epochs": EPOCHS, "enable_checkpointing": False, **quiet, **settings}
    return lightning.Trainer(accelerator="cpu", callbacks=list(callbacks), **settings)


def main() -> None:
    """Measure, harden, measure again, and load the checkpoint into the original class."""
    model, training, testing = scene()
    before = measured(model, testing)
    module = Classifier(model.train())  # fit leaves modules in the mode in which it finds them
    robust_loss = RobustLoss(module, THREAT, **SETTINGS)
    run = trainer(RobustTraining(robust_loss))
    run.fit(module, training, testing)
    print(
        f"under attack: {float(run.callback_metrics['val_robust_accuracy']):.0%} of the last epoch's validation images"
    )
    finish(before, measured(model.to("cpu"), testing))
    with tempfile.TemporaryDirectory() as folder:
        run.save_checkpoint(Path(folder, "a.ckpt"))
        Classifier.load_from_checkpoint(Path(folder, "a.ckpt"), model=scene()[0])


if __name__ == "__main__":
    main()
