"""Simple statistics of images, in which images of another kind differ."""

from torch import Tensor


def image_statistics(pixels: Tensor) -> dict[str, Tensor]:
    """Return statistics of images (N,C,H,W) on [0,1], each (N,): mean of each channel, contrast, and detail.

    Detail is the mean size of the Laplacian, which noise raises and blur lowers. With more than four channels there is one
    mean over all of them.
    """
    channels = pixels.mean((2, 3))
    by_channel = {f"mean of channel {number + 1}": values for number, values in enumerate(channels.T)}
    statistics = by_channel if len(by_channel) <= 4 else {"mean": channels.mean(1)}
    statistics["contrast"] = pixels.flatten(1).std(1)
    if min(pixels.shape[2:]) > 2:
        inner = pixels[:, :, 1:-1, 1:-1]
        around = pixels[:, :, :-2, 1:-1] + pixels[:, :, 2:, 1:-1] + pixels[:, :, 1:-1, :-2] + pixels[:, :, 1:-1, 2:]
        statistics["detail"] = (inner - around / 4).abs().mean((1, 2, 3))
    return statistics
