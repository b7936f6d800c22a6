"""The gate on measured accuracies, against robust accuracies that are known in closed form, and what it refuses."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from linear_model import distances, linear
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import robusttune
from robusttune import Records
from robusttune.evaluations.strong import strong
from robusttune.evaluations.sweep import sweep
from robusttune.measuring.checks import Checks, RequirementError, Verdict
from robusttune.measuring.gate import check_planned, checks_of, worst_case
from robusttune.measuring.record import accuracy, balanced
from robusttune.measuring.requirements import requirements_of
from robusttune.threat import ThreatModel

EPS = 0.05
RADII = [partial(sweep, norms=["linf"], eps=[EPS / 2, EPS], steps=20)]


def measured(which=("clean", *RADII), **settings):
    """Records of a linear model at linf 0.05, and the share of images that are further than that from the boundary."""
    model, images, labels = linear()
    loader = DataLoader(TensorDataset(images, labels), 30)
    chosen = {"norm": "linf", "eps": EPS, "progress": False, **settings}
    records = robusttune.evaluate(model, loader, list(which), **chosen)
    far = distances(model, images, labels, "linf")
    return records, float((far > EPS).float().mean()), float((far > 0).float().mean())


def test_robust_is_the_accuracy_that_no_attack_at_the_training_radius_breaks():
    records, robust, clean = measured()
    assert 0 < robust < clean
    checks = records.require(f"robust>={robust - 0.01}", f"clean>={clean - 0.01}")
    assert [check.value for check in checks] == pytest.approx([robust, clean])
    assert checks.verdict is Verdict.MET
    assert checks.code == 0
    assert checks[0].what == "accuracy under the worst of 1 attacks (sweep) at linf eps 0.05"
    assert checks[0].interval == records.where("sweep", eps=EPS)[0].interval
    assert checks[0].images == 60
    (half,) = checks_of(records, "robust@linf:0.025>=0.01")
    assert half.value == records.where("sweep", eps=EPS / 2)[0].value > robust


def test_a_requirement_that_is_not_met_raises_with_the_numbers():
    records, robust, _ = measured()
    with pytest.raises(
        RequirementError, match=r"not met \(1 of 2 requirements met\): robust>=0.99: .* at linf eps 0.05 is"
    ) as e:
        records.require("robust>=0.99", "clean>=0.01")
    assert f"is {100 * robust:.2f}% (95% interval " in str(e.value)
    assert "60 images), and it must be at least 99.00%" in str(e.value)
    assert "clean>=0.01" not in str(e.value)
    assert [check.verdict for check in e.value.checks] == [Verdict.NOT_MET, Verdict.MET]
    assert e.value.checks.code == 3


def test_the_worst_case_is_over_all_evaluations():
    """An image that either of two attacks fools is not robust, however good each accuracy is."""
    hashes, at = [f"{number}" for number in range(4)], {"norm": "linf", "eps": 0.1}
    answers = [(True, True, False, True), (False, True, True, True), (True, False, False, False)]
    rows = [
        accuracy("sweep", 3, 4, {**at, "attack": "apgd"}, right=answers[0]),
        accuracy("mine", 3, 4, {**at, "attack": "other"}, right=answers[1]),
        accuracy("sweep", 1, 4, {"norm": "linf", "eps": 0.2}, right=answers[2]),
    ]
    records = Records(rows, hashes=hashes, facts={"threat": "linf eps 0.1", "eps from": "passed"})
    (check,) = checks_of(records, "robust>=0.6")
    assert (check.value, check.verdict) == (0.5, Verdict.NOT_MET)
    assert "the worst of 2 attacks (sweep, mine)" in check.what


def test_a_model_and_its_export_are_not_taken_for_one_model_under_two_attacks():
    at = {"norm": "linf", "eps": 0.1, "images": "found on the original"}
    rows = [
        accuracy("export", 1, 2, {"model": name, **at}, right=[name == "original", True])
        for name in ("original", "exported")
    ]
    with pytest.raises(ValueError, match=r"is at linf eps 0\.1, but no attack was measured there"):
        checks_of(Records(rows, hashes=["0", "1"]), "robust@linf:0.1>=0.1")


@pytest.mark.parametrize(
    ("right", "limit", "value", "low"),
    [
        (45, "0.45", "met", "cannot tell"),  # exactly at the limit
        (44, "0.45", "not met", "cannot tell"),
        (60, "0.45", "met", "met"),
        (30, "0.45", "not met", "not met"),
    ],
)
def test_the_value_counts_or_the_lower_end_of_the_interval(right, limit, value, low):
    records = Records([accuracy("clean", right, 100)])
    checks = checks_of(records, f"clean>={limit}", f"clean.low>={limit}")
    assert [check.verdict.value for check in checks] == [value, low]
    held = checks[0].interval[0] < 0.45 <= checks[0].interval[1]
    assert ("other images of the same kind may decide otherwise" in checks[0].says) == held
    assert ("more images are needed to tell" in checks[1].says) == (low == "cannot tell")
    assert checks_of(records, f"clean.low>={limit}").code == {"met": 0, "not met": 3, "cannot tell": 4}[low]


def test_a_measurement_that_cannot_tell_does_not_pass():
    with pytest.raises(RequirementError, match=r"cannot tell \(0 of 1 requirements met\)"):
        Records([accuracy("clean", 90, 100)]).require("clean.low>=0.9")
    assert Checks([]).verdict is Verdict.MET


def test_sanity_checks_that_failed_leave_robustness_open():
    records, robust, _ = measured()
    doubt = replace(accuracy("sanity", 1, 60), metric="noise beats attack", setting={"ok": False, "says": "…"})
    passed = replace(doubt, metric="other", setting={"ok": True, "says": "…"})
    (sure,) = checks_of(Records([*records, passed], facts=records.facts), f"robust>={robust / 2}")
    assert sure.verdict is Verdict.MET
    (check,) = checks_of(Records([*records, doubt], facts=records.facts), f"robust>={robust / 2}")
    assert check.verdict is Verdict.CANNOT_TELL
    assert "sanity speaks against believing this number: noise beats attack" in check.says
    (clean, low) = checks_of(Records([*records, doubt], facts=records.facts), "clean>=0.01", "robust>=0.99")
    assert (clean.verdict, low.verdict) == (Verdict.MET, Verdict.NOT_MET)


def test_a_radius_that_nobody_named_is_refused():
    records, *_ = measured(eps=None)
    assert records.facts["eps from"] == "customary"
    with pytest.raises(ValueError, match=r"radius of the training, which is not known here.*'robust@linf:8/255>=0.4'"):
        records.require("robust>=0.4")
    with pytest.raises(ValueError, match=r"is at l2 eps 0.5, but no attack was measured there"):
        records.require("robust@l2:0.5>=0.4")
    assert measured()[0].facts["eps from"] == "passed"
    with pytest.raises(ValueError, match="which is not known here"):
        Records(list(records)).require("robust>=0.4")


def test_noise_and_a_first_look_are_no_attack():
    records, *_ = measured(which=["clean", "quick", partial_noise()])
    with pytest.raises(ValueError, match=r"is at linf eps 0.05, but no attack was measured there: evaluate with sweep"):
        records.require("robust>=0.1")


def partial_noise():
    from robusttune.evaluations.noise import noise

    return partial(noise, eps=[EPS])


def test_what_was_not_measured_is_refused():
    records, *_ = measured(which=RADII)
    for text, says in [
        ("clean>=0.5", "needs the accuracy of clean, which was not measured: evaluate with clean"),
        ("corruptions>=0.5", "needs the accuracy of corruptions, which was not measured"),
        ("certified@l2:0.25>=0.5", "needs the certified accuracy of certified at l2 eps 0.25, which was not measured"),
        ("robust@linf:0.04>=0.5", r"no attack was measured there \(attacks were at linf eps 0.025, linf eps 0.05\)"),
    ]:
        with pytest.raises(ValueError, match=says):
            records.require(text)
    with pytest.raises(ValueError, match="needs the answer to each image, which these Records do not hold"):
        worst_case(
            Records([replace(each, right=None) for each in records], facts=records.facts),
            *requirements_of("robust>=0.4"),
        )


def test_numbers_that_are_no_shares_are_refused():
    one = accuracy("clean", 1, 2)
    for wrong in (
        replace(one, value=float("nan")),
        replace(one, interval=(0.1, float("nan"))),
        replace(one, value=45.0),
    ):
        with pytest.raises(
            ValueError, match=r"cannot be checked: the measured value is .* a share from 0 to 1 is needed"
        ):
            Records([wrong]).require("clean>=0.4")
    with pytest.raises(ValueError, match="is about one number, but clean was measured 2 times"):
        Records([one, accuracy("clean", 2, 2)]).require("clean>=0.4")


def test_agreement_is_no_accuracy():
    model, images, _ = linear()
    records = robusttune.evaluate(model, [images], "clean", progress=False)
    with pytest.raises(ValueError, match="requirements are of accuracy, but these images have no labels"):
        records.require("clean>=0.1")
    with pytest.raises(ValueError, match="requirements are of accuracy"):
        Records(list(records)).require("clean>=0.1")


def test_other_metrics_can_be_required():
    from robusttune.evaluations.corruptions import corruptions

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    batch = torch.rand(12, 1, 8, 8), torch.arange(12) % 3
    families = partial(corruptions, names=["gaussian_noise", "contrast"], severities=[1])
    records = robusttune.evaluate(model, [batch], ["clean", families], progress=False)
    checks = checks_of(records, "balanced>=0.01", "worst_class>=0.01", "corruptions>=0.01")
    over = next(each for each in records.where("corruptions", over="all") if each.metric == "accuracy")
    assert [check.value for check in checks] == [records[1].value, records[2].value, over.value]
    assert checks[2].what == "accuracy of corruptions, mean over all corruptions"
    assert checks[0].what == "balanced accuracy on unchanged images"


TRAINED = ThreatModel("linf", EPS)


@pytest.mark.parametrize(
    ("text", "planned", "trained", "says"),
    [
        ("clean>=0.5", {"sweep": [TRAINED]}, TRAINED, "needs the evaluation clean, but which= names sweep: add clean"),
        ("corruptions>=0.5", {"clean": None}, TRAINED, "needs the evaluation corruptions"),
        ("robust>=0.5", {"clean": None}, TRAINED, "is at linf eps 0.05, but which= names clean, which do not attack"),
        ("robust>=0.5", {"sweep": [TRAINED]}, None, "radius of the training, which is not known here"),
        ("robust@l2:1>=0.5", {"sweep": [TRAINED]}, TRAINED, "is at l2 eps 1, but which= attacks at linf eps 0.05"),
        ("robust>=0.5", {"quick": None, "noise": None}, TRAINED, "names quick, noise, which do not attack"),
    ],
)
def test_what_will_not_be_measured_is_refused_before(text, planned, trained, says):
    with pytest.raises(ValueError, match=says):
        check_planned(requirements_of(text), planned, trained)


def test_what_will_be_measured_is_accepted_before():
    wanted = requirements_of(["robust>=0.5", "robust@linf:0.05>=0.4", "clean>=0.5"])
    check_planned(wanted, {"clean": None, "sweep": [ThreatModel("l2", 1.0), TRAINED]}, TRAINED)
    check_planned(requirements_of("robust@l2:3>=0.5"), {"somebody_elses": None}, None)


def test_evaluations_say_at_which_radii_they_attack():
    from robusttune.evaluations.autoattack import autoattack
    from robusttune.measuring.passes import threats_of
    from robusttune.measuring.subject import Subject

    model, images, _ = linear()
    subject = Subject(model, None, TRAINED, (), tuple(images.shape[1:]), 2, "cpu")
    for evaluation in (strong, autoattack):
        assert threats_of(evaluation, subject) == [TRAINED]
        assert threats_of(partial(evaluation, eps=0.1), subject) == [ThreatModel("linf", 0.1)]
    swept = threats_of(sweep, subject)
    assert TRAINED in swept
    assert {threat.norm for threat in swept} == {"linf", "l2"}
    assert threats_of(RADII[0], subject) == [ThreatModel("linf", EPS / 2), TRAINED]
    records, *_ = measured(which=[*RADII, strong])
    assert {(each.setting["norm"], each.setting["eps"]) for each in records} == {("linf", EPS / 2), ("linf", EPS)}


def test_noise_alone_is_no_attack_and_an_attack_without_answers_is_not_left_out():
    at = {"norm": "linf", "eps": 0.1, "attack": "mine"}
    unseen = accuracy("mine", 10, 100, at)
    for evaluation in ("noise", "sweep"):
        seen = accuracy(evaluation, 95, 100, at, right=[True] * 95 + [False] * 5)
        records = Records(
            [seen, unseen], facts={"threat": "linf eps 0.1", "eps from": "passed"}, hashes=list("ab" * 50)
        )
        with pytest.raises(ValueError, match="needs the answer to each image, which these Records do not hold of mine"):
            records.require("robust>=0.9")


def test_a_mean_that_is_the_limit_but_for_rounding_is_met():
    record = balanced("clean", [(9, 10)] * 9)
    assert record.value < 0.9
    assert Records([record]).require("balanced>=0.9").verdict is Verdict.MET
