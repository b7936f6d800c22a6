"""A finished run goes on with more epochs, steps or seconds; an unfinished one is not given another length."""

import json
import math

import pytest
from short_runs import a_loader, a_model, hardened, same, weights_of

import robusttune
from robusttune.training.schedule import rate_factor

QUICK = {"tasks": None, "steps": 1, "tune": False, "compile": False}


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_finished_run_goes_on_with_more_epochs_and_says_what_that_means(tmp_path, caplog, capsys):
    first = hardened(out=tmp_path / "a", epochs=2, **QUICK)
    start = weights_of(first)
    steps = lines(tmp_path / "a")[-1]["step"]
    caplog.set_level("INFO")
    hardened(out=tmp_path / "a", epochs=5, resume=True, **{**QUICK, "tasks": "none"})
    line = (
        f"the run had finished after 2 epochs and {steps} steps, and goes on to 5 epochs: from here on the learning rate "
        "follows the schedule of this length, with all of eps, so this is not bit for bit a run of this length from its start"
    )
    assert caplog.messages.count(line) == 1
    log = lines(tmp_path / "a")
    assert [each["epoch"] for each in log] == [1, 2, 3, 4, 5]
    rate, taken = log[2]["lr"], log[2]["step"] - 1
    assert rate == pytest.approx(0.2 * rate_factor(taken / (steps // 2 * 5)))
    assert all(each["eps"] == 0.3 for each in log[2:])
    facts = json.loads((tmp_path / "a/run.json").read_text())
    assert facts["arguments"]["epochs"] == 5
    assert facts["continued"][0]["after"] == {"epochs": 2, "steps": steps}
    assert facts["continued"][0]["to"] == {"epochs": 5, "max_steps": None, "time_budget": None}
    caplog.clear()
    again = hardened(out=tmp_path / "a", epochs=5, resume=True, **QUICK)  # it has finished once more
    assert not [each for each in caplog.messages if "goes on" in each]
    assert not same(start, weights_of(again))
    with pytest.raises(
        ValueError, match=r"was continued when it had finished after .* steps, so no single run repeats it"
    ):
        robusttune.replay(tmp_path / "a", a_model(), a_loader(), progress=False)


@pytest.mark.slow
def test_killed_after_it_went_on_it_ends_in_the_same_weights(tmp_path):
    class Killed(Exception):
        pass

    def kill(facts):
        if facts["epoch"] == 2:
            raise Killed

    for name in ("a", "b"):
        hardened(out=tmp_path / name, epochs=1, eps_ramp=True, **QUICK)
    whole = hardened(out=tmp_path / "a", epochs=4, resume=True, eps_ramp=True, **QUICK)
    with pytest.raises(Killed):
        hardened(out=tmp_path / "b", epochs=4, resume=True, on_epoch=kill, eps_ramp=True, **QUICK)
    with pytest.raises(
        ValueError, match=r"epochs was 4 and is 6.*is not finished, and only a finished one can be given"
    ):
        hardened(out=tmp_path / "b", epochs=6, resume=True, eps_ramp=True, **QUICK)
    resumed = hardened(out=tmp_path / "b", epochs=4, resume=True, eps_ramp=True, **QUICK)
    assert same(weights_of(whole), weights_of(resumed))
    assert lines(tmp_path / "b")[-1]["eps"] == 0.3


@pytest.mark.parametrize(
    ("before", "now"), [({"max_steps": 3}, {"max_steps": 13}), ({"time_budget": 1e-9}, {"time_budget": None})]
)
def test_steps_and_seconds_likewise(before, now, tmp_path):
    hardened(out=tmp_path, epochs=2, **QUICK, **before)
    hardened(out=tmp_path, epochs=2, resume=True, **QUICK, **now)
    assert lines(tmp_path)[-1]["step"] > lines(tmp_path)[0]["step"]


def test_pretraining_goes_on_too_and_a_named_scheduler_is_that_of_the_new_length(tmp_path):
    def pretrained(**settings):
        robusttune.pretrain(
            a_model(),
            a_loader(),
            tasks="rotation",
            out=tmp_path,
            scheduler="cosine",
            lr=0.1,
            progress=False,
            **settings,
        )

    pretrained(epochs=1)
    pretrained(epochs=4, resume=True)
    assert lines(tmp_path)[1]["lr"] == pytest.approx(0.1 * (1 + math.cos(math.pi / 4)) / 2, rel=1e-3)


def test_what_cannot_go_on_is_refused_in_a_sentence(tmp_path):
    hardened(out=tmp_path, epochs=2, max_steps=3, **QUICK)
    with pytest.raises(ValueError, match="has ended by max_steps=3, too: pass more of that as well"):
        hardened(out=tmp_path, epochs=4, max_steps=3, resume=True, **QUICK)
    with pytest.raises(ValueError, match=r"other arguments \(epochs was 2 and is 1\): pass the same ones"):
        hardened(out=tmp_path, epochs=1, max_steps=3, resume=True, **QUICK)
    with pytest.raises(
        ValueError, match=r"other arguments \(epochs was 2 and is 4, lr was None and is 0.2\): pass the same"
    ):
        hardened(out=tmp_path, epochs=4, max_steps=3, lr=0.2, resume=True, **QUICK)
    assert len(lines(tmp_path)) == 1
