"""Pictures of what the library does: images under attack, input gradients, corruptions, a report page."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import Normalize
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

from robusttune import ThreatModel, plugins
from robusttune.attacks.pgd import pgd
from robusttune.corruptions import FAMILIES
from robusttune.measuring.run_defaults import RunDefaults
from robusttune.model.saved import hardened_run, loaded
from robusttune.threat import LossOf

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MARGIN, LINE, SIDE_LABEL = 4, 15, 118  # pixels
STEPS = 50  # of the attack


class Subject(NamedTuple):
    """A model in words: its logits of images (N,C,H,W) on [0,1], the names of its classes, and the side of its images."""

    logits: nn.Module
    classes: Sequence[str]
    side: int


class Tile(NamedTuple):
    """An image (C,H,W) on [0,1], and the lines of text below it."""

    image: Tensor
    lines: Sequence[str] = ()


def subject(run: Path) -> Subject:
    """The model of a run's folder, which takes pixels on [0,1]."""
    earlier = hardened_run(run)
    mean, std = earlier.statistics
    first = [] if mean is None else [Normalize(mean, std)]
    return Subject(nn.Sequential(*first, loaded(run)).eval(), earlier.about.classes, earlier.about.size[0])


def adversary(run: Path) -> ThreatModel:
    """The adversary that a run trained against."""
    return ThreatModel(*RunDefaults(hardened_run(run)).adversary(None, None))


def images_of(folder: Path, side: int, count: int | None = None) -> dict[str, list[Tensor]]:
    """The first images (3,side,side) on [0,1] of each class folder, by its name; all of them for a count of None."""

    def opened(path: Path) -> Tensor:
        square = center_crop(resize(Image.open(path).convert("RGB"), side), side)
        return pil_to_tensor(square) / 255

    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    return {path.name: [opened(each) for each in sorted(path.iterdir())[:count]] for path in classes}


def chosen(images: dict[str, list[Tensor]], models: Sequence[Subject]) -> tuple[Tensor, list[int]]:
    """One image of each class (N,3,H,W), the first that all models classify right where there is one, and its labels."""
    found, labels = [], []
    for name, candidates in images.items():
        label = list(models[0].classes).index(name)
        batch = torch.stack(candidates)
        with torch.no_grad():
            right = torch.stack([model.logits(batch).argmax(1) == label for model in models]).all(0)
        found.append(candidates[int(right.float().argmax())])
        labels.append(label)
    return torch.stack(found), labels


def photographs(images: dict[str, list[Tensor]], shown: int) -> Image.Image:
    """A column of images for each class."""
    rows = zip(*images.values(), strict=True)
    return sheet([[Tile(image) for image in row] for row in rows], shown, heads=list(images))


def attacked(
    before: Subject, after: Subject, threat: ThreatModel, images: Tensor, labels: list[int], shown: int
) -> Image.Image:
    """Images, and what an attack makes of them against each model, with its answers and what the attack has changed."""
    rows = [_answered(before, images)]
    left = ["the image", ""]
    for name, model in (("before", before), ("after", after)):
        found = under_attack(model, images, labels, threat)
        rows += [_answered(model, found), [Tile(each) for each in stretched(found - images, 2 * threat.eps)]]
        left += [f"{name} hardening:\nunder attack", "what the attack\nhas added,\nstretched"]
    left.pop(1)
    return sheet(rows, shown, heads=[before.classes[label] for label in labels], left=left)


def gradients(before: Subject, after: Subject, images: Tensor, labels: list[int], shown: int) -> Image.Image:
    """Images, and the gradient of each model's loss toward their pixels: grey for none, stretched to three standard deviations."""
    rows = [[Tile(each) for each in images]]
    for model in (before, after):
        found = gradient(model, images, labels)
        deviation = found.std((1, 2, 3), keepdim=True).clamp_min(1e-12)
        rows.append([Tile(each) for each in stretched(found / deviation, 6)])
    left = ["the image", "gradient before\nhardening", "gradient after\nhardening"]
    return sheet(rows, shown, heads=[before.classes[label] for label in labels], left=left)


def corrupted(severity: int, side: int, shown: int) -> Image.Image:
    """A photograph, and what every corruption makes of it at one severity."""
    image = flower(side)
    every = [plugins.find("corruptions", name) for name in plugins.names("corruptions")]
    every.sort(key=lambda each: (FAMILIES.index(each.family), each.name))
    tiles = [Tile(image, ["the image"])]
    for each in every:
        made = each(image[None], [severity], torch.Generator().manual_seed(0))
        tiles.append(Tile(made[0], [each.name.replace("_", " ")]))
    across = 5
    return sheet([tiles[first : first + across] for first in range(0, len(tiles), across)], shown)


def screenshot(page: Path, size: tuple[int, int]) -> Image.Image:
    """The top of a page of HTML, so many pixels wide and high, as Chromium shows it."""
    browser = browser_here()
    if browser is None:
        sys.exit(
            f"a picture of a page needs a browser, and there is none of {', '.join(BROWSERS)}: leave it out with --only"
        )
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "page.png"
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options += [f"--window-size={size[0]},{size[1]}", f"--screenshot={picture}"]
        subprocess.run([browser, *options, page.resolve().as_uri()], check=True, capture_output=True, timeout=120)
        return Image.open(picture).convert("RGB")


def browser_here() -> str | None:
    """The path of a browser that takes pictures of pages; None where there is none."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def under_attack(model: Subject, images: Tensor, labels: list[int], threat: ThreatModel) -> Tensor:
    """Adversarial images (N,C,H,W) by PGD on the cross-entropy."""
    targets = torch.tensor(labels)
    loss_of = LossOf(lambda batch: F.cross_entropy(model.logits(batch), targets, reduction="none"))
    return pgd(loss_of, images, threat, generator=torch.Generator().manual_seed(0), steps=STEPS)


def gradient(model: Subject, images: Tensor, labels: list[int]) -> Tensor:
    """The gradient (N,C,H,W) of the summed cross-entropy toward pixels."""
    leaf = images.clone().requires_grad_()
    loss = F.cross_entropy(model.logits(leaf), torch.tensor(labels), reduction="sum")
    return torch.autograd.grad(loss, leaf)[0]


def stretched(changes: Tensor, width: float) -> Tensor:
    """Changes of pixels as images on [0,1]: grey for none, black and white for a change of half the width."""
    return (0.5 + changes / width).clamp(0, 1)


def flower(side: int, path: str | None = None) -> Tensor:
    """The middle square of a photograph, by default one of scikit-learn's, (3,side,side) on [0,1]."""
    picture = Image.open(path).convert("RGB") if path else Image.fromarray(load_sample_image("flower.jpg"))
    square = center_crop(picture, min(picture.size)).resize((side, side), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255


def sheet(
    rows: Sequence[Sequence[Tile]], shown: int, *, heads: Sequence[str] = (), left: Sequence[str] = ()
) -> Image.Image:
    """Rows of tiles, each shown so many pixels wide, with a text above each column and one before each row."""
    font = ImageFont.load_default(11)
    step, edge, top = shown + MARGIN, SIDE_LABEL * bool(left), LINE * bool(heads)
    heights = [step + LINE * max(len(tile.lines) for tile in row) for row in rows]
    page = Image.new("RGB", (edge + step * max(map(len, rows)) + MARGIN, top + sum(heights) + MARGIN), "white")
    pen = ImageDraw.Draw(page)
    for column, text in enumerate(heads):
        _write(pen, font, text, (edge + column * step, 1), shown)
    for number, row in enumerate(rows):
        y = top + sum(heights[:number]) + MARGIN
        pen.text((MARGIN, y + shown // 3), left[number] if left else "", fill="black", font=font)
        for column, tile in enumerate(row):
            x = edge + column * step
            levels = (tile.image * 255).round().byte().permute(1, 2, 0).numpy()
            page.paste(Image.fromarray(levels).resize((shown, shown), Image.Resampling.BICUBIC), (x, y))
            for line, text in enumerate(tile.lines):
                _write(pen, font, text, (x, y + shown + line * LINE), shown)
    return page


def _write(pen: ImageDraw.ImageDraw, font: ImageFont.ImageFont, text: str, at: tuple[int, int], width: int) -> None:
    """Write a text, cut where it is wider than so many pixels."""
    while len(text) > 1 and pen.textlength(text, font=font) > width:
        text = f"{text[:-2]}…"
    pen.text(at, text, fill="black", font=font)


def _answered(model: Subject, images: Tensor) -> list[Tile]:
    """Tiles of images (N,C,H,W) with the model's answers, and how sure of them it is."""
    with torch.no_grad():
        sure, answers = model.logits(images).softmax(1).max(1)
    return [
        Tile(image, [f"{model.classes[answer]} {share:.0%}"])
        for image, answer, share in zip(images, answers.tolist(), sure.tolist(), strict=True)
    ]
