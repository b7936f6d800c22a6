"""What two makers of random pictures are compared by; used where the references are made, and where they are tested."""

import numpy as np

BANDS = 8
BINS = 16
PARTS = {  # of the features: mean and spread, the histogram, the spectra of brightness and of one colour difference
    "mean": slice(0, 1),
    "spread": slice(1, 3),
    "histogram": slice(3, 3 + BINS),
    "spectrum": slice(3 + BINS, 3 + BINS + BANDS),
    "colour spectrum": slice(3 + BINS + BANDS, 3 + BINS + 2 * BANDS),
}


def features(levels, clean):
    """The features of a picture (H,W,3) uint8 of a clean one: levels in units of 1/255, shares in percent, powers in dB.

    Spectra are those of what was changed, as the photograph's own would hide it.
    """
    grey, difference = planes(levels)
    own_grey, own_difference = planes(clean)
    shares = np.cumsum(np.histogram(grey, BINS, (0, 255.001))[0]) / grey.size * 100
    return np.concatenate(
        [
            [grey.mean(), grey.std(), difference.std()],
            shares,
            spectrum(grey - own_grey),
            spectrum(difference - own_difference),
        ]
    )


def planes(levels):
    """The brightness (H,W), and red minus blue."""
    values = levels.astype(np.float64)
    return values @ [0.299, 0.587, 0.114], values[..., 0] - values[..., 2]


def spectrum(plane):
    """The power (BANDS,) of a plane (H,W) by frequency, in dB, in bands that grow in equal ratios."""
    side = plane.shape[0]
    window = np.hanning(side)
    power = np.abs(np.fft.fft2((plane - plane.mean()) * window[:, None] * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)) * side
    edges = np.geomspace(2, side / 2, BANDS + 1)
    band = np.digitize(frequency, edges)
    return 10 * np.log10([power[band == number].mean() + 1e-3 for number in range(1, BANDS + 1)])
