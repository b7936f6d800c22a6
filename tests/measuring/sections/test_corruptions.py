"""Accuracy by corruption and severity, one table for each way in which the corruptions were made."""

import robusttune
from robusttune.measuring.record import accuracy
from robusttune.measuring.records import Records


def rows(protocol, right):
    """Records of one corruption at two severities, of ten images, as `corruptions` returns them."""
    setting = {"protocol": protocol, "seed": 0}
    single = [
        accuracy("corruptions", count, 10, {"corruption": "fog", "severity": severity, **setting})
        for severity, count in right.items()
    ]
    means = [{"corruption": "fog"}, {"over": "weather"}, {"over": "all"}]
    count, images = sum(right.values()), 10 * len(right)
    return [*single, *(accuracy("corruptions", count, images, {**mean, **setting}) for mean in means)]


def cells(text):
    """The last cells of each row of fog, in the order of the tables."""
    return [[cell.strip() for cell in line.split("|")[2:-1]] for line in text.splitlines() if line.startswith("| fog")]


def test_numbers_of_one_protocol_do_not_stand_under_another(tmp_path):
    records = Records([*rows("8 bits", {1: 9, 5: 5}), *rows("JPEG", {1: 7, 5: 1})])
    text = robusttune.report({"a": records}, tmp_path, sections=["corruptions", "verdict"]).read_text(encoding="utf-8")
    assert text.index("**a (1)**, 8 bits.") < text.index("| fog") < text.index("**a (2)**, JPEG.")
    assert cells(text) == [["90.0%", "50.0%", "70.0%"], ["70.0%", "10.0%", "40.0%"]]
    assert "“a” 70.0% (48.1 to 85.5; 8 bits), “a” 40.0% (21.9 to 61.3; JPEG)." in text
    alone = robusttune.report({"a": Records(records[:5])}, tmp_path, sections=["corruptions", "verdict"])
    assert "**a**, 8 bits." in alone.read_text(encoding="utf-8")
    assert "“a” 70.0% (48.1 to 85.5)." in alone.read_text(encoding="utf-8")


def test_means_over_different_severities_are_no_mean_of_the_row(tmp_path):
    records = Records([*rows("8 bits", {1: 9}), *rows("8 bits", {5: 5})])
    text = robusttune.report(records, tmp_path, sections=["corruptions"]).read_text(encoding="utf-8")
    assert cells(text) == [["90.0%", "50.0%", "–"]]
