"""RobustLoss in Hugging Face's Trainer, with an image classification model of transformers.

pip install transformers
python examples/loop_transformers.py
"""

import tempfile

import torch
from images import SIDE, loaders
from loops import EPOCHS, SETTINGS, THREAT, finish, measured
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments

from robusttune import RobustLoss
from robusttune.integration.transformers import RobustTrainer


def collated(rows: list) -> dict:
    """The batches that models of transformers take."""
    images, labels = zip(*rows, strict=True)
    return {"pixel_values": torch.stack(images), "labels": torch.stack(labels)}


def new_model() -> torch.nn.Module:
    """A small ResNet of transformers."""
    sizes = {"hidden_sizes": [16, 32], "depths": [1, 1], "embedding_size": 16, "layer_type": "basic"}
    return ResNetForImageClassification(ResNetConfig(num_channels=1, num_labels=10, **sizes))


def settings(folder: str, **more) -> TrainingArguments:
    """Quiet, on the CPU."""
    quiet = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no"}
    return TrainingArguments(folder, use_cpu=True, remove_unused_columns=False, **quiet, **more)


def main() -> None:
    """Train ordinarily, measure, harden, measure again."""
    torch.manual_seed(0)
    training, testing = loaders("digits", test=200)
    model = new_model()
    with tempfile.TemporaryDirectory() as folder:
        common = {"per_device_train_batch_size": 128}
        ordinary = settings(folder, num_train_epochs=8, learning_rate=3e-3, **common)
        Trainer(model, ordinary, train_dataset=training.dataset, data_collator=collated).train()
        before = measured(model, testing)

        robust_loss = RobustLoss(model, THREAT, images=torch.rand(2, 1, SIDE, SIDE), **SETTINGS)
        hardening = settings(folder, num_train_epochs=2 * EPOCHS, learning_rate=3e-3, **common)
        RobustTrainer(robust_loss, hardening, train_dataset=training.dataset, data_collator=collated).train()
    finish(before, measured(model, testing))


if __name__ == "__main__":
    main()
