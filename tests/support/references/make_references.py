"""Write `references.npz`: what other programs make of a photograph, to which robusttune's corruptions are held.

    python3.11 -m venv reference && reference/bin/pip install "setuptools<80" "numpy<2" scikit-image==0.22 "scipy<1.14" \
        imagecorruptions==1.1.2 "opencv-python-headless<4.12" Wand "scikit-learn<1.6"
    apt install libmagickwand-6.q16-6
    reference/bin/python tests/support/references/make_references.py

At 224 px imagecorruptions is the judge of the thirteen that it has right and of spatter. Motion blur and snow are made
with ImageMagick, elastic transform with OpenCV and SciPy, as the programs that define them do; so is everything at
32 px, of which there is no package. These definitions are compared with imagecorruptions at 224 px first.

Random corruptions are seeded through numpy's legacy generator, whose streams are the same in every version: the test
draws the same numbers again. Of these, and of frost, statistics over many seeds are kept, too.
"""

import io
import os
import sys
import warnings
from pathlib import Path

import cv2
import imagecorruptions
import imagecorruptions.corruptions as judge
import numpy as np
from PIL import Image
from scipy.ndimage import map_coordinates
from scipy.ndimage import zoom as scipy_zoom
from skimage import color, filters, util
from sklearn.datasets import load_sample_image
from wand.api import library
from wand.image import Image as WandImage

sys.path.insert(0, str(Path(__file__).parent))
from statistics_of import features

OUT = Path(__file__).with_name("references.npz")
ROWS = slice(3, None, 8)  # of pictures of 224 px, to keep the file small
SEEDS = 16
SMALL = {  # the severities of CIFAR-10-C
    "gaussian_noise": [0.04, 0.06, 0.08, 0.09, 0.10],
    "shot_noise": [500, 250, 100, 75, 50],
    "impulse_noise": [0.01, 0.02, 0.03, 0.05, 0.07],
    "speckle_noise": [0.06, 0.1, 0.12, 0.16, 0.2],
    "gaussian_blur": [0.4, 0.6, 0.7, 0.8, 1],
    "defocus_blur": [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
    "glass_blur": [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)],
    "motion_blur": [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)],
    "zoom_blur": [(1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)],
    "snow": [
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ],
    "fog": [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)],
    "brightness": [0.05, 0.1, 0.15, 0.2, 0.3],
    "contrast": [0.75, 0.5, 0.4, 0.3, 0.15],
    "elastic_transform": [(0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)],
    "pixelate": [0.95, 0.9, 0.85, 0.75, 0.65],
    "jpeg_compression": [80, 65, 58, 50, 40],
    "spatter": [
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ],
    "saturate": [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)],
}
LARGE = {  # those of ImageNet-C, where the definitions here are used, or compared with imagecorruptions
    "gaussian_noise": [0.08, 0.12, 0.18, 0.26, 0.38],
    "glass_blur": [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)],
    "impulse_noise": [0.03, 0.06, 0.09, 0.17, 0.27],
    "defocus_blur": [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)],
    "zoom_blur": [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)],
    "fog": [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)],
    "brightness": [0.1, 0.2, 0.3, 0.4, 0.5],
    "contrast": [0.4, 0.3, 0.2, 0.1, 0.05],
    "pixelate": [0.6, 0.5, 0.4, 0.3, 0.25],
    "jpeg_compression": [25, 18, 15, 10, 7],
    "saturate": [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)],
    "spatter": [
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    ],
    "motion_blur": [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)],
    "snow": [
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ],
    "elastic_transform": [
        (488, 170.8, 24.4),
        (488, 19.52, 48.8),
        (12.2, 2.44, 4.88),
        (17.08, 2.44, 4.88),
        (29.28, 2.44, 4.88),
    ],
}
FROST = {
    32: [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)],
    224: [(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)],
}
JUDGED = [
    "gaussian_noise",
    "shot_noise",
    "defocus_blur",
    "glass_blur",
    "zoom_blur",
    "fog",
    "brightness",
    "contrast",
    "pixelate",
    "jpeg_compression",
    "speckle_noise",
    "gaussian_blur",
    "saturate",
    "spatter",
]
RANDOM = [
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "speckle_noise",
    "glass_blur",
    "motion_blur",
    "snow",
    "fog",
    "elastic_transform",
    "spatter",
]


def eight_bits(image):
    return np.uint8(np.clip(image, 0, 1) * 255)


def smooth(image, sigma, **settings):
    return filters.gaussian(image, sigma=sigma, channel_axis=-1 if image.ndim == 3 else None, **settings)


def enlarged(image, factor):
    side = image.shape[0]
    part = int(np.ceil(side / factor))
    top = (side - part) // 2
    large = scipy_zoom(image[top : top + part, top : top + part], (factor, factor, 1), order=1)
    cut = (large.shape[0] - side) // 2
    return large[cut : cut + side, cut : cut + side]


def moved(levels, radius, sigma, angle):
    """ImageMagick's motion blur of uint8 levels."""
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="PNG")
    with WandImage(blob=buffer.getvalue()) as picture:
        library.MagickMotionBlurImage(picture.wand, radius, sigma, angle)
        decoded = np.frombuffer(picture.make_blob(format="png"), np.uint8)
    return cv2.imdecode(decoded, cv2.IMREAD_UNCHANGED)


def gaussian_noise(x, c):
    return x + np.random.normal(size=x.shape, scale=c)


def shot_noise(x, c):
    return np.random.poisson(x * c) / c


def impulse_noise(x, c):
    return util.random_noise(x, mode="s&p", amount=c, rng=np.random.randint(2**31))


def speckle_noise(x, c):
    return x + x * np.random.normal(size=x.shape, scale=c)


def gaussian_blur(x, c):
    return smooth(x, c)


def defocus_blur(x, c):
    radius, softness = c
    axis, size = (np.arange(-8, 9), (3, 3)) if radius <= 8 else (np.arange(-radius, radius + 1), (5, 5))
    disk = np.array(axis[:, None] ** 2 + axis**2 <= radius**2, dtype=np.float32)
    kernel = cv2.GaussianBlur(disk / disk.sum(), ksize=size, sigmaX=softness)
    return np.stack([cv2.filter2D(x[..., channel], -1, kernel) for channel in range(3)], -1)


def glass_blur(x, c):
    sigma, reach, passes = c
    levels, side = np.uint8(smooth(x, sigma) * 255), x.shape[0]
    for _ in range(passes):
        for row in range(side - reach, reach, -1):
            for column in range(side - reach, reach, -1):
                right, down = np.random.randint(-reach, reach, size=(2,))
                levels[row, column] = levels[row + down, column + right]
    return smooth(levels / 255.0, sigma)


def motion_blur(x, c):
    angle = np.random.uniform(-45, 45)
    return moved(np.uint8(np.round(x * 255)), *c, angle)[..., ::-1] / 255.0


def zoom_blur(x, c):
    factors = np.arange(1, *c)
    return (x + sum(enlarged(x.astype(np.float32), factor) for factor in factors)) / (len(factors) + 1)


def snow(x, c):
    mean, spread, size, threshold, radius, sigma, blend = c
    layer = enlarged(np.random.normal(size=x.shape[:2], loc=mean, scale=spread)[..., None], size)[..., 0]
    layer[layer < threshold] = 0
    layer = moved(eight_bits(layer), radius, sigma, np.random.uniform(-135, -45)) / 255.0
    grey = cv2.cvtColor(x.astype(np.float32), cv2.COLOR_RGB2GRAY)[..., None]
    layer = layer[..., None]
    return blend * x + (1 - blend) * np.maximum(x, grey * 1.5 + 0.5) + layer + np.rot90(layer, 2)


def fog(x, c):
    side = 2 ** int(np.ceil(np.log2(x.shape[0])))
    density = judge.plasma_fractal(mapsize=side, wibbledecay=c[1])[: x.shape[0], : x.shape[1], None]
    return (x + c[0] * density) * x.max() / (x.max() + c[0])


def brightness(x, c):
    hsv = color.rgb2hsv(x)
    hsv[..., 2] = np.clip(hsv[..., 2] + c, 0, 1)
    return color.hsv2rgb(hsv)


def saturate(x, c):
    hsv = color.rgb2hsv(x)
    hsv[..., 1] = np.clip(hsv[..., 1] * c[0] + c[1], 0, 1)
    return color.hsv2rgb(hsv)


def contrast(x, c):
    mean = x.mean((0, 1), keepdims=True)
    return (x - mean) * c + mean


def elastic_transform(x, c):
    x = x.astype(np.float32)
    shape = x.shape[:2]
    middle, reach = np.float32(shape) // 2, min(shape) // 3
    before = np.float32([middle + reach, [middle[0] + reach, middle[1] - reach], middle - reach])
    after = before + np.random.uniform(-c[2], c[2], size=before.shape).astype(np.float32)
    x = cv2.warpAffine(x, cv2.getAffineTransform(before, after), shape[::-1], borderMode=cv2.BORDER_REFLECT_101)
    moves = []
    for _ in range(2):
        noise = np.random.uniform(-1, 1, size=shape)
        moves.append(filters.gaussian(noise, c[1], mode="reflect", truncate=3) * c[0] if c[1] else noise * 0)
    columns, rows = np.meshgrid(np.arange(shape[1]), np.arange(shape[0]))
    places = np.stack([rows + moves[1], columns + moves[0]])
    return np.stack([map_coordinates(x[..., each], places, order=1, mode="reflect") for each in range(3)], -1)


def pixelate(x, c):
    picture, side = Image.fromarray(np.uint8(np.round(x * 255))), x.shape[0]
    small = picture.resize((int(side * c), int(side * c)), Image.BOX)
    return np.asarray(small.resize((side, side), Image.BOX)) / 255.0


def jpeg_compression(x, c):
    buffer = io.BytesIO()
    Image.fromarray(np.uint8(np.round(x * 255))).save(buffer, "JPEG", quality=c)
    return np.asarray(Image.open(buffer)) / 255.0


def spatter(x, c):
    mean, spread, sigma, threshold, strength, mud = c
    liquid = smooth(np.random.normal(size=x.shape[:2], loc=mean, scale=spread), sigma)
    liquid[liquid < threshold] = 0
    if mud:
        drops = smooth(np.where(liquid > threshold, 1.0, 0.0).astype(np.float32), strength)
        drops[drops < 0.8] = 0
        drops = drops[..., None]
        return x * (1 - drops) + drops * np.array([63, 42, 20]) / 255
    levels = (liquid * 255).astype(np.uint8)
    distance = cv2.distanceTransform(255 - cv2.Canny(levels, 50, 150), cv2.DIST_L2, 5)
    distance = cv2.threshold(distance, 20, 20, cv2.THRESH_TRUNC)[1]
    distance = cv2.equalizeHist(cv2.blur(distance, (3, 3)).astype(np.uint8))
    distance = cv2.filter2D(distance, cv2.CV_8U, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]))
    water = levels * cv2.blur(distance, (3, 3)).astype(np.float32)
    return x + (water / water.max() * strength)[..., None] * np.array([175, 238, 238]) / 255


def judged(name, levels, severity):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.uint8(imagecorruptions.corrupt(levels, corruption_name=name, severity=severity))


def made(name, levels, severity, seed):
    """The reference's picture: by imagecorruptions where it is right, else by the definition here."""
    np.random.seed(seed)
    side = levels.shape[0]
    if side == 224 and name in JUDGED:
        return judged(name, levels, severity)
    table = SMALL if side == 32 else LARGE
    return eight_bits(globals()[name](levels / 255.0, table[name][severity - 1]))


def decibels(first, second):
    error = np.mean((first.astype(float) - second.astype(float)) ** 2)
    return 120.0 if error == 0 else 10 * np.log10(255**2 / error)


def check_definitions(levels):
    """The definitions here must be imagecorruptions' own at 224 px, where both are to be had."""
    for name in LARGE:
        for severity in (1, 3, 5) if name in JUDGED else ():
            np.random.seed(0)
            first = judged(name, levels, severity)
            np.random.seed(0)
            second = eight_bits(globals()[name](levels / 255.0, LARGE[name][severity - 1]))
            print(f"definition of {name}, severity {severity}: {decibels(first, second):.0f} dB")
            assert decibels(first, second) > 60


def frosted(levels, severity):
    """A crop of one of the pictures that imagecorruptions brings along, as the programs that define frost use them."""
    side = levels.shape[0]
    left, frozen = FROST[side][severity - 1]
    folder = Path(imagecorruptions.__file__).parent / "frost"
    name = ["frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg", "frost6.jpg"][np.random.randint(5)]
    picture = cv2.imread(os.fspath(folder / name))
    if side == 32:
        picture = cv2.resize(picture, (0, 0), fx=0.2, fy=0.2)
    top, start = (np.random.randint(0, picture.shape[axis] - side) for axis in (0, 1))
    crop = picture[top : top + side, start : start + side][..., ::-1]
    return np.uint8(np.clip(left * levels + frozen * crop, 0, 255))


def photograph(side):
    picture = Image.fromarray(load_sample_image("china.jpg"))
    left = (picture.width - picture.height) // 2
    square = picture.crop((left, 0, left + picture.height, picture.height))
    return np.array(square.resize((side, side), Image.BICUBIC))


def main():
    plain = judge.gaussian  # imagecorruptions speaks to an older scikit-image
    judge.gaussian = lambda *args, multichannel=None, **rest: plain(
        *args, channel_axis=-1 if multichannel else None, **rest
    )
    kept = {}
    for side in (32, 224):
        levels = photograph(side)
        kept[f"photograph_{side}"] = levels
        if side == 224:
            check_definitions(levels)
        for name in SMALL:
            severities = (1, 3, 5) if name in RANDOM else (1, 2, 3, 4, 5)
            for severity in severities:
                if name != "impulse_noise":  # which takes no seed that could be drawn again
                    picture = made(name, levels, severity, seed=0)
                    kept[f"{name}_{side}_{severity}"] = picture if side == 32 else picture[ROWS]
                if name in RANDOM:
                    drawn = [features(made(name, levels, severity, seed), levels) for seed in range(1, 1 + SEEDS)]
                    kept[f"statistics_{name}_{side}_{severity}"] = np.array(drawn, dtype=np.float32)
            print(f"{name}, {side} px", flush=True)
        for severity in (1, 3, 5):
            np.random.seed(0)
            drawn = [features(frosted(levels, severity), levels) for _ in range(96)]
            kept[f"statistics_frost_{side}_{severity}"] = np.array(drawn, dtype=np.float32)
    np.savez_compressed(OUT, **kept)
    print(f"{OUT}: {OUT.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
