"""What is read back of Records is what was written: damage of the numbers is named, damage beside them costs nothing else."""

import json
import math
import random
from dataclasses import asdict
from functools import partial

import pytest
import torch
from torch import nn

import robusttune
from robusttune.evaluations.sweep import sweep
from robusttune.measuring.record import Record
from robusttune.measuring.records import Records
from robusttune.measuring.records_files import numbers_checksum
from robusttune.measuring.report_json import report_json


@pytest.fixture
def saved(tmp_path):
    """Records with answers to single images and pictures of failures, and their file."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))
    images = torch.rand(12, 3, 8, 8)
    records = robusttune.evaluate(
        model,
        [(images, model(images).argmax(1))],
        ["clean", partial(sweep, steps=3)],
        out=tmp_path / "e",
        progress=False,
    )
    assert records.failures
    return records, tmp_path / "e" / "records.jsonl"


def numbers(records):
    return [{**asdict(record), "right": None, "answers": None, "images_key": ""} for record in records]


def test_whole_files_are_read_without_a_word(saved, caplog):
    records, path = saved
    again = Records.load(path)
    assert list(again) == list(records)
    assert again.hashes == records.hashes
    assert len(again.failures) == len(records.failures)
    assert not caplog.records


def test_numbers_that_json_has_none_of_are_null_and_read_as_nan(tmp_path):
    endless = Record("mine", "ratio", math.inf, 3, (math.nan, 1.0), {"k": math.nan})
    records = Records([endless], facts={"seconds": math.nan})
    path = records.save(tmp_path / "new.jsonl")
    strict = {"parse_constant": lambda name: pytest.fail(f"{name} is no JSON")}
    lines = [json.loads(line, **strict) for line in path.read_text().splitlines()]
    assert (lines[1]["value"], lines[1]["interval"], lines[1]["setting"]) == (None, [None, 1.0], {"k": None})
    assert lines[0]["facts"] == {"seconds": None}
    (again,) = Records.load(path)
    assert math.isnan(again.value)
    assert math.isnan(again.interval[0])
    assert again.interval[1] == 1
    report = json.loads(report_json({"a": records}), **strict)
    assert report["models"]["a"]["records"][0]["value"] is None

    rows = [{**lines[1], "value": math.nan, "interval": [math.nan, 1.0]}]  # as versions of before wrote them
    first = {"facts": {}, "checksums": {"numbers": numbers_checksum({}, rows)}}
    old = tmp_path / "old.jsonl"
    old.write_text("".join(json.dumps(line) + "\n" for line in [first, *rows]))
    assert "NaN" in old.read_text()
    assert math.isnan(Records.load(old)[0].value)


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", ["records.images.json", "records.failures.npz"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "of others"])
def test_damage_beside_the_numbers_costs_only_what_was_in_it(name, damage, saved, caplog):
    records, path = saved
    beside = path.with_name(name)
    whole = bytearray(beside.read_bytes())
    if damage == "flipped":
        whole[len(whole) // 2] ^= 4
        beside.write_bytes(whole)
    elif damage == "cut":
        beside.write_bytes(whole[: len(whole) // 2])
    elif damage == "gone":
        beside.unlink()
    else:
        beside.write_bytes(b"another program's")
    again = Records.load(path)
    assert numbers(again) == numbers(records)
    assert name in caplog.text
    assert "is left out, and the numbers are read without it" in caplog.text
    assert (again.hashes == ()) == ("images" in name)
    assert (len(again.failures) == 0) == ("failures" in name)


def test_a_flipped_bit_in_the_numbers_is_never_used_in_silence(saved):
    records, path = saved
    whole, drawn, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[drawn.randrange(len(whole))] ^= 1 << drawn.randrange(8)
        path.write_bytes(damaged)
        try:
            again = Records.load(path)
        except ValueError as error:
            refused += "holds no Records" in str(error)
        else:
            assert numbers(again) == numbers(records)
            assert again.facts == records.facts
    assert refused > 150
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="holds no Records"):
        Records.load(path)


def test_files_of_versions_before_have_no_checksums_and_are_read(saved):
    records, path = saved
    first, *rows = path.read_text().splitlines()
    facts = json.loads(first)
    del facts["checksums"]
    path.write_text("\n".join([json.dumps(facts), *rows]) + "\n")
    assert list(Records.load(path)) == list(records)
