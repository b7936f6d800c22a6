"""Records: lists of measured numbers, to show, search, save and load."""

import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robusttune.measuring import failures
from robusttune.measuring.agreement import caveat
from robusttune.measuring.failures import Failure
from robusttune.measuring.html import html_table
from robusttune.measuring.record import ANSWERED, Record, accuracy, cells_of, equal, numbers_of, of_same_images, plain
from robusttune.measuring.records_files import (
    CHECKSUMS,
    answers_path,
    check_weights,
    failures_path,
    file_at,
    kind_of,
    number_of,
    numbers_checksum,
    read_beside,
)
from robusttune.run.about import RUN
from robusttune.run.markdown import as_text, markdown_table, texts_in
from robusttune.run.provenance import digest
from robusttune.run.writing import write_bytes, write_text
from robusttune.types import PathLike, check_path, finite, from_json, shown, to_json

if TYPE_CHECKING:
    from pandas import DataFrame

    from robusttune.measuring.checks import Checks

HEAD = ("evaluation", "metric", "value", "95% interval", "images", "setting")
METRIC = HEAD.index("metric")  # its cells end beside the value


class Records(list[Record]):
    """A list of Record that can be shown, searched, saved, and converted to plain dicts or a table of pandas.

    Attributes:
        facts: the provenance of the measurement: versions, seed, fingerprints of model and images, seconds, counts; the
            names of the classes, if they are known.
        hashes: hashes of the images' contents, sorted; they show which images two Records have in common.
        labels: the labels of these images.
        failures: a few images that fool the model most easily, for the report.

    Example:
        >>> records = Records([accuracy("clean", 90, 100)])
        >>> print(records)
        | evaluation | metric   | value | 95% interval | images | setting |
        |------------|----------|-------|--------------|--------|---------|
        | clean      | accuracy | 90.0% | 82.6–94.5%   | 100    |         |
    """

    def __init__(
        self,
        records: Iterable[Record] = (),
        *,
        facts: Mapping[str, Any] | None = None,  # as JSON holds them, nested, and as readers index them
        hashes: Sequence[str] = (),
        labels: Sequence[int] = (),
        failures: Sequence[Failure] = (),
    ) -> None:
        super().__init__(of_same_images(list(records), hashes))
        self.failures = list(failures)
        self.facts, self.hashes, self.labels = dict(facts or {}), tuple(hashes), tuple(labels)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes by label; () if they are not known."""
        return tuple(self.facts.get("classes") or ())

    def table(self) -> str:
        """Return a Markdown table with one row a Record; checks pass or fail, and classes have their names.

        A sentence below it says what agreement is, which is measured where images have no labels.
        """
        table, below = markdown_table(HEAD, _rows(self), right=[METRIC]), caveat(self.facts)
        return table if below is None else f"{table}\n\n{below}"

    def __str__(self) -> str:
        return self.table()

    def to_dict(self) -> list[dict[str, Any]]:  # Any: values of JSON, as in Setting
        """Return one plain dict a Record, of values that JSON can hold.

        The keys are those of Record: "evaluation", "metric", "value", "images", "interval" (a list of two numbers) and
        "setting" (a dict), in which "class name" is the name of a "class", if it is known. Answers to single images are
        left out.

        Example:
            >>> Records([accuracy("clean", 1, 2, {"seed": 0})]).to_dict()[0]["setting"]
            {'seed': 0}
        """
        return [plain(record, self.classes) for record in self]

    def to_dataframe(self) -> "DataFrame":
        """Return a table of pandas with one row a Record, and one column for each setting.

        The first columns are "evaluation", "metric", "value", "low" and "high" (the 95% interval) and "images". A setting
        that a Record does not have is NaN.

        Raises:
            ImportError: pandas is not installed.
        """
        from robusttune.measuring.dataframe import dataframe  # here, as pandas is an extra

        return dataframe(self.to_dict())

    def where(self, evaluation: str | None = None, **setting: object) -> "Records":
        """Select the Records of one evaluation whose setting has these values; floats are compared to 9 digits."""
        kept = (
            record
            for record in self
            if evaluation in (None, record.evaluation)
            and all(key in record.setting and equal(record.setting[key], value) for key, value in setting.items())
        )
        return Records(kept, facts=self.facts, hashes=self.hashes, labels=self.labels, failures=self.failures)

    def worst(self, **setting: Any) -> Record:
        """Return the accuracy where an image counts as right only if it is right in all Records of this setting.

        Only the metric "accuracy" counts, or "agreement" of images without labels: "certified accuracy" and "head accuracy" are
        not about the model's answers.

        Raises:
            ValueError: no such Record holds the answer to each image.

        Example:
            >>> records.worst(norm="linf", eps=8 / 255)  # doctest: +SKIP
        """
        accuracies = [record for record in self.where(**setting) if record.metric in ANSWERED]
        rights = [record.right for record in accuracies if record.right is not None]
        if not rights:
            raise ValueError(
                f"no Record of {setting} holds the answer to each image: pass a setting of the Records that evaluate returned"
            )
        right = tuple(map(all, zip(*rights, strict=True)))
        over = {**setting, "over": f"{len(rights)} attacks"}
        return accuracy("worst case", sum(right), len(right), over, metric=accuracies[0].metric, right=right)

    def require(self, *requirements: str) -> "Checks":
        """Check requirements such as "clean>=0.9", "robust>=0.45" (under the worst attack at the training radius) or
        "robust.low@linf:8/255>=0.4" (the lower end of the interval, at this radius); return the checks if all are met.

        Raises:
            RequirementError: one is not met, or the interval cannot tell; the message has what was measured.
            ValueError: a requirement cannot be read, or what it is about was not measured.
        """
        from robusttune.measuring.gate import checks_of  # here, as it imports this module

        return checks_of(self, *requirements).enforce()

    def save(self, path: PathLike) -> Path:
        """Write one JSON object a line, the facts first, with checksums of all that is written.

        The answers to single images go to `<name>.images.json` beside it, the pictures of failures to
        `<name>.failures.npz`. Each file is replaced only after its new content is complete, that of the numbers last.
        A number that is NaN or infinite is written as null, as JSON has none of these, and is read as NaN.

        Raises:
            OSError: a file cannot be written, such as on a full disk.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [finite(numbers_of(record)) for record in self]
        facts = finite(self.facts)
        beside = {
            answers_path(path): self._answers().encode() if self.hashes else None,
            failures_path(path): failures.as_bytes(self.failures) if self.failures else None,
        }
        sums = {"numbers": numbers_checksum(facts, rows)}
        for other, content in beside.items():
            if content is None:  # a file left by other Records of this name would be read as part of these
                other.unlink(missing_ok=True)
            else:
                write_bytes(other, content)
                sums[kind_of(other)] = digest([content])
        lines = [{"facts": facts, CHECKSUMS: sums}, *rows]
        write_text(path, "".join(to_json(line) + "\n" for line in lines))
        return path

    def _answers(self) -> str:
        """Return the answers to single images as JSON."""
        right = [None if record.right is None else "".join("01"[answer] for answer in record.right) for record in self]
        answers = [record.answers for record in self]
        return json.dumps({"hashes": self.hashes, "labels": self.labels, "right": right, "answers": answers})

    @classmethod
    def load(cls, path: PathLike) -> "Records":
        """Read the files that `save` wrote.

        A damaged file of answers to single images, or of pictures, is left out with a warning; the numbers stay.

        Args:
            path: the file; or a folder that `evaluate` wrote to, or the folder of a run with one such folder in it.

        Raises:
            ValueError: the file is damaged or of another kind, or the folder holds none, or several.
        """
        place = check_path("path", path)
        path = file_at(place)
        try:
            records = cls._read(path)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} holds no Records ({type(error).__name__}: {error}): pass the records.jsonl of evaluate's out=, or "
                "what Records.save wrote, with the files beside it"
            ) from error
        if path.parent.parent == place:
            check_weights(records.facts, place, path.parent)
        return records

    @classmethod
    def _read(cls, path: Path) -> "Records":
        rows = [from_json(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
        first: dict[str, Any] = next((row for row in rows if "facts" in row), {})
        facts, sums = first.get("facts", {}), first.get(CHECKSUMS)
        rows = [row for row in rows if "facts" not in row]
        if sums is not None and sums["numbers"] != numbers_checksum(facts, rows):
            raise ValueError("the numbers do not match their checksum, so the file is damaged or was edited")
        beside = from_json(read_beside(answers_path(path), sums) or "{}")
        pictures = read_beside(failures_path(path), sums)
        none = [None] * len(rows)  # files of earlier versions hold no answers
        records = [
            Record(
                **{**row, "value": number_of(row["value"]), "interval": tuple(map(number_of, row["interval"]))},
                right=right and tuple(answer == "1" for answer in right),
                answers=answers and tuple(answers),
            )
            for row, right, answers in zip(rows, beside.get("right", none), beside.get("answers", none), strict=True)
        ]
        return cls(
            records,
            facts=facts,
            hashes=beside.get("hashes", ()),
            labels=beside.get("labels", ()),
            failures=() if pictures is None else failures.load(io.BytesIO(pictures)),
        )

    def _repr_markdown_(self) -> str:
        return words_as_text(self).table()

    def _repr_html_(self) -> str:
        return html_table(HEAD, _rows(self), right=[METRIC], below=caveat(self.facts))


def words_as_text(records: Records) -> Records:
    """Return Records whose words, which may come from elsewhere, are text in Markdown."""
    kept = (
        replace(
            record,
            evaluation=as_text(record.evaluation),
            metric=as_text(record.metric),
            setting=texts_in(record.setting),
        )
        for record in records
    )
    facts = texts_in(records.facts)
    return Records(kept, facts=facts, hashes=records.hashes, labels=records.labels, failures=records.failures)


def records_of(source: "Records | PathLike") -> Records:
    """Return Records as they are, or read them as `Records.load` does; a ValueError for anything else."""
    if isinstance(source, str | os.PathLike):
        return Records.load(source)
    if not isinstance(source, list) or not all(isinstance(each, Record) for each in source):
        raise ValueError(
            f"{shown(source)} was passed, but what evaluate returned is needed, or the folder that it wrote to"
        )
    return source if isinstance(source, Records) else Records(source)


def name_of(place: PathLike) -> str:
    """Name the model whose Records are at a path, by its folder; by that of the run where the evaluation lies inside one."""
    path = check_path("path", place)
    folder = (path if path.is_dir() else path.parent).resolve()
    inside = (folder.parent / RUN).exists() and not (folder / RUN).exists()
    return (folder.parent if inside else folder).name or "model"


def _rows(records: Records) -> list[list[object]]:
    return [cells_of(record, records.classes) for record in records]
