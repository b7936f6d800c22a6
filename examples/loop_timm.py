"""RobustLoss as a task of timm's training script: its optimizer, mixup, EMA, checkpoints and loop stay as they are.

    python examples/loop_timm.py

In timm's own train.py, the line to change is the one that makes the task:

    task = RobustTask(RobustLoss(model, ThreatModel("linf", 4 / 255), mean=data_config["mean"], std=data_config["std"]))
"""

import tempfile
from pathlib import Path

import timm
import torch
from loops import EPOCHS, SETTINGS, THREAT, finish, measured, optimizer_of, scene
from timm.utils import CheckpointSaver

from robusttune import RobustLoss
from robusttune.integration.timm import RobustTask


def main() -> None:
    """Measure, harden, measure again, and load the checkpoint that timm has saved."""
    model, training, testing = scene()
    before = measured(model, testing)

    task = RobustTask(RobustLoss(model, THREAT, **SETTINGS))
    task.setup_ema(decay=0.98)
    optimizer = optimizer_of(task.get_trainable_module())
    task.train()
    for _ in range(EPOCHS):
        for images, labels in training:
            optimizer.zero_grad()
            task(images, labels)["loss"].backward()
            optimizer.step()
            task.update_ema()

    finish(before, measured(model, testing))
    with tempfile.TemporaryDirectory() as folder:
        CheckpointSaver(model, optimizer, task=task, checkpoint_dir=folder).save_checkpoint(EPOCHS, metric=1.0)
        saved = Path(folder) / "last.pth.tar"
        again = timm.create_model("test_resnet", in_chans=1, num_classes=10, checkpoint_path=saved)  # the averaged ones
    averaged = task.get_eval_model(ema=True)
    assert all(torch.equal(averaged.state_dict()[name], each) for name, each in again.state_dict().items())
    print("timm.create_model(…, checkpoint_path=…) loads what was saved")


if __name__ == "__main__":
    main()
