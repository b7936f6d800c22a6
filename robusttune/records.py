"""Measured numbers with their settings: what evaluations return and reports show."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from robusttune import failures
from robusttune.failures import Failure

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Record:
    """One measured number.

    Attributes:
        evaluation: what measured it, a name in `robusttune.evaluations`.
        metric: what it is, such as "accuracy".
        value: the number; accuracies are shares from 0 to 1.
        images: how many images it was measured on.
        interval: its 95% interval.
        setting: all that the number depends on: norm, eps, attack, steps, seed.
        right: for each image whether the answer was right, in the order of `Records.hashes`; None where a number is not
            of single images.
    """

    evaluation: str
    metric: str
    value: float
    images: int
    interval: tuple[float, float]
    setting: Mapping[str, Any] = field(default_factory=dict)
    right: tuple[bool, ...] | None = field(default=None, repr=False, compare=False)


class Records(list[Record]):
    """A list of Record that can be shown, saved and searched.

    Attributes:
        facts: what was measured with what: versions, seed, fingerprints of model and images, seconds, passes.
        hashes: of the images' contents, sorted; they tell which images two lists have in common.
        labels: of these images.
        failures: a few images that fell most easily to the adversary, for the report.

    Example:
        >>> records = Records([accuracy("clean", 90, 100)])
        >>> print(records.table())
        | evaluation | metric | value | 95% interval | images | setting |
        |---|---|---|---|---|---|
        | clean | accuracy | 90.0% | 82.6–94.5% | 100 |  |
    """

    def __init__(
        self,
        records: Iterable[Record] = (),
        *,
        facts: Mapping[str, Any] | None = None,
        hashes: Sequence[str] = (),
        labels: Sequence[int] = (),
        failures: Sequence[Failure] = (),
    ) -> None:
        super().__init__(records)
        self.failures = list(failures)
        self.facts, self.hashes, self.labels = dict(facts or {}), tuple(hashes), tuple(labels)

    def table(self) -> str:
        """A Markdown table, one row a Record."""
        head = "| evaluation | metric | value | 95% interval | images | setting |\n|---|---|---|---|---|---|"
        return "\n".join([head, *map(_row, self)])

    def where(self, evaluation: str | None = None, **setting: Any) -> "Records":
        """The Records of one evaluation whose setting has these values; floats are compared to 9 digits."""
        kept = (
            record
            for record in self
            if evaluation in (None, record.evaluation)
            and all(key in record.setting and _equal(record.setting[key], value) for key, value in setting.items())
        )
        return Records(kept, facts=self.facts, hashes=self.hashes, labels=self.labels, failures=self.failures)

    def worst(self, **setting: Any) -> Record:
        """The accuracy when each image counts as right only where it was right in all Records of this setting.

        What speaks of something else than the model's own classes, as "certified accuracy" and "head accuracy" do, stays
        out.

        Raises:
            ValueError: there is none that knows its single images.

        Example:
            >>> records.worst(norm="linf", eps=8 / 255)  # doctest: +SKIP
        """
        own = [record for record in self.where(**setting) if record.metric == "accuracy"]
        known = [record.right for record in own if record.right is not None]
        if not known:
            raise ValueError(
                f"no Record of {setting} knows which images were right: pass a setting of evaluate's Records"
            )
        right = tuple(map(all, zip(*known, strict=True)))
        return accuracy("worst case", sum(right), len(right), {**setting, "over": f"{len(known)} attacks"}, right=right)

    def save(self, path: str | Path) -> Path:
        """Write one JSON object a line, the facts first.

        Which images were right goes to `<name>.images.json` beside it, the pictures of failures to `<name>.failures.npz`.

        Files that are there already are replaced only once all is written.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [{"facts": self.facts}] if self.facts else []
        lines += [{key: value for key, value in asdict(record).items() if key != "right"} for record in self]
        _replaced(path, "".join(json.dumps(line) + "\n" for line in lines))
        if self.hashes:
            right = [None if record.right is None else "".join("01"[each] for each in record.right) for record in self]
            _replaced(_sidecar(path), json.dumps({"hashes": self.hashes, "labels": self.labels, "right": right}))
        else:  # what lies beside other Records of this name would be taken for that of these
            _sidecar(path).unlink(missing_ok=True)
        if self.failures:
            failures.save(self.failures, _pictures(path))
        else:
            _pictures(path).unlink(missing_ok=True)
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Records":
        """Read what `save` wrote.

        Raises:
            ValueError: the file is of another kind.
        """
        path = Path(path)
        try:
            return cls._loaded(path)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} holds no Records ({type(error).__name__}: {error}): pass the records.jsonl of evaluate's out=, or "
                "what Records.save wrote, with the files beside it"
            ) from error

    @classmethod
    def _loaded(cls, path: Path) -> "Records":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
        facts: dict[str, Any] = next((row["facts"] for row in rows if "facts" in row), {})
        rows = [row for row in rows if "facts" not in row]
        beside = json.loads(_sidecar(path).read_text(encoding="utf-8")) if _sidecar(path).exists() else {}
        rights = beside.get("right", [None] * len(rows))
        made = [
            Record(**{**row, "interval": tuple(row["interval"])}, right=right and tuple(each == "1" for each in right))
            for row, right in zip(rows, rights, strict=True)
        ]
        shown = failures.load(_pictures(path)) if _pictures(path).exists() else []
        return cls(made, facts=facts, hashes=beside.get("hashes", ()), labels=beside.get("labels", ()), failures=shown)

    def _repr_markdown_(self) -> str:
        return self.table()


def accuracy(
    evaluation: str,
    correct: int,
    images: int,
    setting: Mapping[str, Any] | None = None,
    *,
    metric: str = "accuracy",
    right: Iterable[bool] | None = None,
) -> Record:
    """The Record of a share of correct answers, with its Wilson interval; `right` tells of each image.

    Raises:
        ValueError: there are no images.
    """
    if images < 1:
        raise ValueError(f"{evaluation} saw no images: the loader is empty")
    single = None if right is None else tuple(bool(each) for each in right)
    return Record(evaluation, metric, correct / images, images, wilson(correct, images), dict(setting or {}), single)


def balanced(evaluation: str, classes: Sequence[tuple[int, int]], setting: Mapping[str, Any] | None = None) -> Record:
    """The Record of the mean of the classes' own accuracies, each given as (correct, images).

    The interval combines those of the classes, as Zou and Donner, doi:10.1002/sim.3095, do for sums.

    Example:
        >>> record = balanced("clean", [(9, 10), (1, 2)])
        >>> record.value, record.images
        (0.7, 12)
    """
    shares = [correct / images for correct, images in classes]
    bounds = [wilson(correct, images) for correct, images in classes]
    mean = math.fsum(shares) / len(shares)
    below = math.hypot(*(share - low for share, (low, _) in zip(shares, bounds, strict=True))) / len(shares)
    above = math.hypot(*(high - share for share, (_, high) in zip(shares, bounds, strict=True))) / len(shares)
    images = sum(images for _, images in classes)
    interval = (max(0.0, mean - below), min(1.0, mean + above))
    return Record(evaluation, "balanced accuracy", mean, images, interval, dict(setting or {}))


def repeated(evaluation: str, right: Sequence[int], times: int, setting: Mapping[str, Any] | None = None) -> Record:
    """The Record of the mean accuracy over several looks at each image, given how often each image was right.

    Looks at one image are no independent trials: the interval is Wilson's for as many trials as would scatter as much as
    the images' own shares do (Kish's effective number).

    Args:
        right: (sum, sum of squares, number) over images of how many looks were right.
        times: looks at each image.

    Example:
        >>> repeated("corruptions", [50, 500, 10], 10).interval  # half of the images always right: 10 trials, not 100
        (0.2365..., 0.7634...)
    """
    total, squares, images = right
    if images < 1:
        raise ValueError(f"{evaluation} saw no images: the loader is empty")
    share = total / (images * times)
    scatter = squares / (images * times**2) - share**2
    alone = images * share * (1 - share)
    # Of images that are all right, or all wrong, nothing is known of how they scatter.
    trials = min(alone / max(scatter, 1e-12), images * times) if alone > 0 else images
    return Record(evaluation, "accuracy", share, images, wilson(share * trials, trials), dict(setting or {}))


def wilson(successes: float, trials: float) -> tuple[float, float]:
    """The 95% score interval of a proportion.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.

    Example:
        >>> wilson(0, 10)
        (0.0, 0.2775...)
    """
    share = successes / trials
    spread = Z95 * math.sqrt(share * (1 - share) / trials + Z95**2 / (4 * trials**2))
    middle, scale = share + Z95**2 / (2 * trials), 1 + Z95**2 / trials
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def percent(value: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{100 * value:.1f}%"


def described(setting: Mapping[str, Any]) -> str:
    """A setting in one line."""
    return ", ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in setting.items()
    )


def _sidecar(path: Path) -> Path:
    return path.with_name(path.stem + ".images.json")


def _pictures(path: Path) -> Path:
    return path.with_name(path.stem + ".failures.npz")


def _replaced(path: Path, text: str) -> None:
    draft = path.with_name(path.name + ".part")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _row(record: Record) -> str:
    low, high = record.interval
    shown = f"| {record.evaluation} | {record.metric} | {percent(record.value)} | {100 * low:.1f}–{percent(high)} "
    return f"{shown}| {record.images} | {described(record.setting)} |"


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, int | float) and isinstance(second, int | float):
        return math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-12)
    return bool(first == second)
