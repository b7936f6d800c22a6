"""RobustLoss with Hugging Face accelerate, which saves after each epoch and goes on exactly there; also under `accelerate launch`.

python examples/loop_accelerate.py
python examples/loop_accelerate.py --folder states    # if it is interrupted, the same command goes on
"""

import argparse
import tempfile
from pathlib import Path

from accelerate import Accelerator, DataLoaderConfiguration
from loops import EPOCHS, SETTINGS, THREAT, finish, measured, optimizer_of, scene
from torch.utils.data import DataLoader

from robusttune import RobustLoss
from robusttune.integration.state import Resumable


def hardened(robust_loss: RobustLoss, training: DataLoader, folder: Path, epochs: int = EPOCHS) -> None:
    """Train the model of a RobustLoss; go on after the last epoch whose state is in the folder."""
    # A seedable sampler shuffles by the number of the epoch, so that the order after a restart is the same.
    accelerator = Accelerator(dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True))
    wrapped, optimizer, training = accelerator.prepare(robust_loss, optimizer_of(robust_loss), training)
    accelerator.register_for_checkpointing(Resumable(robust_loss))
    done = len(list(folder.glob("epoch-*")))
    if done:
        accelerator.load_state(str(folder / f"epoch-{done}"))
    wrapped.train()
    for epoch in range(done, epochs):
        training.set_epoch(epoch)
        for images, labels in training:
            optimizer.zero_grad()
            accelerator.backward(wrapped(images, labels)["loss"])
            optimizer.step()
        accelerator.save_state(str(folder / f"epoch-{epoch + 1}"))


def main() -> None:
    """Measure, harden, measure again."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path)
    folder = parser.parse_args().folder
    model, training, testing = scene()
    before = measured(model, testing)
    with tempfile.TemporaryDirectory() as temporary:
        hardened(RobustLoss(model, THREAT, **SETTINGS), training, folder or Path(temporary))
    finish(before, measured(model, testing))


if __name__ == "__main__":
    main()
