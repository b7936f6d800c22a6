"""The command that measures an NVIDIA card keeps what it has measured, whatever happens; it runs on the CPU here."""

import json
import sys
import types
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = set(sys.modules)
    import gpu

    yield gpu
    for name in set(sys.modules) - before:  # such as "attacks", a name that others may use
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent == BENCHMARKS:
            del sys.modules[name]


def options(folder, **more):
    return types.SimpleNamespace(**{"out": folder, "device": "cpu", "tiny": True, "data": None, **more})


def test_a_part_leaves_files_of_other_benchmarks_alone(gpu, tmp_path):
    (tmp_path / "ceilings.json").write_text("of another benchmark")
    found = gpu.run("ceilings", 120, options(tmp_path))
    assert "failed" not in found, found["failed"]
    assert [path.name for path in tmp_path.iterdir()] == ["ceilings.json"]
    assert (tmp_path / "ceilings.json").read_text() == "of another benchmark"
    assert len(found["rows"]) == 4


def test_a_part_that_dies_in_silence_is_said_to_have_failed(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    found = gpu.run("ceilings", 60, options(tmp_path))
    assert found["failed"] == ["ended with status 1 and said nothing"]
    assert "ended with status 1" in gpu.page({"ceilings": found}, "a card")


def test_parts_of_an_earlier_run_name_its_machine(gpu, tmp_path):
    file = tmp_path / "gpu.json"
    assert gpu.kept_parts(file) == {}
    file.write_text(json.dumps({"about": "card A\n\n`command A`", "parts": {"tests": {"rows": [], "seconds": 1.0}}}))
    parts = gpu.kept_parts(file)
    assert "- of an earlier run: card A  `command A`" in gpu.page(parts, "card B")
    file.write_text(json.dumps({"about": "card B", "parts": parts}))
    assert gpu.kept_parts(file)["tests"]["of an earlier run"] == "card A\n\n`command A`"


def test_a_summary_says_how_many_turns_it_is_of_and_compares_with_no_one_who_failed(gpu):
    import card_steps

    alone = card_steps.summary([2.0, 1.0, 3.0], [], 10)
    assert alone == {"turns": 3, "images/s": 5.0, "ms": 2000.0}
    compared = card_steps.summary([2.0, 1.0, 3.0], [1.0, 1.0, 1.0], 10)
    assert compared[f"time against {card_steps.MINE}"] == "2.00 (1.00–3.00)"
