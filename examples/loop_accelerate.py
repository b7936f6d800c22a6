"""RobustLoss with Hugging Face accelerate; the same script runs under `accelerate launch`.

python examples/loop_accelerate.py
"""

from accelerate import Accelerator
from loops import EPOCHS, SETTINGS, THREAT, finish, measured, optimizer_of, scene

from robusttune import RobustLoss


def main() -> None:
    """Measure, harden, measure again."""
    model, training, testing = scene()
    before = measured(model, testing)

    robust_loss = RobustLoss(model, THREAT, **SETTINGS)
    accelerator = Accelerator()
    wrapped, optimizer, training = accelerator.prepare(robust_loss, optimizer_of(robust_loss), training)
    wrapped.train()
    for _ in range(EPOCHS):
        for images, labels in training:
            optimizer.zero_grad()
            accelerator.backward(wrapped(images, labels)["loss"])
            optimizer.step()

    finish(before, measured(model, testing))


if __name__ == "__main__":
    main()
