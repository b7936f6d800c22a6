"""Defaults of a measurement: what the run of a model knows, where the user does not say it."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from robusttune.data.class_names import class_names, two_orders
from robusttune.data.pixels import normalised
from robusttune.data.transforms import find_statistics, same_statistics
from robusttune.measuring.pretext_heads import HeadsLike, heads_for
from robusttune.model import seen_corruptions
from robusttune.model.hub import folder_of_model
from robusttune.model.saved import hardened_run, loaded
from robusttune.norms import NormLike, canonical
from robusttune.run import files
from robusttune.run.about import EarlierRun, check_same_names
from robusttune.run.log import tell
from robusttune.run.settings import number, shown_radius
from robusttune.tasks._heads import Heads
from robusttune.types import Channels, Loader, PathLike

SHOWN = 8

logger = logging.getLogger("robusttune")


@dataclass(frozen=True)
class RunDefaults:
    """The defaults that an evaluation takes from the run of its model; none without a run.

    Attributes:
        run: the run, or None.
        weights: the hash of its file of weights, which the model has; None if the model has others.
    """

    run: EarlierRun | None = None
    weights: str | None = None

    @property
    def facts(self) -> dict[str, object]:
        """The provenance of the model, for Records."""
        if self.run is None:
            return {}
        return {"run": {"folder": str(self.run.folder), "weights": self.weights, **self.run.facts}}

    def origin(self, norm: NormLike, eps: float | None, passed: float | None) -> str:
        """Say where the radius of an adversary comes from: "run", "passed" or "customary".

        Args:
            norm, eps: the norm and the radius of the adversary, as `adversary` returned them.
            passed: the radius that the user passed.
        """
        trained = (None, None) if self.run is None else self._trained()
        if eps is not None and (norm, eps) == trained:
            return "run"
        return "customary" if passed is None else "passed"

    @property
    def folder(self) -> str:
        """The run's folder, or its file of weights, in quotes."""
        return repr(str(self.run.folder)) if self.run is not None else ""

    @property
    def classifier(self) -> str | None:
        """The name of the layer that yields the logits, where the run was given one."""
        return None if self.run is None else self.run.arguments.get("classifier")

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the run's classes by label; () if they are not known."""
        return () if self.run is None or self.run.about is None else tuple(self.run.about.classes or ())

    def adversary(self, norm: NormLike | None, eps: float | None) -> tuple[NormLike, float | None]:
        """Return a norm and a radius: the user's, else the run's; None for the customary radius.

        Raises:
            ValueError: the norm of the run is an object, which its folder cannot hold.
        """
        if self.run is None:
            return "linf" if norm is None else norm, eps
        trained, radius = self._trained()
        if norm is not None and canonical(norm) != trained:
            return norm, eps
        try:
            return canonical(trained), (radius or None) if eps is None else eps  # no attack is made at a radius of 0
        except ValueError as error:
            raise ValueError(
                f"the run in {self.folder} was trained against a norm that is an object: pass norm= and eps="
            ) from error

    def _trained(self) -> tuple[NormLike, float | None]:
        assert self.run is not None
        about, arguments = self.run.about, self.run.arguments
        if about is not None and about.norm is not None:
            return about.norm, None if about.eps is None else number(about.eps)
        usual = "l2" if arguments.get("purpose") == "corruptions" else "linf"
        return canonical(arguments.get("norm") or usual), arguments.get("eps")

    def statistics(
        self, mean: Channels | None, std: Channels | None, loader: Loader
    ) -> tuple[Channels | None, Channels | None]:
        """Return mean and std of the model's input: the user's, else the run's; None to read them from the loader.

        Those of the user are logged as a warning if they are others than the run's.

        Raises:
            ValueError: the loader's images are normalised otherwise than the run's.
        """
        if self.run is None or not self._knows_statistics:
            return mean, std
        known, found = self.run.statistics, find_statistics(loader)
        if mean is not None or std is not None:
            if mean is not None and std is not None and not same_statistics(known, (mean, std)):
                logger.warning(
                    "the model of %s was trained on %s, but here it gets %s, as mean= and std= say: leave both out to take those of "
                    "the run",
                    *(self.folder, normalised(*known), normalised(mean, std)),
                )
            return mean, std
        if found[0] is not None and not same_statistics(known, found):
            raise ValueError(
                f"the loader yields {normalised(*found)}, but the model of {self.folder} takes {normalised(*known)}: give the loader the "
                "Normalize of the run or, for pixels on [0, 1], none; or pass mean=… and std=… of the model's input"
            )
        return known

    @property
    def _knows_statistics(self) -> bool:
        """True unless the run is of a version that left the loader's mean and std out."""
        assert self.run is not None
        if self.run.about is not None and not self.run.about.input_known:
            return False
        return self.run.about is not None or self.run.command is not None or self.run.statistics[0] is not None

    def heads(self, given: HeadsLike | None, model: nn.Module, shape: Sequence[int]) -> Heads | None:
        """Return the user's pretext heads for images (C,H,W), else those in the run's folder; None for none."""
        if given is not None:
            return heads_for(given, model, shape)
        if self.run is None or not (self.run.folder / files.HEADS).exists():
            return None
        try:
            return heads_for(self.run.folder, model, shape)
        except ValueError as error:
            logger.warning("the pretext heads in %s are left out: %s", self.folder, error)
            return None

    def check_images(self, images: Tensor) -> None:
        """Log if images (N,C,H,W) are of another size than the run's.

        Raises:
            ValueError: they have another number of channels.
        """
        if self.run is None:
            return
        channels, height, width = images.shape[1:]
        if self.run.channels not in (None, channels):
            raise ValueError(
                f"images have {channels} channel{'s' * (channels > 1)}, but the model of {self.folder} takes images of "
                f"{self.run.channels}: convert them in the data set's transform"
            )
        if self.run.size not in (None, (height, width)):
            before = "x".join(map(str, self.run.size or ()))
            logger.warning(
                "the model of %s was trained on images of %s, and gets %sx%s", self.folder, before, height, width
            )

    def check_classes(self, loader: Loader, progress: bool) -> None:
        """Log what is taken from the run, and what it does not know.

        Raises:
            ValueError: the loader's data set names other classes than the run, or the same in another order.
        """
        if self.run is None:
            return
        names, classes = class_names(loader), None if self.run.about is None else self.run.about.classes
        check_same_names(classes, names, self.run.folder)
        orders = None if classes is not None or names is None else two_orders(names)
        if orders is not None and names == sorted(names or ()):
            logger.warning(
                "the run in %s does not know its classes by name, so its %s; the loader has them sorted as text: if the run does not, "
                "map the labels in the target_transform of the data set",
                *(self.folder, orders),
            )
        unknown = self._unknown()
        if unknown:
            logger.warning("the run in %s does not know %s", self.folder, ", ".join(unknown))
        norm, eps = self._trained()
        radius = "" if eps is None else f" eps {shown_radius(eps)}"
        tell(f"the run in {self.folder}: {norm}{radius}, {normalised(*self.run.statistics)}", progress)
        if classes is not None and names is None:
            shown = ", ".join(f"{label} {name}" for label, name in enumerate(classes[:SHOWN]))
            more = " …" * (len(classes) > SHOWN)
            tell(f"the loader does not name its classes, so labels count as those of the run: {shown}{more}", progress)

    def _unknown(self) -> list[str]:
        """List the facts that the run does not know, in words."""
        assert self.run is not None
        known = {
            "its classes by name (labels count as they are)": self.run.about is not None
            and self.run.about.classes is not None,
            "the size of its images": self.run.size is not None,
            "mean and std of its model's input (those of the loader count)": self._knows_statistics,
            "its eps (the customary one counts)": self._trained()[1] is not None,
        }
        return [fact for fact, is_known in known.items() if not is_known]


def with_run(model: nn.Module | PathLike, run: PathLike | None = None) -> tuple[nn.Module, RunDefaults]:
    """Return a model and what its run knows.

    Args:
        model: the model, or the folder of the run that trained it, from which it is made.
        run: the folder of the run, where the model itself is passed.

    Raises:
        ValueError: there is no such run, it does not name its model, or it learnt without labels.
    """
    if not isinstance(model, str | os.PathLike):
        if run is None:
            return model, RunDefaults()
        known, same = hardened_run(run), files.has_weights(model, files.load_weights(run))
        if same:
            seen_corruptions.remember(model, known.seen_corruptions)
        else:
            logger.warning("the weights of the model are not those that the run in %r ended with", str(run))
        return model, RunDefaults(known, files.digest_of_weights(run) if same else None)
    if run is not None:
        raise ValueError("run= names the run of a model that is passed itself: leave it out, or pass the model")
    model = folder_of_model(model)
    known = hardened_run(model)  # refuses runs whose classifier is not trained
    return loaded(model), RunDefaults(known, files.digest_of_weights(model))
