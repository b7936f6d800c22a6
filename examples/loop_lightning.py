"""RobustLoss in a LightningModule. Lightning validates in inference mode, and the attack works there all the same.

pip install lightning
python examples/loop_lightning.py
"""

import logging
import warnings

import lightning
import torch
from loops import EPOCHS, SETTINGS, THREAT, finish, measured, optimizer_of, scene

from robusttune import RobustLoss


class Hardening(lightning.LightningModule):
    """Trains a classifier, and watches its accuracy under attack."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.robust_loss = RobustLoss(model, THREAT, **SETTINGS).train()  # fit leaves modules in the mode it finds
        self.robust_accuracy: list[float] = []

    def training_step(self, batch: tuple, index: int) -> dict:
        return self.robust_loss(*batch)

    def validation_step(self, batch: tuple, index: int) -> None:
        images, labels = batch
        found = self.robust_loss(images, labels)["output"].argmax(1)  # the answers to adversarial images
        self.robust_accuracy.append(float((found == labels).float().mean()))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optimizer_of(self.robust_loss)


def trainer(**settings: object) -> lightning.Trainer:
    """A quiet trainer on the CPU."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return lightning.Trainer(max_epochs=EPOCHS, accelerator="cpu", **quiet, **settings)


def main() -> None:
    """Measure, harden, measure again."""
    model, training, testing = scene()
    before = measured(model, testing)
    hardening = Hardening(model)
    trainer(num_sanity_val_steps=0).fit(hardening, training, testing)
    finish(before, measured(model.to("cpu"), testing))


if __name__ == "__main__":
    main()
