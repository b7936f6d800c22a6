"""Which class becomes which under attack, counted by hand."""

import robusttune
from robusttune.measuring.record import accuracy
from robusttune.measuring.records import Records

LABELS = [0, 0, 0, 1, 1, 2]
ANSWERS = {"clean": [0, 0, 0, 1, 2, 2], "attack": [1, 1, 0, 2, 2, 2]}


def test_images_that_were_right_are_counted_by_label_and_answer(tmp_path):
    right = {name: [a == b for a, b in zip(answers, LABELS, strict=True)] for name, answers in ANSWERS.items()}
    rows = [
        accuracy("clean", 5, 6, right=right["clean"]),
        accuracy("sweep", 2, 6, {"norm": "linf", "eps": 0.1}, right=right["attack"], answers=ANSWERS["attack"]),
    ]
    facts = {"classes": ["cat", "<b>dog</b>", "cow"], "norm": "linf", "eps": "0.1"}
    records = Records(rows, facts=facts, hashes="abcdef", labels=LABELS)
    text = robusttune.report(records, tmp_path, sections=["confusion"]).read_text(encoding="utf-8")
    assert "3 of 5 images that are right as they are became another class." in text
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    assert rows[1:] == [["cat", "&lt;b>dog&lt;/b>", "2", "66.7%"], ["&lt;b>dog&lt;/b>", "cow", "1", "100.0%"]]
    none = Records([rows_without_answers(row) for row in records], facts=facts, hashes="abcdef", labels=LABELS)
    assert "Confusion" not in robusttune.report({"a": none}, tmp_path, sections=["confusion"]).read_text(
        encoding="utf-8"
    )


def rows_without_answers(record):
    return accuracy(record.evaluation, round(6 * record.value), 6, record.setting, right=record.right)
