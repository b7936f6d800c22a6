"""How requirements and margins are read: what people write is understood, or refused in words."""

import pytest

from robusttune.measuring.requirements import METRICS, Requirement, margins_of, requirements_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("robust>=0.45", Requirement("robust>=0.45", "robust", 0.45)),
        (" clean >= 9/10 ", Requirement(" clean >= 9/10 ", "clean", 0.9)),
        ("clean>=1", Requirement("clean>=1", "clean", 1.0)),
        ("robust.low>=0.4", Requirement("robust.low>=0.4", "robust", 0.4, low=True)),
        (
            "robust.low@Linf:8/255>=0.4",
            Requirement("robust.low@Linf:8/255>=0.4", "robust", 0.4, True, "linf", 8 / 255),
        ),
        ("certified@l2:1e-1>=.5", Requirement("certified@l2:1e-1>=.5", "certified", 0.5, False, "l2", 0.1)),
    ],
)
def test_a_requirement_is_read(text, expected):
    assert requirements_of([text]) == requirements_of(text) == [expected]


def test_a_margin_is_read():
    assert margins_of(["robust:0.01", "clean: 2/100"]) == [
        Requirement("robust:0.01", "robust", 0.01),
        Requirement("clean: 2/100", "clean", 0.02),
    ]
    assert margins_of("robust@l2:0.5:0.01") == [Requirement("robust@l2:0.5:0.01", "robust", 0.01, norm="l2", eps=0.5)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("robust", r"cannot be read: write METRIC>=SHARE.*in quotes in a shell, as > alone writes to a file"),
        ("robust>0.45", r"cannot be read \('>' is not >=\)"),
        ("robust<=0.45", r"\('<=' is not >=\)"),
        ("", "cannot be read"),
        ("robust>=0.45 clean>=0.9", "cannot be read"),
        ("robust@8/255>=0.4", "cannot be read"),
        ("rubust>=0.45", r"names 'rubust' \(did you mean 'robust'\?\), but what can be required is clean, balanced"),
        ("agreement>=0.45", "names 'agreement'"),
        ("robust>=45", "has a percentage, but shares from 0 to 1 are needed: write 0.45"),
        ("robust>=45%", "write 0.45"),
        ("robust>=0.45%", "write 0.0045"),
        ("robust>=450", "has 450, but a share above 0 and at most 1 is needed"),
        ("robust>=0", "has 0, which always holds, but a share above 0"),
        ("robust>=-0.1", "has -0.1, but a share"),
        ("robust>=nan", "'nan' is no finite number"),
        ("robust>=inf", "'inf' is no finite number"),
        ("robust>=high", "'high' is no finite number"),
        ("robust@l3:0.5>=0.4", "unknown norm 'l3'"),
        ("robust@l2:x>=0.4", "'x' is no finite number"),
        ("robust@l2:0>=0.4", "is at radius 0, which is no attack: write clean"),
        ("clean@l2:0.5>=0.4", "names a radius, but clean has none: leave l2:… out"),
        ("certified>=0.4", "names no radius: write it as certified@l2:0.25>=0.5"),
    ],
)
def test_a_requirement_that_does_not_fit_is_refused_in_words(text, says):
    with pytest.raises(ValueError, match=says):
        requirements_of([text])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("robust", "cannot be read: write METRIC:SHARE, such as 'robust:0.01'"),
        ("robust>=0.4", "cannot be read"),
        ("robust:1", "allows any loss: write the largest share that may be lost, such as 0.01"),
        ("robust:2", "has a percentage.*write 0.02"),
        ("robust:0", "has 0, but a share above 0"),
        ("balanced:0.1", "is of balanced, but two models are compared image by image, by clean or robust"),
        ("robust.low:0.1", "is of robust.low, but two models are compared image by image"),
        ("robus:0.01", r"did you mean 'robust'\?"),
    ],
)
def test_a_margin_that_does_not_fit_is_refused_in_words(text, says):
    with pytest.raises(ValueError, match=says):
        margins_of([text])


def test_nothing_to_require_is_refused():
    with pytest.raises(ValueError, match="require= is empty, so that nothing would be checked"):
        requirements_of([])
    with pytest.raises(ValueError, match="fail_if_worse= is empty"):
        margins_of([])


def test_metrics_are_those_that_evaluations_measure():
    from robusttune import plugins

    assert {evaluation for evaluation, _ in METRICS.values()} - {""} <= set(plugins.names("evaluations"))
