"""From how many labels on images without labels bring nothing is read from the study."""

from robusttune.training.advice import labels
from robusttune.training.advice.figures import rows


def test_the_limits_are_those_of_the_records(monkeypatch):
    assert labels.limits() == (1_000, 5_000)
    known = [dict(row) for row in rows("labels")]
    for row in known:
        if row["labels"] == 1_000 and row["arm"] == labels.ALONE:
            row["strong"] = 1.0
    monkeypatch.setattr(labels, "rows", lambda group: known)
    assert labels.limits() == (200, 1_000)
