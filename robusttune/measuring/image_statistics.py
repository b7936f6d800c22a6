"""Simple statistics of images, by which others are told from them."""

from torch import Tensor


def of_pixels(pixels: Tensor) -> dict[str, Tensor]:
    """Simple statistics of images (N,C,H,W) in [0,1], each (N,): brightness by channel, contrast, and fine detail.

    Detail is the mean size of the Laplacian, which noise raises and blur lowers. Of more than four channels the mean
    brightness alone is taken.
    """
    channels = pixels.mean((2, 3))
    names = {f"mean of channel {number + 1}": values for number, values in enumerate(channels.T)}
    found = names if len(names) <= 4 else {"mean": channels.mean(1)}
    found["contrast"] = pixels.flatten(1).std(1)
    if min(pixels.shape[2:]) > 2:
        inner = pixels[:, :, 1:-1, 1:-1]
        around = pixels[:, :, :-2, 1:-1] + pixels[:, :, 2:, 1:-1] + pixels[:, :, 1:-1, :-2] + pixels[:, :, 1:-1, 2:]
        found["detail"] = (inner - around / 4).abs().mean((1, 2, 3))
    return found
