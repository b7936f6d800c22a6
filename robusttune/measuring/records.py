"""Lists of measured numbers: shown, searched, saved and read."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from robusttune.measuring import failures
from robusttune.measuring.failures import Failure
from robusttune.measuring.record import Record, accuracy, described, percent


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
