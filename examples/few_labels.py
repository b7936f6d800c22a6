"""Does pre-training without labels give a better start where labels are few? Held-out accuracy over label counts.

    python examples/few_labels.py --data fashion-mnist

Two twins are trained ordinarily on the same few labelled images: one from random weights, one pre-trained on rotation and
jigsaw over many images whose labels are not looked at. The pretext heads are judged on held-out images, too.
"""

import argparse
import copy
from statistics import mean

import torch
from images import FASHION_MNIST, SIDE, loaders, shape_and_classes
from ordinary import new_model, train
from torch.utils.data import DataLoader, Subset

import robusttune
from robusttune.training.pretext_accuracy import pretext_scores


def main() -> None:
    """Pre-train, then train on more and more labels, and print the table."""
    options = arguments()
    many, testing = loaders(options.data, train=options.images, test=options.test)
    channels, classes = shape_and_classes(many)
    rows: dict[int, list[tuple[float, float]]] = {count: [] for count in options.labels}
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        start = new_model(options.model, channels, classes, SIDE)
        twin = copy.deepcopy(start)
        heads = robusttune.pretrain(twin, many, epochs=options.epochs, lr=0.1, seed=seed, progress=options.progress)
        for name, score in pretext_scores(heads, testing).items():
            print(
                f"seed {seed}: {name} is right on {score.accuracy:.1%} of held-out images, a guess on {score.chance:.1%}"
            )
        for count in options.labels:
            few = DataLoader(Subset(many.dataset, range(count)), 32, shuffle=True)
            pair = tuple(trained(model, few, testing, options) for model in (start, twin))
            rows[count].append(pair)
            print(
                f"seed {seed}, {count} labels: {pair[0]:.1%} from random weights, {pair[1]:.1%} pre-trained", flush=True
            )
    print("\n| labels | random weights | pre-trained |\n|---|---|---|")
    for count, pairs in rows.items():
        print(f"| {count} | " + " | ".join(f"{mean(column):.1%}" for column in zip(*pairs, strict=True)) + " |")


def trained(start: torch.nn.Module, few: DataLoader, testing: DataLoader, options: argparse.Namespace) -> float:
    """The held-out accuracy after ordinary training of a copy on the few labelled images."""
    epochs = max(1, options.steps // len(few))
    model = train(copy.deepcopy(start), few, epochs, progress=options.progress)
    return robusttune.evaluate(model, testing, "clean", progress=options.progress)[0].value


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="fashion-mnist" if FASHION_MNIST.exists() else "digits")
    parser.add_argument("--model", default="test_resnet", help="any timm model")
    parser.add_argument("--images", type=int, default=5_000, help="images without labels")
    parser.add_argument("--labels", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--epochs", type=int, default=8, help="of pre-training")
    parser.add_argument("--steps", type=int, default=200, help="of training on labels")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--test", type=int, default=1000, help="test images")
    parser.add_argument("--progress", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
