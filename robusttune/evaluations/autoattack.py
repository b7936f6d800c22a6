"""Accuracy under the standard AutoAttack, from torchattacks' members, and under a second judge, adv-lib's APGD."""

import hashlib
import json
import logging
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch

from robusttune import plugins
from robusttune.attacks import Attack
from robusttune.evaluations import LOSSES, Passes, Record, Subject, accuracy, attacks_at, checked_by, takes
from robusttune.measuring.tally import image_hashes
from robusttune.norms import NormLike
from robusttune.run.provenance import digest, fingerprint
from robusttune.threat import ThreatModel
from robusttune.types import from_json

__all__ = ["autoattack"]

STEPS, TARGETS, QUERIES = 100, 9, 5000
# Targeted members need a logit beside the label's and the target's two neighbours.
FEWEST_CLASSES = 4
SHORT = 5  # steps of a member in an estimate
FILE = "autoattack.jsonl"
ALIKE = 0.01  # share of the mean logit, between margins of one model: far above what another device changes
FAULT = (
    "torchattacks' targeted APGD has a fault in l2: it moves all images of a batch by the step of the first one, and may miss some; pass "
    "second_judge=True for a number that you publish"
)

Member: TypeAlias = tuple[str, dict[str, object]]  # an attack of `attacks/`, and its settings


logger = logging.getLogger("robusttune")


def _passes(subject: Subject, *, queries: int, second_judge: bool) -> Passes:
    """Count the passes of the members, and of a look at what each of them found."""
    targets = min(TARGETS, subject.classes - 1)
    each: dict[str, object] = {"steps": SHORT, "n_classes": 2}
    members: dict[str, tuple[dict[str, object], Passes]] = {
        "APGD": ({"steps": SHORT}, Passes(STEPS + 3, STEPS + 1)),
        "APGDT": (each, Passes(2 + targets * (STEPS + 2), targets * (STEPS + 1))),
        "FAB": ({"multi_targeted": True, **each}, Passes(2 + targets * (2 * STEPS + 3), targets * STEPS)),
        "Square": ({"n_queries": 10 * SHORT}, Passes(queries + 4)),
    }
    kept = ["APGD", "APGDT", "FAB", "Square"] if subject.classes >= FEWEST_CLASSES else ["APGD", "Square"]
    attacks = [
        (plugins.configured("attacks", "torchattacks", name=name, **members[name][0]), members[name][1])
        for name in kept
    ]
    if second_judge:
        attacks.append(_second_passes(subject.classes))
    total = Passes(1, exact=False, attacks=attacks)
    for _, passes in attacks:
        total = total.plus(passes)
    return total


def _attacked(subject: Subject, *, norm: NormLike | None, eps: float | None) -> list[ThreatModel]:
    return [subject.adversary(norm, eps)]


def _second_passes(classes: int) -> tuple[Attack, Passes]:
    """Return a short version of the second judge, and the passes of the long one with a look at what it found."""
    package, settings = _second(classes, SHORT)[1]
    if classes < FEWEST_CLASSES:
        return plugins.configured("attacks", package, **settings), Passes(STEPS + 2, STEPS + 1)
    taken = min(TARGETS, classes - 1) * (STEPS + 1)
    return plugins.configured("attacks", package, **{**settings, "num_targets": 1}), Passes(2 + taken, taken)


def _check(subject: Subject, *, second_judge: bool) -> None:
    if second_judge:
        plugins.check_installed("attacks", "adv_lib")


@attacks_at(_attacked)
@checked_by(_check)
@takes(_passes)
@plugins.requires(partial(plugins.check_installed, "attacks", "torchattacks"))
def autoattack(
    subject: Subject,
    *,
    norm: NormLike | None = None,
    eps: float | None = None,
    queries: int = QUERIES,
    second_judge: bool = False,
) -> list[Record]:
    """Measure the accuracy under APGD on the cross-entropy, targeted APGD, targeted FAB and Square, one after the other.

    Each member gets only the images that have withstood those before it. These are the settings of the standard
    version: 100 steps, 9 targets (or all, if there are fewer), 5,000 queries; torchattacks' own AutoAttack class takes 10
    steps. Every batch is saved in the folder `out` of `evaluate`, and `resume=True` goes on from there. With fewer than 4
    classes there are no targeted members, which the records say.

    Args:
        subject: the model and its images.
        norm, eps: norm and radius of the adversary; by default those that the model was trained against (for another norm,
            its usual radius).
        queries: the number of queries of Square; fewer than 5,000 are not the standard.
        second_judge: attack the images that are left with adv-lib's targeted APGD, too (with 3 classes with its APGD on the
            difference-of-logits ratio, with 2 on the cross-entropy). The last Record is then the worst case over two
            implementations; the one before it, after Square, is that of the suite.

    Raises:
        ImportError: torchattacks is not installed, or adv-lib for the second judge.

    Source: Croce and Hein, arXiv:2003.01690.
    """
    threat = subject.adversary(norm, eps)
    _check(subject, second_judge=second_judge)
    members = _members(subject.classes, queries)
    if threat.norm == "l2" and subject.classes >= FEWEST_CLASSES and not second_judge:
        logger.warning(FAULT)
    last = list(members)[-1]  # of the standard suite
    if second_judge:
        name, member = _second(subject.classes, STEPS)
        members[name] = member
    saved = _SavedAnswers(subject, threat, queries)
    after: dict[str, list[bool]] = {name: [] for name in members}
    for pixels, labels in subject.batches():
        logits, hashes = subject.answers(pixels), image_hashes(pixels)
        alive, margins = logits.argmax(1) == labels, LOSSES["margin"](logits, labels).tolist()
        close = ALIKE * float(logits.abs().mean())
        batch = [f"{image} {label}" for image, label in zip(hashes, labels.tolist(), strict=True)]
        for name, (package, settings) in members.items():
            known = saved.find(name, batch, margins, close)
            if known is None:
                attack = plugins.configured("attacks", package, **settings)
                alive = subject.withstood(
                    pixels, labels, alive, attack, threat, loss="cross_entropy", generator=subject.generator()
                )
                saved.add(name, batch, alive.tolist(), margins)
            else:
                alive = torch.tensor(known, device=alive.device)
            after[name] += alive.tolist()
    standard = {last: queries == QUERIES and subject.classes >= FEWEST_CLASSES}
    return _records(subject, threat, after, standard)


def _records(
    subject: Subject, threat: ThreatModel, after: dict[str, list[bool]], standard: dict[str, bool]
) -> list[Record]:
    """Return the accuracy after each member; the Record of the suite's last says if members and settings are the standard's."""
    setting = {"norm": threat.norm, "eps": threat.eps, "seed": subject.seed}
    images, *correct = subject.totals(len(next(iter(after.values()))), *map(sum, after.values()))
    records = []
    for position, (name, count) in enumerate(zip(after, correct, strict=True)):
        of_member = {**setting, "attack": f"{'and ' * (position > 0)}{name}"}
        if name in standard:
            of_member["standard"] = standard[name]
        records.append(accuracy("autoattack", count, images, of_member, right=after[name]))
    return records


def _members(classes: int, queries: int) -> dict[str, Member]:
    """Return for each member of the suite, by its description, the settings of torchattacks' class."""
    targets = min(TARGETS, classes - 1)
    members: dict[str, dict[str, object]] = {f"APGD-CE, {STEPS} steps": {"name": "APGD", "steps": STEPS, "loss": "ce"}}
    if classes >= FEWEST_CLASSES:
        # torchattacks' n_classes is the number of targets plus one.
        targeted = {"steps": STEPS, "n_classes": targets + 1}
        members[f"APGD-T, {STEPS} steps, {targets} targets"] = {"name": "APGDT", **targeted}
        members[f"FAB-T, {STEPS} steps, {targets} targets"] = {"name": "FAB", "multi_targeted": True, **targeted}
    without = "" if classes >= FEWEST_CLASSES else f" (no targeted members: {classes} classes)"
    members[f"Square, {queries} queries{without}"] = {"name": "Square", "n_queries": queries}
    return {name: ("torchattacks", settings) for name, settings in members.items()}


def _second(classes: int, steps: int) -> tuple[str, Member]:
    """Return the description of the second judge, and the settings of adv-lib's function."""
    if classes < FEWEST_CLASSES:
        loss = "ce" if classes < FEWEST_CLASSES - 1 else "dlr"  # the ratio needs a third logit
        untargeted: dict[str, object] = {"name": "apgd", "loss_function": loss, "steps": steps}
        return f"adv-lib's APGD-{loss.upper()}, {steps} steps", ("adv_lib", untargeted)
    targets = min(TARGETS, classes - 1)
    settings: dict[str, object] = {"name": "apgd_targeted", "steps": steps, "num_targets": targets}
    return f"adv-lib's APGD-T, {steps} steps, {targets} targets", ("adv_lib", settings)


class _SavedAnswers:
    """The answers known so far, in a file with one line for each member and batch, from which a run can go on."""

    def __init__(self, subject: Subject, threat: ThreatModel, queries: int) -> None:
        self.path: Path | None = None if subject.folder is None else subject.folder / FILE
        space = [subject.pixels.mean.flatten().tolist(), subject.pixels.std.flatten().tolist()]
        measured = [fingerprint(subject.model), space, threat.norm, threat.eps, queries, subject.seed]
        self.measured = hashlib.blake2b(json.dumps(measured).encode(), digest_size=8).hexdigest()
        self.known: dict[str, tuple[list[bool], list[float] | None]] = {}
        self.told = False
        if self.path is not None and self.path.exists():
            self._read(self.path)

    def _read(self, path: Path) -> None:
        """Read the answers of a file; a line that was interrupted or damaged is left out, and its batch is attacked again."""
        damaged, text = 0, path.read_text(encoding="utf-8", errors="replace")
        if text and not text.endswith("\n"):  # interrupted: the next line must not join this one
            with suppress(OSError), path.open("a", encoding="utf-8") as file:
                file.write("\n")
        for line in text.splitlines():
            try:
                row = from_json(line)
                key, right = row["key"], row["right"]
                margins = row.get("margins")  # earlier versions wrote neither margins nor a checksum
                whole = row.get("checksum") in (None, _checksum(key, right, margins))
            except (ValueError, KeyError, TypeError, AttributeError):
                whole = False
            damaged += not whole
            if whole:
                self.known[key] = [answer == "1" for answer in right], margins
        if damaged:
            logger.warning("%d lines of %s are damaged or cut off: these batches are attacked again", damaged, path)

    def find(self, name: str, batch: list[str], margins: list[float], close: float) -> list[bool] | None:
        """Return which images of a batch withstood this member and those before it; None if it is not known.

        What a model of other answers withstood is not known, as where its weights are the same, but not what it does before them.

        Args:
            name: the member's description.
            batch: for each image its hash and its label.
            margins: the margins of the answers to the images without an attack.
            close: the largest difference of margins that counts as the same.
        """
        right, before = self.known.get(self._key(name, batch), (None, None))
        if before is None or all(abs(a - b) <= close for a, b in zip(margins, before, strict=True)):
            return right
        if not self.told:
            logger.warning(
                "%s is of a model of the same weights that answered otherwise: its batches are attacked again",
                self.path,
            )
        self.told = True
        return None

    def add(self, name: str, batch: list[str], right: list[bool], margins: list[float]) -> None:
        """Append the answers to the file, if there is one."""
        if self.path is None:
            return
        key, answers = self._key(name, batch), "".join("01"[answer] for answer in right)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                row = {"key": key, "right": answers, "margins": margins, "checksum": _checksum(key, answers, margins)}
                file.write(json.dumps(row) + "\n")
        except OSError as error:  # hours of attacks are worth more than the file from which they could go on
            logger.warning(
                "%s cannot be written (%s): the attack goes on, but could not be resumed", self.path, error.strerror
            )
            self.path = None

    def _key(self, name: str, batch: list[str]) -> str:
        # Random starts depend on the whole batch.
        return hashlib.blake2b(" ".join([self.measured, name, *batch]).encode(), digest_size=16).hexdigest()


def _checksum(key: str, right: str, margins: list[float] | None) -> str:
    return digest([key.encode(), right.encode(), *([] if margins is None else [json.dumps(margins).encode()])])
