"""The command that measures an NVIDIA card keeps what it has measured, whatever happens; it runs on the CPU here."""

import json
import sys
import types
from pathlib import Path

import pytest
import torch

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


def test_the_floor_of_a_step_counts_what_multiplies_and_what_it_reads_and_writes(gpu):
    from card_floor import floor, work_of
    from torch import nn

    convolution = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    net = nn.Sequential(convolution, nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10, bias=False))
    work = work_of(net, (2, 3, 4, 4), 10)
    # Two images: pixels 96 in all, weights 216, results 256; then weights 1280 and logits 20. Ten passes there and back; in
    # the update the images need no gradient.
    convolved, multiplied = 2 * 256 * 27, 2 * 20 * 128
    assert work["operations"] == 21 * (convolved + multiplied) + convolved + 2 * multiplied
    first, second = 96 + 216 + 256, 256 + 1280 + 20
    assert work["elements"] == 21 * (first + second) + first + 2 * second
    assert work["weights"] == 216 + 16 + 1280
    least = floor({"operations": 4e9, "elements": 3e6, "weights": 1e6}, "bf16", rates={"bf16": 2.0}, bandwidth=11.0)
    assert least == pytest.approx({"operations, ms": 2.0, "memory, ms": 2.0, "limit": "operations", "floor, ms": 2.0})
    more = floor({"operations": 4e9, "elements": 6e6, "weights": 0}, "fp32", rates={"fp32": 4.0}, bandwidth=2.0)
    assert more == pytest.approx({"operations, ms": 1.0, "memory, ms": 12.0, "limit": "memory", "floor, ms": 12.0})


def test_a_row_of_processes_says_how_far_their_weights_differ(gpu):
    from card_processes import row_of

    found = {"backend": "gloo", "steps": 4, "images": [64, 64], "clean": 0.5, "log": []}
    both = [{**found, "seconds": seconds, "weights": {"a": torch.full((2,), seconds)}} for seconds in (1.0, 1.5)]
    row = row_of("two", both)
    assert (row["seconds"], row["weights differ by"], row["images counted"]) == (1.5, 0.5, "64 of 64")
    assert row_of("two", [both[0], both[0]])["weights differ by"] == 0
    assert "weights differ by" not in row_of("one", both[:1])


@pytest.mark.slow
def test_two_processes_end_with_the_same_weights(gpu, tmp_path):
    found = gpu.run("processes", 240, options(tmp_path))
    assert "failed" not in found, found["failed"]
    assert [row["run"].split(",")[0] for row in found["rows"]] == ["two processes"] * 2 + ["one process"] * 2
    assert [row.get("weights differ by") for row in found["rows"]] == [0, 0, None, None]
    assert [row["backend"] for row in found["rows"]] == ["gloo", "gloo", "", ""]
    assert {row["images counted"] for row in found["rows"]} == {"64 of 64"}


def test_processes_that_fail_are_said_to_have_failed(gpu, tmp_path, monkeypatch):
    from card import Scene
    from card_processes import together

    monkeypatch.setattr(sys, "executable", "/bin/false")
    scene = Scene(options(tmp_path, part="processes", seconds=60))
    assert together(scene) == ["torchrun ended with status 1"]
    assert scene.found["rows"] == []
