"""The images of a trial: the same for every arm and seed."""

from collections.abc import Sized
from typing import Any, NamedTuple

from robusttune.data.epochs import Batches
from robusttune.data.loaders import check_loader
from robusttune.data.splits import held_back
from robusttune.trial.equal_compute import Sizes

HELD_BACK, TESTED = 0.05, 0.2


class Data(NamedTuple):
    """Loaders of training images, of those that epochs are judged on (None for none), of test images, of unlabelled ones
    (None for none), and what a step sees."""

    loader: Any
    held: Any
    test: Any
    unlabeled: Any
    sizes: Sizes

    def facts(self) -> dict[str, Any]:
        """What tells these images from others, for the plan."""
        labelled = {"training images": _count(self.loader), "batch": self.sizes.batch, "batches": self.sizes.batches}
        more = {"shape": list(self.sizes.shape), "held out": _count(self.held), "test images": _count(self.test)}
        return {**labelled, **more, "unlabelled images": _count(self.unlabeled)}


def divided(loader: Any, test_loader: Any = None, unlabeled_loader: Any = None) -> Data:
    """A trial's images; a fifth of a plain DataLoader's are kept for testing unless a test loader is given.

    Raises:
        ValueError: loaders that do not fit, or whose length is not known.
    """
    check_loader(loader, passes=2)
    if test_loader is None:
        loader, test_loader = held_back(loader, TESTED, 0)
        if test_loader is None:
            raise ValueError(
                "test_loader is missing, and no test images can be held back from this loader (only from a plain DataLoader "
                "of at least 160 images): pass test_loader="
            )
    check_loader(test_loader, "test_loader", passes=2)
    loader, held = held_back(loader, HELD_BACK, 0)
    images, _ = Batches(loader).first()
    sizes = Sizes(len(images), _length(loader, "loader"), tuple(images.shape[1:]))
    if unlabeled_loader is not None:
        check_loader(unlabeled_loader, "unlabeled_loader", passes=2)
        more, _ = Batches(unlabeled_loader, labelled=False).first()
        sizes = sizes._replace(unlabeled=len(more), unlabeled_batches=_length(unlabeled_loader, "unlabeled_loader"))
    return Data(loader, held, test_loader, unlabeled_loader, sizes)


def _length(loader: Any, name: str) -> int:
    if not isinstance(loader, Sized) or not len(loader):
        raise ValueError(
            f"the {name} does not say how many batches it has, so arms cannot be given equal compute: pass a DataLoader of a "
            "map-style data set, or a list of batches"
        )
    return len(loader)


def _count(loader: Any) -> int | None:
    dataset = getattr(loader, "dataset", None)
    return len(dataset) if isinstance(dataset, Sized) else None
