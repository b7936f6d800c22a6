"""Accuracy under the standard AutoAttack, of torchattacks' members."""

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch

from robusttune import plugins
from robusttune.evaluations import Record, Subject, accuracy
from robusttune.measuring.tally import image_hashes
from robusttune.run.provenance import fingerprint
from robusttune.threat import ThreatModel

__all__ = ["autoattack"]

STEPS, TARGETS, QUERIES = 100, 9, 5000
# Targeted members need a logit beside the label's and the target's two neighbours.
FEWEST_CLASSES = 4
FILE = "autoattack.jsonl"


def autoattack(subject: Subject, *, norm: Any = None, eps: float | None = None, queries: int = QUERIES) -> list[Record]:
    """The accuracy under APGD on the cross-entropy, targeted APGD, targeted FAB and Square, one after the other.

    Each member is given only the images that have withstood those before it. These are the settings of the standard
    version: 100 steps, 9 targets (or all, if there are fewer), 5,000 queries; torchattacks' own AutoAttack class takes 10
    steps. In the folder `out` of `evaluate` each step is kept, and `resume=True` goes on from there. With fewer than 4
    classes the targeted members are left out, which the records say.

    Args:
        subject: the model and its images.
        norm, eps: of the adversary; those that the model was, or should be, trained against unless given (the customary
            radius for another norm).
        queries: of Square; fewer than 5,000 are not the standard.

    Raises:
        ImportError: torchattacks is not installed.

    Source: Croce and Hein, arXiv:2003.01690.
    """
    threat = subject.adversary(norm, eps)
    members = _members(subject.classes, queries)
    kept = _Kept(subject, threat, queries)
    after: dict[str, list[bool]] = {name: [] for name in members}
    for pixels, labels in subject.batches():
        alive, images = subject.predicted(pixels) == labels, image_hashes(pixels)
        batch = [f"{image} {label}" for image, label in zip(images, labels.tolist(), strict=True)]
        for name, settings in members.items():
            known = kept.find(name, batch)
            if known is None:
                attack = partial(plugins.find("attacks", "torchattacks"), **settings)
                alive = subject.withstood(
                    pixels, labels, alive, attack, threat, loss="cross_entropy", generator=subject.generator()
                )
                kept.keep(name, batch, alive.tolist())
            else:
                alive = torch.tensor(known, device=alive.device)
            after[name] += alive.tolist()
    setting = {"norm": threat.norm, "eps": threat.eps, "seed": subject.seed}
    count, *correct = subject.totals(len(next(iter(after.values()))), *map(sum, after.values()))
    records = []
    for place, (name, number) in enumerate(zip(after, correct, strict=True)):
        what = {**setting, "attack": f"{'and ' * (place > 0)}{name}"}
        if place == len(after) - 1:
            what["standard"] = queries == QUERIES and subject.classes >= FEWEST_CLASSES
        records.append(accuracy("autoattack", number, count, what, right=after[name]))
    return records


def _members(classes: int, queries: int) -> dict[str, dict[str, Any]]:
    """Each member by what it is, with the settings of torchattacks' class."""
    targets = min(TARGETS, classes - 1)
    members: dict[str, dict[str, Any]] = {f"APGD-CE, {STEPS} steps": {"name": "APGD", "steps": STEPS, "loss": "ce"}}
    if classes >= FEWEST_CLASSES:
        # The classes' argument is a number of targets plus one.
        aimed = {"steps": STEPS, "n_classes": targets + 1}
        members[f"APGD-T, {STEPS} steps, {targets} targets"] = {"name": "APGDT", **aimed}
        members[f"FAB-T, {STEPS} steps, {targets} targets"] = {"name": "FAB", "multi_targeted": True, **aimed}
    without = "" if classes >= FEWEST_CLASSES else f" (no targeted members: {classes} classes)"
    members[f"Square, {queries} queries{without}"] = {"name": "Square", "n_queries": queries}
    return members


class _Kept:
    """What has been found out so far, in a file of one line for each member and batch."""

    def __init__(self, subject: Subject, threat: ThreatModel, queries: int) -> None:
        self.path: Path | None = None if subject.folder is None else subject.folder / FILE
        space = [subject.pixels.mean.flatten().tolist(), subject.pixels.std.flatten().tolist()]
        of = [fingerprint(subject.model), space, threat.norm, threat.eps, queries, subject.seed]
        self.of = hashlib.blake2b(json.dumps(of).encode(), digest_size=8).hexdigest()
        self.known: dict[str, list[bool]] = {}
        if self.path is not None and self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:  # cut off in the middle of the line
                    continue
                self.known[row["key"]] = [each == "1" for each in row["right"]]

    def find(self, name: str, batch: list[str]) -> list[bool] | None:
        """Which images of this batch, each with its label, withstood this member and those before it, if known."""
        return self.known.get(self._key(name, batch))

    def keep(self, name: str, batch: list[str], right: list[bool]) -> None:
        """Write it down."""
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                row = {"key": self._key(name, batch), "right": "".join("01"[each] for each in right)}
                file.write(json.dumps(row) + "\n")

    def _key(self, name: str, batch: list[str]) -> str:
        # Random starts depend on the whole batch.
        return hashlib.blake2b(" ".join([self.of, name, *batch]).encode(), digest_size=16).hexdigest()


autoattack.installed = partial(plugins.check_installed, "attacks", "torchattacks")  # type: ignore[attr-defined]
