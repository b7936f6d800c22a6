"""RobustLoss in a loop of plain PyTorch.

python examples/loop_plain.py
"""

from loops import EPOCHS, SETTINGS, THREAT, finish, measured, optimizer_of, scene

from robusttune import RobustLoss


def main() -> None:
    """Measure, harden, measure again."""
    model, training, testing = scene()
    before = measured(model, testing)

    robust_loss = RobustLoss(model, THREAT, **SETTINGS)
    optimizer = optimizer_of(robust_loss)
    robust_loss.train()
    for _ in range(EPOCHS):
        for images, labels in training:
            optimizer.zero_grad()
            robust_loss(images, labels)["loss"].backward()
            optimizer.step()

    finish(before, measured(model, testing))


if __name__ == "__main__":
    main()
