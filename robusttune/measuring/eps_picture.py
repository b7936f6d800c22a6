"""A picture of what each eps looks like on the user's own images: random noise of that size, and an attack on a model."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from robusttune.attacks import Attack, AttackLike, attacked
from robusttune.data.batches import check_classes, first_batch, hard_labels, images_of, unpacked, yields_images_alone
from robusttune.data.class_names import class_names
from robusttune.data.loaders import check_loader
from robusttune.data.pixels import Pixels, find_pixels
from robusttune.measuring.evaluate import borrowed
from robusttune.measuring.losses import margin
from robusttune.model.checks import check_whole
from robusttune.model.devices import check_module, device_of, dtype_of
from robusttune.model.features import logits_of
from robusttune.norms import NormLike, canonical, checked_eps, default_eps, radii
from robusttune.plugins import configured
from robusttune.run.randomness import own_randomness, rewound
from robusttune.run.settings import COUNT, check_number, shown_radius
from robusttune.threat import LossOf, ThreatModel
from robusttune.types import Channels, Loader, PathLike

MULTIPLES = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the customary radius
QUALITY = 85  # of JPEG and WebP
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
SMALLEST, LARGEST = 96, 224  # side of a tile in pixels
LEFT, HEAD, LINE, GAP, LONGEST = 48, 30, 12, 4, 16


class _Row(NamedTuple):
    """Tiles of one image: (C,H,W) each, and a line below each of them, with True if it is a wrong answer."""

    name: str
    tiles: list[Tensor]
    answers: list[tuple[str, bool]]


def draw_eps(
    loader: Loader,
    *,
    out: PathLike,
    norm: NormLike | None = None,
    eps: float | Sequence[float] | None = None,
    model: nn.Module | None = None,
    images: int = 3,
    attack: AttackLike = "apgd",
    steps: int = 20,
    mean: Channels | None = None,
    std: Channels | None = None,
    normalized: bool | None = None,
    seed: int = 0,
) -> Path:
    """Draw the first images of a loader as they are and changed by each eps, write the picture, and return its path.

    Each image has a row with random noise of size eps (before pixels are cut off at black and white) and, if a model is passed, a
    row with the images that an attack finds. The model's answer is then below each image, in red if it is wrong.

    Args:
        loader: images (N,C,H,W), with labels or alone.
        out: a file that ends in .png, .jpg or .webp.
        norm: "linf" or "l2"; None for linf.
        eps: radii in pixel units on [0,1]; None for 1/4 to 4 times the customary radius of the norm for images of this size.
        model: the model to attack; None for noise alone. It is not changed.
        images: the number of images to draw.
        attack, steps: the attack on the model, and its number of steps.
        mean, std, normalized: the normalisation of the model's input, see `evaluate`.
        seed: seed of all random numbers.

    Raises:
        ValueError: another file ending, a value that is no radius, or images and model that do not fit.

    Example:
        >>> import tempfile
        >>> picture = draw_eps([torch.rand(4, 1, 8, 8)], out=Path(tempfile.mkdtemp(), "eps.png"), norm="l2", images=2)
        >>> with Image.open(picture) as drawn:
        ...     print(drawn.size)
        (648, 230)
    """
    path = Path(out)
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"out is {str(path)!r}, but a name that ends in {', '.join(ENDINGS)} is needed")
    check_number("images", images, COUNT)
    check_loader(loader)
    with own_randomness(seed), rewound(loader):
        batch = first_batch(loader)
    alone = yields_images_alone(loader, batch)
    shown, labels = (images_of(batch), None) if alone else unpacked(batch)
    space = find_pixels(shown, loader, mean=mean, std=std, normalized=normalized, model=model)
    pixels = space.pixels(shown[:images].cpu())
    name = canonical("linf" if norm is None else norm)
    threats = [ThreatModel(name, radius) for radius in _radii(name, eps, tuple(pixels.shape[1:]))]
    noisy = _noise(pixels, threats, seed)
    rows = _rows("noise", noisy)
    if model is not None:
        targets = None if labels is None else hard_labels(labels[:images]).cpu()
        chosen = configured("attacks", attack, steps=steps)
        rows = _attacks(model, space, noisy, targets, threats, chosen, class_names(loader), seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    _page(rows, threats, pixels).save(path, quality=QUALITY)  # which PNG has no use for
    return path


def _radii(norm: NormLike, eps: float | Sequence[float] | None, shape: tuple[int, ...]) -> list[float]:
    """Return the radii to draw, sorted, without 0, at which an image is as it is."""
    if eps is None:
        return radii(norm, default_eps(norm, shape), MULTIPLES)
    wanted = [checked_eps(each, norm) for each in (eps if isinstance(eps, Sequence) else [eps])]
    found = sorted({each for each in wanted if each > 0})
    if not found:
        raise ValueError(f"eps is {eps}, but at least one radius above 0 is needed to draw, such as 8/255")
    return found


def _noise(pixels: Tensor, threats: Sequence[ThreatModel], seed: int) -> list[Tensor]:
    """Return the images (N,C,H,W), and then with noise of random direction, whose size is that of each threat."""
    direction = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(seed), dtype=pixels.dtype)
    return [pixels] + [(pixels + threat.eps * threat.ascent(direction)).clamp(0, 1) for threat in threats]


def _attacks(
    model: nn.Module,
    space: Pixels,
    noisy: Sequence[Tensor],
    labels: Tensor | None,
    threats: Sequence[ThreatModel],
    attack: Attack,
    names: Sequence[str] | None,
    seed: int,
) -> list[_Row]:
    """Attack every image at each radius, and ask the model what it sees there and under noise; return two rows for each image."""
    check_module(model)
    check_whole(model)
    device, space = device_of(model), space.to(device_of(model))
    pixels = noisy[0].to(device)

    def logits(candidates: Tensor) -> Tensor:
        return logits_of(model(space.inputs(candidates).to(dtype_of(model)))).float()

    def answers(columns: Sequence[Tensor]) -> list[list[int]]:
        with torch.no_grad():
            return [logits(each.to(device)).argmax(1).tolist() for each in columns]

    with borrowed(model, device, seed):
        pixels = pixels.clone()  # those that were loaded in inference mode take no gradient
        if labels is not None:
            check_classes(labels, logits(pixels[:1]).shape[1])
        right = answers([pixels])[0] if labels is None else labels.tolist()
        targets = torch.tensor(right, device=device)
        loss_of = LossOf(lambda candidates: margin(logits(candidates), targets), labels=targets, logits_of=logits)
        changed = [pixels]
        for threat in threats:
            generator = torch.Generator(device).manual_seed(seed)
            changed.append(attacked(attack, loss_of, pixels, threat, generator=generator, inside=True).detach())
        shown = [("noise", noisy, answers(noisy)), ("attack", changed, answers(changed))]
    by_kind = [
        _rows(
            name,
            columns,
            [
                [(_named(each, names), each != true) for each, true in zip(column, right, strict=True)]
                for column in told
            ],
        )
        for name, columns, told in shown
    ]
    return [row for pair in zip(*by_kind, strict=True) for row in pair]


def _rows(name: str, columns: Sequence[Tensor], answers: Sequence[Sequence[tuple[str, bool]]] = ()) -> list[_Row]:
    """Turn batches of images (N,C,H,W), one for each radius, and the answers to them into a row for each image."""
    return [
        _Row(name, [column[row].cpu() for column in columns], [column[row] for column in answers])
        for row in range(len(columns[0]))
    ]


def _named(label: int, names: Sequence[str] | None) -> str:
    return names[label] if names is not None and label < len(names) else f"class {label}"


def _page(rows: Sequence[_Row], threats: Sequence[ThreatModel], pixels: Tensor) -> Image.Image:
    """Put the tiles into a grid, with eps above and answers below."""
    height, width = pixels.shape[-2:]
    scale = (
        max(1, math.ceil(SMALLEST / max(height, width)))
        if max(height, width) <= LARGEST
        else LARGEST / max(height, width)
    )
    size = round(width * scale), round(height * scale)
    tops = [HEAD]
    for row in rows:
        tops.append(tops[-1] + size[1] + GAP + LINE * bool(row.answers))
    page = Image.new("RGB", (LEFT + (len(threats) + 1) * (size[0] + GAP), tops[-1]), "white")
    pen = ImageDraw.Draw(page)
    for column, lines in enumerate([("unchanged", ""), *(_eps_in_words(threat, pixels) for threat in threats)]):
        for number, line in enumerate(lines):
            pen.text((LEFT + column * (size[0] + GAP), 2 + number * LINE), line, fill="black")
    for top, row in zip(tops, rows, strict=False):
        pen.text((2, top + size[1] // 2), row.name, fill="black")
        for column, tile in enumerate(row.tiles):
            left = LEFT + column * (size[0] + GAP)
            page.paste(_tile(tile, size), (left, top))
            if row.answers:
                answer, wrong = row.answers[column]
                text = answer[:LONGEST].encode("latin-1", "replace").decode("latin-1")
                pen.text((left, top + size[1]), text, fill="red" if wrong else "black")
    return page


def _eps_in_words(threat: ThreatModel, pixels: Tensor) -> tuple[str, str]:
    """Write eps as a fraction or decimal, and what that is for one value of a pixel.

    Example:
        >>> _eps_in_words(ThreatModel("linf", 8 / 255), torch.zeros(1, 3, 32, 32))
        ('linf 8/255', '= 0.0314')
        >>> _eps_in_words(ThreatModel("l2", 0.5), torch.zeros(1, 3, 32, 32))
        ('l2 0.5', '~ 2.3/255 a value')
    """
    name = threat.norm if isinstance(threat.norm, str) else "eps"
    if threat.norm == "linf":
        levels = f"{255 * threat.eps:.3g}/255"
        return f"linf {levels}", f"= {threat.eps:.3g}"
    each = threat.eps / math.sqrt(pixels[0].numel())
    return f"{name} {shown_radius(threat.eps)}", f"~ {255 * each:.2g}/255 a value"


def _tile(image: Tensor, size: tuple[int, int]) -> Image.Image:
    """Convert an image (C,H,W) to a tile: pixels stay squares where it grows."""
    colour = image if len(image) == 3 else image.mean(0, keepdim=True).expand(3, -1, -1)
    levels = (colour * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    grows = size[0] >= levels.shape[1]
    return Image.fromarray(levels).resize(size, Image.Resampling.NEAREST if grows else Image.Resampling.LANCZOS)
