"""How robust is a classifier?"""

import copy
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from torch import nn
from tqdm.auto import tqdm

from robusttune import plugins
from robusttune.data import sharding
from robusttune.data.batches import first_batch, unpacked
from robusttune.data.loaders import check_loader
from robusttune.data.pixels import find_pixels
from robusttune.data.splits import subset_of
from robusttune.measuring.failures import worst
from robusttune.measuring.record import Record
from robusttune.measuring.records import Records
from robusttune.measuring.subject import Subject
from robusttune.model.borrowing import differentiable, evaluating, frozen, gradients_kept
from robusttune.model.classifier import find_classifier
from robusttune.model.devices import chosen_device, device_of, dtype_of, placed
from robusttune.model.memory_format import chosen_format, formatted
from robusttune.model.probe import first_logits
from robusttune.norms import canonical, default_eps
from robusttune.run import distributed
from robusttune.run.folder import prepared
from robusttune.run.log import tell
from robusttune.run.provenance import fingerprint, of_all, versions
from robusttune.run.randomness import own_randomness
from robusttune.run.settings import check_settings
from robusttune.tasks._heads import Heads, load_heads
from robusttune.threat import ThreatModel

FILE = "records.jsonl"

Which = str | Callable[[Subject], Any]


def evaluate(
    model: nn.Module,
    loader: Any,
    which: Which | Sequence[Which] = ("clean", "sweep"),
    *,
    norm: Any = "linf",
    eps: float | None = None,
    mean: Any = None,
    std: Any = None,
    normalized: bool | None = None,
    subset: int | None = None,
    heads: Any = None,
    out: Any = None,
    resume: bool = False,
    seed: int = 0,
    device: Any = "auto",
    progress: bool = True,
) -> Records:
    """Records of how the model answers, on unchanged and on attacked images; the model is given back as found.

    Args:
        model: images -> logits (N,K), hardened by us or not; evaluated in eval mode.
        loader: yields (images, labels), as for `harden`.
        which: evaluations by name, or `functools.partial(evaluation, …)` of one with settings.
        norm, eps: the adversary that the model was, or should be, trained against; eps in pixel units on [0,1], by the
            image size unless given.
        mean, std, normalized: of the model's input; found in the loader unless given.
        subset: how many images to use: drawn with `seed` from a plain DataLoader, the first ones of other loaders.
        heads: of pretext tasks, for "pretext" and "ood": what `load_heads` returns, a RobustLoss, or the folder of a run.
        out: a folder for `records.jsonl` and for what long evaluations need to go on; None for none.
        resume: go on with the evaluation in `out` that was interrupted.
        seed: of everything random.
        device: "auto", or where to work.
        progress: show a progress bar.

    Raises:
        ValueError: arguments, images or labels that do not fit.
        ImportError: an evaluation, or its attack, needs a package that is not installed; nothing has been measured yet.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> batches = [(torch.rand(8, 1, 8, 8), torch.arange(8))]
        >>> records = evaluate(model, batches, "clean", progress=False)
        >>> records[0].metric, records[0].images
        ('accuracy', 8)
    """
    check_settings({"subset": subset, "seed": seed})
    wanted = _wanted(which)
    evaluations = [(_title(each), plugins.find("evaluations", each)) for each in wanted]
    for _, evaluation in evaluations:
        plugins.check_installed("evaluations", evaluation)
    check_loader(loader, passes=1 + len(evaluations))
    place = chosen_device(model, device)
    if getattr(model, "num_classes", None) == 0:
        raise ValueError("the model has no classifier (num_classes=0): give it one before evaluating it")
    distributed.join(place)
    place = distributed.local_device(place)
    folder = prepared(out, resume)
    loader = sharding.whole(loader)
    with (
        differentiable(),
        own_randomness(seed),
        placed(model, place),
        evaluating(model),
        gradients_kept(model),
        frozen(model.parameters()),
        ExitStack() as until_the_end,
    ):
        source = loader
        loader = loader if subset is None else subset_of(loader, subset, seed)
        images, _ = unpacked(first_batch(loader))
        pixels = find_pixels(images, source, mean=mean, std=std, normalized=normalized, model=model).to(place)
        inputs = pixels.inputs(pixels.pixels(images[:2].to(place))).to(dtype_of(model))
        until_the_end.enter_context(formatted(model, chosen_format("auto", model, inputs)))
        logits = first_logits(model, inputs)
        own_heads = None if heads is None else heads_for(heads, model)
        if logits.shape[1] < 2:
            raise ValueError(
                "the model returns one logit an image, as those for BCEWithLogitsLoss do: give it two outputs"
            )
        shape = tuple(images.shape[1:])
        threat = ThreatModel(norm, default_eps(canonical(norm), shape) if eps is None else eps)
        done = []
        for title, evaluation in evaluations:
            subject = Subject(
                model,
                pixels,
                threat,
                loader,
                shape,
                logits.shape[1],
                place,
                seed=seed,
                watched=_bar(title, loader) if progress else iter,
                tell=partial(tell, progress=progress),
                folder=folder,
                hashes=[],
                labels=[],
                heads=own_heads,
                classifier=None if own_heads is None else find_classifier(model, inputs),
            )
            began = time.perf_counter()
            found = _checked(title, evaluation(subject))
            done.append(_Done(title, found, subject, time.perf_counter() - began))
        records = _joined(done)
        records.facts = {
            "seed": seed,
            "evaluations": _costs(done),
            **_facts(records, subject),
        }
    if folder is not None and distributed.rank() == 0:
        records.save(folder / FILE)
    return records


def _wanted(which: Any) -> list[Which]:
    """The evaluations that are asked for, each by its name or as it is."""
    wanted = (
        [which] if isinstance(which, str) or callable(which) else list(which) if isinstance(which, Iterable) else []
    )
    wrong = [each for each in wanted or [which] if not isinstance(each, str) and not callable(each)]
    known = ", ".join(plugins.names("evaluations"))
    if not wanted and isinstance(which, Iterable):
        raise ValueError(f"which= is empty: name evaluations out of {known}")
    if wrong:
        raise ValueError(
            f"which= holds {wrong[0]!r}, but evaluations are names out of {known}, or functions of a Subject"
        )
    return wanted


def _checked(title: str, found: Any) -> list[Record]:
    """What an evaluation returned, if it is Records."""
    records = list(found) if isinstance(found, Iterable) else [found]
    if any(not isinstance(each, Record) for each in records):
        raise ValueError(f"the evaluation {title} returned {found!r}, but a list of Record is needed")
    return records


def _facts(records: Records, subject: Subject) -> dict[str, Any]:
    """What was measured, and with what."""
    return {
        "model": f"{type(subject.model).__name__} {fingerprint(subject.model)}",
        "images": f"{len(records.hashes)} {of_all(records.hashes)}",
        "pixels": str(subject.pixels),
        "threat": f"{subject.threat.norm} eps {subject.threat.eps:.6g}",
        "device": str(subject.device),
        "versions": versions(),
    }


def heads_for(heads: Any, model: nn.Module) -> Heads:
    """Pretext heads, however they were given, in eval mode where the model is."""
    found = heads if isinstance(heads, Heads) else getattr(heads, "heads", None) or load_heads(heads, model)
    # A copy, as the user's own may be trained on.
    return copy.deepcopy(found).to(device_of(model), dtype_of(model)).eval()


class _Done(NamedTuple):
    """An evaluation that has ended."""

    title: str
    records: list[Record]
    subject: Subject
    seconds: float

    def cost(self) -> dict[str, Any]:
        work = self.subject.work
        forward, backward = self.subject.totals(work["forward"], work["backward"])
        return {"seconds": round(self.seconds, 3), "images forward": forward, "images backward": backward}


def _costs(done: Sequence[_Done]) -> dict[str, dict[str, Any]]:
    """What each evaluation has cost; those of one name, with different settings, together."""
    costs: dict[str, dict[str, Any]] = {}
    for each in done:
        total = costs.setdefault(each.title, {})
        for what, spent in each.cost().items():
            total[what] = round(total.get(what, 0) + spent, 3)
    return costs


def _joined(done: Sequence[_Done]) -> Records:
    """The Records of all evaluations and processes, in which single images stand in the order of their hashes.

    Loaders that shuffle give each evaluation the images in another order.
    """
    joined = Records(
        failures=worst(one for each in done for part in distributed.gathered(each.subject.failures) for one in part)
    )
    for each in done:
        subject = each.subject
        parts = distributed.gathered((subject.hashes, [record.right for record in each.records], subject.labels))
        hashes = [one for part, _, _ in parts for one in part]
        order = sorted(range(len(hashes)), key=lambda row: hashes[row])
        if not joined.hashes and any(record.right is not None for record in each.records):
            labels = [one for _, _, part in parts for one in part]
            joined.hashes, joined.labels = tuple(hashes[row] for row in order), tuple(labels[row] for row in order)
        same = joined.hashes == tuple(hashes[row] for row in order)
        for index, record in enumerate(each.records):
            right = None
            if record.right is not None and same:
                single = [one for _, rights, _ in parts for one in rights[index]]
                right = tuple(single[row] for row in order)
            joined.append(replace(record, right=right))
    return joined


def _bar(title: str, loader: Any) -> Callable[[Any], Any]:
    total = len(loader) if hasattr(loader, "__len__") else None
    return lambda batches: tqdm(batches, desc=title, total=total, unit="batch", leave=False)


def _title(which: Any) -> str:
    return which if isinstance(which, str) else getattr(getattr(which, "func", which), "__name__", "evaluation")
