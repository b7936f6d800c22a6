"""Every corruption at every severity on one photograph, as one picture.

    python examples/draw_corruptions.py --out docs/corruptions.jpg

The photograph is one of scikit-learn's unless --photo names another. The corruptions are those of robusttune's folder:
whoever adds one finds it in the picture.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_image

from robusttune import plugins
from robusttune.corruptions import FAMILIES, SEVERITIES, preset_of

MARGIN, LABEL = 2, 14


def photograph(path: str | None, side: int) -> torch.Tensor:
    """The middle square of a photograph, (3,side,side) in [0,1]."""
    picture = Image.open(path).convert("RGB") if path else Image.fromarray(load_sample_image("flower.jpg"))
    short = min(picture.size)
    left, top = ((length - short) // 2 for length in picture.size)
    square = picture.crop((left, top, left + short, top + short)).resize((side, side), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255


def drawn(image: torch.Tensor, shown: int, seed: int = 0) -> Image.Image:
    """A picture with a row for each corruption, by family: the image as it is, then its five severities."""
    every = sorted(
        (plugins.find("corruptions", name) for name in plugins.names("corruptions")),
        key=lambda each: (FAMILIES.index(each.family), each.extra, each.name),
    )
    step = shown + MARGIN
    columns = 1 + len(SEVERITIES)
    # Two corruptions side by side, so that the picture is not too tall for a page.
    rows = -(-len(every) // 2)
    page = Image.new("RGB", (2 * columns * step + MARGIN * 6, rows * (step + LABEL)), "white")
    pen = ImageDraw.Draw(page)
    for number, corruption in enumerate(every):
        left, top = (number // rows) * (columns * step + MARGIN * 6), (number % rows) * (step + LABEL)
        pen.text((left, top + 1), f"{corruption.name} ({corruption.family})", fill="black")
        generator = torch.Generator().manual_seed(seed)
        made = corruption(image.expand(len(SEVERITIES), -1, -1, -1), list(SEVERITIES), generator)
        for column, each in enumerate([image, *made]):
            levels = (each * 255).round().byte().permute(1, 2, 0).numpy()
            tile = Image.fromarray(levels).resize((shown, shown), Image.Resampling.LANCZOS)
            page.paste(tile, (left + column * step, top + LABEL))
    return page


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", help="a photograph of your own")
    parser.add_argument(
        "--side", type=int, default=224, help="pixels a side before it is corrupted; decides the severities"
    )
    parser.add_argument("--shown", type=int, default=112, help="pixels a side in the picture")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/corruptions.jpg"))
    args = parser.parse_args()
    image = photograph(args.photo, args.side)
    page = drawn(image, args.shown, args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    page.save(args.out, quality=82)
    print(f"{args.out}: {len(plugins.names('corruptions'))} corruptions, severities for {preset_of(image[None])} px")


if __name__ == "__main__":
    main()
