"""What eps looks like: crops of photographs with noise and under attack, by a small model that was trained on them ordinarily.

    python -m examples.eps_gallery --out docs/eps.jpg

The crops are those of the studies (examples/study/photographs.py), the model is timm's test_resnet after the studies' ordinary
training. For your own images: robusttune draw_eps --data FOLDER --model … --out eps.png
"""

import argparse
from pathlib import Path

from torch.utils.data import DataLoader, Subset

import robusttune
from examples.study.photographs import PHOTOGRAPHS, photographs
from examples.study.situations import PHOTOGRAPHS as SETTING
from examples.study.situations import trained


def main() -> None:
    """Train the model, and draw the crop of most contrast of each class."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/eps.jpg"))
    parser.add_argument("--classes", nargs="+", choices=PHOTOGRAPHS, default=["cat", "coffee", "motorcycle"])
    args = parser.parse_args()
    _, crops = photographs(SETTING.side, train=8, test=512)
    images, labels = crops.tensors
    contrast = images.flatten(1).std(1)
    chosen = [int((contrast * (labels == PHOTOGRAPHS.index(name))).argmax()) for name in args.classes]
    testing = Subset(crops, chosen)
    testing.classes = [name.replace("_", " ") for name in PHOTOGRAPHS]
    radii = [pixels / 255 for pixels in (2, 4, 8, 16, 32)]
    print(
        robusttune.draw_eps(
            DataLoader(testing, len(testing)), out=args.out, norm="linf", eps=radii, model=trained(SETTING)
        )
    )


if __name__ == "__main__":
    main()
