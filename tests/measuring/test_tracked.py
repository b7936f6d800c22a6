"""Records in a tracker: the names of metrics, and a whole evaluation read back from TensorBoard's own file."""

import sys
from functools import partial

import pytest
from linear_model import linear

import robusttune
from robusttune import Records
from robusttune.evaluations.sweep import sweep
from robusttune.measuring.record import accuracy
from robusttune.measuring.tracked import metrics_of


def test_metrics_have_names_that_stay():
    at = {"norm": "linf", "eps": 8 / 255}
    strong = [accuracy("strong", 2, 4, {**at, "attack": name}, right=[True, True, False, False]) for name in ("a", "b")]
    swept = accuracy("sweep", 2, 4, at, right=[False, True, True, False])
    records = Records(
        [accuracy("clean", 3, 4), swept, *strong], facts={"threat": "linf eps 0.0313725", "eps from": "passed"}
    )
    metrics = metrics_of(records)
    assert [name for name in metrics if not name.endswith(("/low", "/high"))] == [
        "clean/accuracy",
        "sweep/accuracy/linf/0.03137",
        "strong/accuracy/linf/0.03137/a",
        "strong/accuracy/linf/0.03137/b",
        "robust/accuracy",
    ]
    assert metrics["robust/accuracy"] == 0.25
    assert (metrics["clean/accuracy/low"], metrics["clean/accuracy/high"]) == records[0].interval
    assert "robust/accuracy" not in metrics_of(Records(list(records)))  # of which nobody knows the radius
    one_alone = Records([swept], facts={"threat": "linf eps 0.5", "eps from": "passed"})
    assert "robust/accuracy" not in metrics_of(one_alone)


def test_metrics_that_differ_in_any_setting_have_different_names():
    at = {"norm": "linf", "eps": 8 / 255, "attack": "apgd"}
    swept = [accuracy("sweep", number, 4, {**at, "steps": steps}) for number, steps in ((2, 50), (1, 100))]
    metrics = metrics_of(Records(swept))
    assert metrics["sweep/accuracy/linf/0.03137/apgd/steps 50"] == 0.5
    assert metrics["sweep/accuracy/linf/0.03137/apgd/steps 100"] == 0.25


def test_agreement_is_not_logged_as_accuracy():
    model, images, _ = linear()
    records = robusttune.evaluate(
        model, [images], ["clean", partial(sweep, steps=3)], norm="linf", eps=0.05, progress=False
    )
    assert not [name for name in metrics_of(records) if "accuracy" in name]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_has_numbers_settings_and_the_report(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model, images, labels = linear()
    records = robusttune.evaluate(
        model, [(images, labels)], "clean", norm="linf", eps=0.05, log="tensorboard", out=tmp_path, progress=False
    )
    written = EventAccumulator(str(tmp_path / "robusttune"), size_guidance={"tensors": 0}).Reload()
    (value,) = written.Scalars("clean/accuracy")
    assert value.value == pytest.approx(records[0].value)
    (page,) = written.Tensors("report/report.md/text_summary")
    assert b"# Robustness report" in page.tensor_proto.string_val[0]
    (facts,) = written.Tensors("settings/measured/text_summary")
    assert records.facts["model"].encode() in facts.tensor_proto.string_val[0]


def test_a_report_that_cannot_be_made_is_said_before(monkeypatch):
    class Tracker:
        def log(self, values, step):
            """Keep nothing."""

        finish = log

    monkeypatch.setitem(sys.modules, "markdown", None)
    with pytest.raises(ImportError, match=r"pip install 'robusttune\[report\]'"):
        robusttune.evaluate(linear()[0], None, "clean", log=Tracker(), progress=False)


def test_an_evaluation_that_fails_ends_the_run():
    class Tracker:
        logged, ended = [], 0

        def log(self, values, step):
            self.logged.append(values)

        def finish(self):
            Tracker.ended += 1

    def fails(subject):
        raise RuntimeError("no more power")

    model, images, labels = linear()
    with pytest.raises(RuntimeError, match="no more power"):
        robusttune.evaluate(model, [(images, labels)], fails, log=Tracker(), progress=False)
    assert (Tracker.ended, Tracker.logged) == (1, [])
