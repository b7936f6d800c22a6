"""Advice on the settings of `harden`."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast, get_args

from torch import nn

from robusttune.norms import NormLike
from robusttune.plugins import one_of
from robusttune.run.markdown import markdown_table
from robusttune.run.settings import as_written, seconds_of
from robusttune.training.advice.adversary import choose_adversary
from robusttune.training.advice.chosen import AdvicePurpose, Choice, Chosen, Settings, Wishes
from robusttune.training.advice.expectations import Timing, expectations, fit_budget, timing_of
from robusttune.training.advice.labels import choose_labels
from robusttune.training.advice.method import choose_epochs, choose_preset, choose_tasks
from robusttune.training.advice.situation import Situation, situation_of
from robusttune.training.presets import PRESETS
from robusttune.training.recipe import default_recipe
from robusttune.training.settings import HardenSettings, PixelSettings, Updates
from robusttune.types import Channels, DeviceLike, Loader

PURPOSES: tuple[AdvicePurpose, ...] = get_args(AdvicePurpose)
UNEVEN = 10  # times as many images of one class as of another
FEW_OF_A_CLASS = 20
WIDTH = 110
NONE_HELD_BACK = (
    "pass val_loader= (--val_split) to choose the best epoch: harden holds no images back here, as they are too few, or the loader is no "
    "plain DataLoader"
)


@dataclass(frozen=True, repr=False)
class Advice:
    """Settings of `harden` for a situation, their reasons, and figures to expect.

    Attributes:
        settings: keyword arguments: `harden(model, loader, **advice.settings)`. A loader of images without labels, a folder and
            mean and std are yours to add.
        facts: facts about the images and the model, as names and words.
        choices: each setting with its reason and the source of the reason.
        expected: accuracy, time and memory, each with its source.
        todo: what to do or to decide first.
    """

    settings: Settings
    facts: Sequence[tuple[str, str]]
    choices: Sequence[Choice]
    expected: Sequence[Choice]
    todo: Sequence[str]

    def call(self) -> str:
        """Return the call of `harden` as a line of Python."""
        words = [f"{name}={_literal(value)}" for name, value in self.settings.items()]
        return f"harden({', '.join(['model', 'loader', *words])})"

    def table(self) -> str:
        """Format the advice as Markdown: facts, settings, expectations, reasons, sources, and what to do first."""
        every = (*self.choices, *self.expected)
        sources = list(dict.fromkeys(each.source for each in every if " (" in each.source))
        marks = {source: f"{_short(source)} [{number}]" for number, source in enumerate(sources, 1)}
        reasons = [
            f"**{each.name}**: {each.why}. ({marks.get(each.source, each.source)})" for each in every if each.why
        ]
        lists = {
            "To do or decide first": list(self.todo),
            "Why": reasons,
            "Sources": [f"[{number}] {source}" for number, source in enumerate(sources, 1)],
        }
        return "\n\n".join(
            [
                markdown_table(["your situation", ""], self.facts),
                markdown_table(
                    ["setting", "advice", "from"],
                    [(each.name, each.value, _short(each.source)) for each in self.choices],
                ),
                markdown_table(
                    ["to expect", "from", "figure"],
                    [(each.name, _short(each.source), each.value) for each in self.expected],
                ),
                *(f"{title}:\n\n" + "\n".join(map(_wrapped, lines)) for title, lines in lists.items() if lines),
                f"    {self.call()}",
            ]
        )

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        return f"<Advice: {self.call()}>"

    def _repr_markdown_(self) -> str:
        return self.table()


def advise(
    model: nn.Module | None,
    loader: Loader,
    *,
    unlabeled_loader: Loader | None = None,
    labels: int | None = None,
    norm: NormLike | None = None,
    eps: float | None = None,
    purpose: AdvicePurpose | None = None,
    budget: float | str | None = None,
    measure: bool = True,
    mean: Channels | None = None,
    std: Channels | None = None,
    normalized: bool | None = None,
    seed: int = 0,
    device: DeviceLike = "auto",
) -> Advice:
    """Advise settings of `harden` for a model and its images; nothing is trained or written, and the model stays as it is.

    Each setting names its source: a study of this project or, if no study measured the case, the literature.

    Args:
        model: see `harden`; None if you have none yet: time and memory are then unknown.
        loader: see `harden`; or images alone, if there are no labels.
        unlabeled_loader: images without labels.
        labels: number of the loader's images that have a label, if not all have one.
        norm: norm of the adversary, "linf" or "l2"; None to have it advised.
        eps: radius of the adversary, in pixel units on [0,1]; it needs `norm`. None for the usual one.
        purpose: "attacks", "corruptions" (noise, blur and weather; nobody attacks), "monitoring" (heads for `Monitor`), or "unsure"
            (is hardening worth its cost?); None for "attacks".
        budget: time for the run: seconds, or a text such as "2h" or "90min"; None for no limit.
        measure: time some steps on the model, as `estimate` does; False leaves time and memory unknown.
        mean, std, normalized: mean and std of the Normalize before the model, see `harden`.
        seed: seed of all random numbers, in timing and in tests of the model.
        device: where the run is timed.

    Raises:
        ValueError: arguments that do not fit; eps without norm; a loader that does not say how many images it has, without `labels`.

    Example:
        >>> import torch
        >>> batches = [(torch.rand(32, 1, 28, 28), torch.arange(32) % 10)] * 100
        >>> advice = advise(None, batches, norm="linf")
        >>> advice.settings["eps"] == 8 / 255, advice.settings["preset"], advice.settings["epochs"]
        (True, 'standard', 13)
    """
    wishes = Wishes(
        norm, eps, None if purpose is None else one_of("purpose", purpose, PURPOSES), seconds_of(budget, "budget")
    )
    pixels = PixelSettings(mean, std, normalized)
    situation = situation_of(model, loader, unlabeled_loader=unlabeled_loader, labels=labels, pixels=pixels, seed=seed)
    if situation.labels is None or situation.others is None:
        raise ValueError(
            "a loader does not say how many images it has: pass labels=, the number of images with a label, and no iterator"
        )
    chosen = _chosen(situation, wishes, beside=unlabeled_loader is not None)
    timing: Timing | None = None
    split = unlabeled_loader is not None or not situation.labels or not situation.others
    if model is not None and measure and split:  # else the labelled images are not in a loader of their own yet
        settings = cast(HardenSettings, {**chosen.settings, "mean": mean, "std": std, "normalized": normalized})
        settings |= {"seed": seed, "device": device, "unlabeled_loader": unlabeled_loader, "progress": False}
        timing = timing_of(model, loader, settings)
    _fit(chosen, situation, wishes, timing)
    if model is not None:
        recipe = default_recipe(model, situation.images, Updates(), PRESETS[chosen.settings.get("preset", "standard")])
        chosen.say(
            "optimizer",
            str(recipe),
            "by the kind of net; chosen by harden where you pass none",
            "the default of harden",
        )
    expected = expectations(chosen, situation, timing)
    return Advice(chosen.settings, situation.rows(), chosen.choices, expected, chosen.todo)


def _chosen(situation: Situation, wishes: Wishes, *, beside: bool) -> Chosen:
    """Choose everything that needs no measurement."""
    chosen = Chosen()
    if wishes.purpose is None:
        chosen.todo.append(
            "purpose= was left out, so attackers are assumed: 'corruptions', 'monitoring' and 'unsure' are the others"
        )
    choose_adversary(chosen, situation, wishes)
    use = choose_labels(chosen, situation, attacked=bool(chosen.settings["eps"]), beside=beside)
    choose_preset(chosen, situation, use)
    choose_tasks(chosen, wishes)
    choose_epochs(chosen, situation, use)
    if wishes.purpose == "unsure":
        chosen.todo.append(
            "run robusttune poc first: it trains these settings beside others on your images, and says which pays"
        )
    if not situation.held_back:
        chosen.todo.append(NONE_HELD_BACK)
    smallest, largest = situation.per_class or (FEW_OF_A_CLASS, FEW_OF_A_CLASS)
    if smallest == 0:
        chosen.todo.append(
            f"some of the {situation.classes} classes have no images, so the model cannot learn them, and may forget them: add images, or "
            "leave the classes out"
        )
    elif largest >= UNEVEN * smallest:
        chosen.todo.append(
            f"classes have {smallest:,} to {largest:,} images: weigh the rare ones by criterion=, and look at the worst class in the report"
        )
    elif smallest < FEW_OF_A_CLASS:
        chosen.todo.append(f"a class has only {smallest:,} images: its accuracy will be known only roughly")
    return chosen


def _fit(chosen: Chosen, situation: Situation, wishes: Wishes, timing: Timing | None) -> None:
    """Fit the length to the budget, and the images at once to the memory."""
    fit_budget(chosen, situation, wishes, timing)
    batch, fits = len(situation.images), None if timing is None else timing.largest_batch
    if fits is not None and 0 < fits < batch:
        chosen.settings["micro_batch"] = 2 ** (fits.bit_length() - 1)
        chosen.say(
            "micro_batch",
            str(chosen.settings["micro_batch"]),
            f"batches of {batch:,} images do not fit into free memory, those of {fits:,} do; checkpointing=True saves more, for time",
            "measured on this machine with your model (robusttune.estimate)",
        )


def _short(source: str) -> str:
    return source.partition(" (")[0]


def _literal(value: object) -> str:
    return as_written(value) if isinstance(value, float) else repr(value)


def _wrapped(text: str) -> str:
    return textwrap.fill(f"- {text}", WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
