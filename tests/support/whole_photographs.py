"""Real photographs, which scikit-learn brings along, at any size."""

from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image


@lru_cache(maxsize=8)
def photographs(side):
    """Six square parts (6,3,side,side) in [0,1] of two photographs: the middle and both ends of each."""
    made = []
    for name in ("china.jpg", "flower.jpg"):
        picture = Image.fromarray(load_sample_image(name))
        width, height = picture.size
        for left in (0, (width - height) // 2, width - height):
            part = picture.crop((left, 0, left + height, height)).resize((side, side), Image.Resampling.BICUBIC)
            made.append(torch.from_numpy(np.array(part)).permute(2, 0, 1).float() / 255)
    return torch.stack(made)
