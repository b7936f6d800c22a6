"""What the tests launch in two processes: `launched_trainer.py FOLDER`, a RobustTrainer on handwritten digits."""

import sys
from functools import partial
from pathlib import Path

import torch
import transformers
from tiny_digits import THREAT, digits
from torch.nn import functional as F

from robusttune import RobustLoss
from robusttune.attacks.pgd import pgd
from robusttune.integration.transformers import RobustTrainer

BATCH, EPOCHS, IMAGES = 16, 2, 96
PLAIN = {"tasks": None, "attack": partial(pgd, steps=2, random_start=False)}
CASES = {
    "plain": ("vit", PLAIN),  # without chance and batch norm, two halves of a batch are the whole
    "joint": ("resnet", {"tasks": {"rotation": 0.5, "jigsaw": 0}, "steps": 2}),
}


class Seen(torch.utils.data.Dataset):
    """Handwritten digits, with the rows that were read."""

    def __init__(self):
        images, self.labels = digits(0, IMAGES)
        self.images, self.rows = F.interpolate(images, 16), []

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, row):
        self.rows.append(row)
        return {"pixel_values": self.images[row], "labels": self.labels[row]}


def new_model(kind):
    torch.manual_seed(0)
    if kind == "vit":
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = transformers.ViTConfig(image_size=16, patch_size=4, num_channels=1, num_labels=10, **sizes)
        return transformers.ViTForImageClassification(config)
    sizes = {"hidden_sizes": [8, 16], "depths": [1, 1], "embedding_size": 8, "layer_type": "basic"}
    config = transformers.ResNetConfig(num_channels=1, num_labels=10, **sizes)
    return transformers.ResNetForImageClassification(config)


def trained(folder, case, batch, accumulate=1):
    """The state after training, the first rows that were read, and the accuracy under attack."""
    kind, settings = CASES[case]
    data, args = Seen(), {"num_train_epochs": EPOCHS, "per_device_train_batch_size": batch, "optim": "sgd"}
    args |= {"learning_rate": 0.5, "save_strategy": "epoch", "gradient_accumulation_steps": accumulate}
    quiet = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "logging_strategy": "no", "eval_strategy": "no"}
    robust_loss = RobustLoss(new_model(kind), THREAT, images=data.images[:2], **settings)
    trainer = RobustTrainer(
        robust_loss,
        transformers.TrainingArguments(str(folder / case), **args, **quiet),
        train_dataset=data,
        eval_dataset=Seen(),
        compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(1) == found.label_ids).mean())},
    )
    trainer.train()
    rows = list(data.rows)
    return {"state": robust_loss.state_dict(), "rows": rows, "accuracy": trainer.evaluate()["eval_accuracy"]}


def main(folder):
    torch.set_num_threads(1)
    found = {case: trained(folder, case, BATCH // 2) for case in CASES}
    found["accumulated"] = trained(folder, "plain", BATCH // 4, accumulate=2)
    assert torch.distributed.get_world_size() == 2
    torch.save(found, folder / f"{torch.distributed.get_rank()}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
