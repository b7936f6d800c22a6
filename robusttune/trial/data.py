"""Images of a trial: the same for every arm and seed."""

from dataclasses import dataclass
from typing import NamedTuple

from robusttune.data.epochs import Batches
from robusttune.data.fingerprint import fingerprint_of
from robusttune.data.loaders import check_loader, length_of
from robusttune.data.splits import held_back, parted
from robusttune.trial.equal_compute import Sizes
from robusttune.trial.plan import DataFacts
from robusttune.types import Channels, DeviceLike, Loader

HELD_BACK, TESTED = 0.05, 0.2


@dataclass(frozen=True)
class InputSpace:
    """The model's input and its place, as `harden` takes them."""

    mean: Channels | None = None
    std: Channels | None = None
    normalized: bool | None = None
    classifier: str | None = None
    device: DeviceLike = "auto"


class Data(NamedTuple):
    """Loaders of a trial.

    Attributes:
        loader: the loader of training images.
        held: the loader of images to judge epochs on; None for none.
        test: the loader of test images.
        unlabeled: the loader of images without labels, for pretext tasks; None for none.
        sizes: the sizes of batches.
        fingerprints: the fingerprints of the training images, by their names in the plan; those that are not known are missing.
    """

    loader: Loader
    held: Loader | None
    test: Loader
    unlabeled: Loader | None
    sizes: Sizes
    fingerprints: DataFacts | None = None

    def facts(self) -> DataFacts:
        """Return the counts and shapes by which a plan recognises its images."""
        return {
            "training images": length_of(getattr(self.loader, "dataset", None)),
            "batch": self.sizes.batch,
            "batches": self.sizes.batches,
            "shape": list(self.sizes.shape),
            "held out": length_of(getattr(self.held, "dataset", None)),
            "test images": length_of(getattr(self.test, "dataset", None)),
            "unlabelled images": length_of(getattr(self.unlabeled, "dataset", None)),
            **(self.fingerprints or {}),
        }


def of_stages(data: Data, screening: int | None) -> tuple[Data, Data]:
    """Return the data of the first and of the second stage: the same training images, and other test images.

    An arm that was chosen on some images has an advantage on them. Where the test images cannot be divided, both stages have
    all of them, and the decision is corrected for every arm that was screened.

    Args:
        data: the data of the trial.
        screening: number of test images of the first stage; None if there is one stage.
    """
    if screening is None:
        return data, data
    first, second = parted(data.test, screening, 0)
    return data._replace(test=first), data._replace(test=second)


def divided(loader: Loader, test_loader: Loader | None = None, unlabeled_loader: Loader | None = None) -> Data:
    """Divide a trial's images; without a test loader, a fifth of a plain DataLoader's images are kept for testing.

    Raises:
        ValueError: loaders that do not fit, or whose length is not known.
    """
    check_loader(loader, passes=2)
    if test_loader is None:
        loader, test_loader = held_back(loader, TESTED, 0)
        if test_loader is None:
            raise ValueError(
                "test_loader is missing, and no test images can be held back from this loader (only a fifth of a plain DataLoader "
                "of at least 160 images): pass test_loader=, better with some hundred images"
            )
    check_loader(test_loader, "test_loader", passes=2)
    loader, held = held_back(loader, HELD_BACK, 0)
    images, _ = Batches(loader).first()
    sizes = Sizes(len(images), _length(loader, "loader"), tuple(images.shape[1:]))
    if unlabeled_loader is not None:
        check_loader(unlabeled_loader, "unlabeled_loader", passes=2)
        first, _ = Batches(unlabeled_loader, labelled=False).first()
        sizes = sizes._replace(unlabeled=len(first), unlabeled_batches=_length(unlabeled_loader, "unlabeled_loader"))
    return Data(loader, held, test_loader, unlabeled_loader, sizes, _fingerprints(loader, unlabeled_loader))


def _fingerprints(loader: Loader, unlabeled: Loader | None) -> DataFacts:
    found = fingerprint_of(loader), fingerprint_of(unlabeled)
    # The word before the digits keeps the reader of the plan from taking them for a number.
    facts: DataFacts = {} if found[0] is None else {"training fingerprint": f"hash {found[0]}"}
    return facts if found[1] is None else {**facts, "unlabelled fingerprint": f"hash {found[1]}"}


def _length(loader: Loader, name: str) -> int:
    length = length_of(loader)
    if not length:
        raise ValueError(
            f"the {name} does not say how many batches it has, so equal compute of the arms is not possible: pass a DataLoader of a "
            "map-style data set, or a list of batches"
        )
    return length
