"""How users spell norms, radii and names, and what they read when they misspell them."""

import dataclasses
import importlib
import math
import re

import numpy as np
import pytest
import torch

from robusttune import plugins
from robusttune.augmentations._augment import chosen_augment, names
from robusttune.norms import canonical, default_eps
from robusttune.threat import LossOf, ThreatModel

every_kind = pytest.mark.parametrize(
    "kind", ["norms", "attacks", "objectives", "tasks", "evaluations", "measuring.sections"]
)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("linf", "linf"),
        ("Linf", "linf"),
        ("LINF", "linf"),
        ("L_inf", "linf"),
        ("Linfinity", "linf"),
        ("inf", "linf"),
        (" inf ", "linf"),
        (math.inf, "linf"),
        (np.inf, "linf"),
        ("l2", "l2"),
        ("L2", "l2"),
        ("l_2", "l2"),
        ("2", "l2"),
        (2, "l2"),
        (2.0, "l2"),
    ],
)
def test_spellings_of_norms(spelling, name):
    assert ThreatModel(spelling, 0.1).norm == canonical(spelling) == name
    assert default_eps(spelling, (3, 32, 32)) == default_eps(name, (3, 32, 32))


@pytest.mark.parametrize("norm", ["l3", "", 1, 7.5, -math.inf, math.nan, None, True])
def test_an_unknown_norm_lists_the_known(norm):
    known = ", ".join(plugins.names("norms"))
    for rejected in (lambda: ThreatModel(norm, 0.1), lambda: default_eps(norm, (3, 32, 32))):
        with pytest.raises(ValueError, match=f"unknown norm .*known are {known}"):
            rejected()


def test_a_norm_may_be_an_object():
    geometry, images = plugins.find("norms", "l2"), torch.full((2, 3, 4, 5), 0.5)
    threat, named = ThreatModel(geometry, 0.5), ThreatModel("l2", 0.5)
    assert threat.geometry is geometry
    assert torch.equal(threat.project(images + 0.4, images), named.project(images + 0.4, images))


@pytest.mark.parametrize("eps", [-0.1, -1, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("norm", plugins.names("norms"))
def test_a_radius_is_a_finite_number_of_at_least_zero(norm, eps):
    with pytest.raises(
        ValueError, match=rf"eps is {re.escape(str(eps))}.* finite number of at least 0, in pixel units"
    ):
        ThreatModel(norm, eps)


@pytest.mark.parametrize("eps", ["8/255", None, True, [0.1], 1j])
def test_a_radius_is_a_number(eps):
    with pytest.raises(
        ValueError, match=rf"eps is {re.escape(repr(eps))}, but a number in pixel units.* such as 8/255"
    ):
        ThreatModel("linf", eps)


@pytest.mark.parametrize(("eps", "meant"), [(8, "8/255"), (4.0, "4/255"), (1.5, "1.5/255")])
def test_a_linf_radius_above_one_was_meant_in_255ths(eps, meant):
    with pytest.raises(ValueError, match=rf"pixels span \[0, 1\]: did you mean {meant}\?"):
        ThreatModel("Linf", eps)


@pytest.mark.parametrize("eps", [0, 1, 0.0, np.float32(0.5), np.float64(0.5), np.int64(1)])
def test_radii_of_other_number_types_become_floats(eps):
    assert type(ThreatModel("linf", eps).eps) is float
    assert ThreatModel("linf", eps).eps == eps
    assert ThreatModel("l2", eps * 7).eps == eps * 7


def test_a_threat_is_a_value():
    assert ThreatModel("L2", 0.5) == ThreatModel(2, 0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ThreatModel("l2", 0.5).eps = 1.0


def test_a_loss_carries_labels_and_logits_only_if_given():
    labels = torch.tensor([1, 0])
    plain = LossOf(lambda images: images.sum((1, 2, 3)))
    full = LossOf(plain.per_image, labels=labels, logits_of=torch.sum)
    assert torch.equal(plain(torch.ones(2, 1, 2, 3)), torch.full((2,), 6.0))
    assert (plain.labels, plain.logits_of) == (None, None)
    assert full.labels is labels
    assert full.logits_of is torch.sum


@every_kind
def test_an_unknown_name_lists_the_known(kind):
    known = ", ".join(plugins.names(kind))
    with pytest.raises(
        ValueError, match=f"unknown {kind.rpartition('.')[2][:-1]} 'xyzzy': known are {known}; or pass an object"
    ):
        plugins.find(kind, "xyzzy")


def test_an_unknown_augment_lists_the_known():
    with pytest.raises(ValueError, match=f"unknown augment 'xyzzy': known are {', '.join(names())}"):
        chosen_augment("xyzzy", torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("kind", "written", "meant"),
    [
        ("tasks", "rotations", "rotation"),
        ("tasks", "jigsaws", "jigsaw"),
        ("attacks", "PGD2", None),
        ("norms", "l22", "l2"),
    ],
)
def test_a_near_miss_is_answered_with_the_name_that_was_meant(kind, written, meant):
    with pytest.raises(ValueError, match=f"did you mean '{meant}'" if meant else "known are .*pgd"):
        plugins.find(kind, written)


@every_kind
def test_every_file_exports_the_one_thing_it_is_named_after(kind):
    assert plugins.names(kind)
    for name in plugins.names(kind):
        found = plugins.find(kind, name)
        assert callable(found)
        assert found.__name__ == name
        assert importlib.import_module(f"robusttune.{kind}.{name}").__all__ == [name]
        assert found.__doc__


@every_kind
def test_an_object_is_taken_in_the_place_of_a_name(kind):
    found = plugins.find(kind, plugins.names(kind)[0])
    thing = found() if kind in ("objectives", "tasks") else found
    assert plugins.find(kind, thing) is thing
    assert plugins.instance(kind, thing) is thing or isinstance(thing, type)  # a norm is a class


@pytest.mark.parametrize("kind", [*plugins.FORMS, *plugins.MEMBERS])
def test_an_object_that_lacks_what_its_kind_has_is_refused(kind):
    with pytest.raises(ValueError, match=r"is <object object at .*(is needed|or an object that has them)"):
        plugins.find(kind, object())


@pytest.mark.parametrize("kind", ["objectives", "tasks"])
def test_a_name_stands_for_the_class_called_without_arguments(kind):
    for name in plugins.names(kind):
        assert plugins.instance(kind, name) == plugins.find(kind, name)()
        assert plugins.instance(kind, plugins.find(kind, name)) == plugins.find(kind, name)()


def test_objectives_give_one_loss_per_image_and_say_whether_they_need_clean_logits():
    logits, labels = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1])
    for name in plugins.names("objectives"):
        objective = plugins.instance("objectives", name)
        assert isinstance(objective.needs_clean, bool)
        clean = logits.flip(0) if objective.needs_clean else None
        for answered in (labels, torch.nn.functional.one_hot(labels, 3).float()):
            for loss in (objective.attack_loss(logits, answered, clean), objective.loss(logits, answered, clean)):
                assert loss.shape == (5,)
                assert torch.isfinite(loss).all()
