"""The preprocessing in config.json, against that of the command line."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from robusttune.cli.options import Sources
from robusttune.cli.sources import loader_of
from robusttune.sharing.config import scaling_of


@pytest.mark.parametrize("side", [64, 160, 176, 224, 256, 384])
def test_timm_scales_images_to_the_pixels_that_the_command_line_reads(side, tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (310, 300, 3), np.uint8)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(levels).save(tmp_path / name / "0.png")
    (images, _), *_ = loader_of(Sources(model="timm:test_resnet", data=str(tmp_path), size=side, channels=3))
    scaled = timm.data.create_transform((3, side, side), mean=(0, 0, 0), std=(1, 1, 1), **scaling_of(side))
    assert torch.equal(scaled(Image.fromarray(levels)), images[0])
