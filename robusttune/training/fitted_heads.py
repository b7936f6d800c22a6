"""Heads of tasks of weight 0 in `harden`: fitted once, at the end, to the features of the model that is returned."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from robusttune.data import sharding
from robusttune.data.epochs import Batches
from robusttune.data.loaders import is_exhaustible
from robusttune.run import distributed, files, randomness
from robusttune.run.log import tell
from robusttune.run.manifest import write_manifest
from robusttune.training.heads_alone import features_of
from robusttune.training.loop import Training
from robusttune.types import Loader

MOST = 4_000  # training images in each process, of which each task gets a view
ITERATIONS, PENALTY = 100, 1e-4  # the penalty is on the squared weights of standardised features
LEAST_SPREAD = 0.01  # share of the mean spread; a feature with less is divided by this, so that it is not blown up


class Views(NamedTuple):
    """Views of one task: the model's features (N,D) of them in fp32, their targets (N,), and the number of answers."""

    features: Tensor
    targets: Tensor
    classes: int


def fit_heads(training: Training, *, show: bool) -> None:
    """Fit the heads that wait for the end to the model's present weights, and write all heads; they are dropped without a folder.

    The model, the loader's generators and global random states stay as they are. Each process fits to its own images, and the
    mean of their heads is taken.
    """
    heads, folder = training.robust_loss.heads, training.checkpoints.folder
    if folder is None and heads.learnt:
        tell(f"the heads of {', '.join(heads.learnt)} are dropped: pass out= to keep them", show)
    if folder is None or not heads.waiting:
        return
    problem, views = "", {}
    try:
        with _seeded(training.batches.loader, training.robust_loss.seed):
            views = views_of_tasks(training, _images(training.batches))
    except ValueError as error:  # a loader that cannot be read again must not cost the weights
        problem = str(error)
    problems = [each for each in distributed.gathered(problem) if each]
    if problems:
        tell(f"the heads of {', '.join(heads.waiting)} were not fitted, and are not kept: {problems[0]}", show)
        return
    for name, each in views.items():
        for parameter, values in zip(heads[name].parameters(), fitted(each), strict=True):
            parameter.data.zero_()[: len(values)].copy_(values)
        distributed.average(heads[name].parameters())
    heads.waiting = []
    if distributed.rank() == 0:
        files.save_weights(folder / files.HEADS, heads.state_dict())
        write_manifest(folder)


def views_of_tasks(training: Training, batches: Iterable[Tensor]) -> dict[str, Views]:
    """Draw a view of each image for each head that waits, and compute the features of the views.

    Args:
        training: the run that the heads belong to.
        batches: images (N,C,H,W), as the loader yields them.
    """
    robust_loss, device = training.robust_loss, training.stepper.device
    heads, generator = robust_loss.heads, torch.Generator().manual_seed(robust_loss.seed)
    found: dict[str, list[Views]] = {name: [] for name in heads.waiting}
    for images in batches:
        for few in torch.split(images, training.stepper.micro_batch or len(images)):
            pixels = robust_loss.pixels.pixels(few.to(device))
            for name, views in found.items():
                view = heads.whole(name, pixels, generator).view
                views.append(Views(features_of(robust_loss, view.of(pixels)).float(), view.targets, view.classes))
    return {
        name: Views(
            torch.cat([each.features for each in views]),
            torch.cat([each.targets for each in views]),
            max(each.classes for each in views),
        )
        for name, views in found.items()
    }


def fitted(views: Views) -> tuple[Tensor, Tensor]:
    """Fit a multinomial logistic regression to views, and return its weight (K,D) and bias (K,) in fp32."""
    centre, spread = views.features.mean(0), views.features.std(0, correction=0)
    spread = spread.clamp_min(max(LEAST_SPREAD * float(spread.mean()), 1e-6))
    standardised = (views.features - centre) / spread
    weight = standardised.new_zeros(views.classes, standardised.shape[1], requires_grad=True)
    bias = standardised.new_zeros(views.classes, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(F.linear(standardised, weight, bias), views.targets)
        value = value + PENALTY * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.autocast(standardised.device.type, enabled=False):
        solver.step(loss)  # type: ignore[no-untyped-call]
    folded = weight.detach() / spread
    return folded, bias.detach() - folded @ centre


def _images(batches: Batches) -> Iterator[Tensor]:
    """Yield the first images of an epoch, in batches (N,C,H,W); of an iterator, the batch that it has not given away.

    Raises:
        ValueError: nothing can be read again.
    """
    loader, seen = batches.loader, 0
    if is_exhaustible(loader) and not batches.rereadable:
        raise ValueError(
            f"the {batches.name} is an iterator, whose images are used up: pass one that yields its batches again each time"
        )
    sharding.set_epoch(loader, 0)
    again = [batches.peeked] if is_exhaustible(loader) else batches.epoch(0)
    for images, _ in again:
        yield images[: MOST - seen]
        seen += len(images)
        if seen >= MOST:
            return


@contextmanager
def _seeded(loader: Loader, seed: int) -> Iterator[None]:
    """Seed the global random states and the loader's generators inside this context, and restore them after it."""
    with randomness.own_randomness(seed), randomness.rewound(loader):
        for source in randomness.generators(loader):
            source.manual_seed(seed)
        yield
