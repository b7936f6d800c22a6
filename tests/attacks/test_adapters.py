"""Attacks of torchattacks, foolbox and adv-lib: against ours, in the ball, in harden and evaluate, and what is refused."""

import sys
from functools import partial

import numpy as np
import pytest
import torch
from attack_problems import FOREIGN, LinearProblem, attack_named, classification, generator, small_problem
from guarded import GOOD, everything, small_model
from torch import nn

import robusttune
from robusttune import plugins
from robusttune.evaluations.sweep import sweep
from robusttune.integration.judge import Judge
from robusttune.threat import ThreatModel

EXTRA = {"torchattacks": r"pip install 'robusttune\[torchattacks\]'", "foolbox": r"pip install 'robusttune\[foolbox\]'"}
SETTINGS = {"pgd_linf": {"steps": 80}, "fab": {"n_iter": 20}}
every_package = pytest.mark.parametrize("package", FOREIGN)


@pytest.mark.parametrize(
    ("package", "norm", "settings"),
    [
        ("torchattacks", "linf", {"name": "PGD", "random_start": False}),
        ("torchattacks", "l2", {"name": "PGDL2", "random_start": False}),
        ("foolbox", "linf", {"random_start": False}),
        ("foolbox", "l2", {"random_start": False}),
        ("foolbox", "l2", {"name": "L2BasicIterativeAttack"}),
        ("adv_lib", "linf", {"name": "pgd_linf", "random_start": False}),
    ],
)
def test_their_pgd_finds_the_images_that_ours_does(package, norm, settings):
    _, images, loss_of = small_problem()
    threat, steps = ThreatModel(norm, {"linf": 0.3, "l2": 1.5}[norm]), {"steps": 7, "step_size": 0.04}
    ours = attack_named("pgd")(loss_of, images, threat, generator=generator(), random_start=False, **steps)
    theirs = attack_named(package)(loss_of, images, threat, generator=generator(), **settings, **steps)
    # adv-lib gives the last of the images that fool before its last step, and those that it cannot fool as they were.
    if package == "adv_lib":
        before = attack_named("pgd")(
            loss_of, images, threat, generator=generator(), random_start=False, steps=6, step_size=0.04
        )
        fooled = loss_of.logits_of(before).argmax(1) != loss_of.labels
        assert fooled.any()
        ours = torch.where(fooled[:, None, None, None], before, theirs)
    assert (ours - theirs).abs().max() <= 1e-5
    assert (theirs - images).abs().max() > 0.01


@pytest.mark.sample(5)
@pytest.mark.parametrize(
    ("package", "norm", "name"),
    [
        ("torchattacks", "linf", "APGD"),
        ("torchattacks", "linf", "FGSM"),
        ("torchattacks", "l2", "APGD"),
        ("torchattacks", "l2", "PGDL2"),
        ("torchattacks", "l2", "DeepFool"),
        ("foolbox", "linf", "FGSM"),
        ("foolbox", "linf", "LInfFMNAttack"),
        ("foolbox", "l2", "L2DeepFoolAttack"),
        ("foolbox", "l2", "DDNAttack"),
        ("adv_lib", "linf", "pgd_linf"),
        ("adv_lib", "linf", "fmn"),
        ("adv_lib", "linf", "tr"),
        ("adv_lib", "l2", "apgd"),
        ("adv_lib", "l2", "ddn"),
        ("adv_lib", "l2", "fab"),
    ],
)
def test_a_named_attack_fools_inside_the_ball_and_repeats_itself(package, norm, name):
    problem = LinearProblem(norm, 4, 5, seed=4)
    attack, settings = attack_named(package), SETTINGS.get(name, {})
    loss_of = classification(problem.logits_of, problem.labels)
    for factor in (1.3, 0.9):
        threat = ThreatModel(norm, factor * max(problem.distances))
        found, again = (
            attack(loss_of, problem.images, threat, generator=generator(1), name=name, **settings) for _ in range(2)
        )
        assert torch.equal(found, again)
        assert (threat.size(found, problem.images) <= threat.eps + 1e-5).all()
        assert found.min() >= 0
        assert found.max() <= 1
        within_reach = torch.tensor(problem.distances) < threat.eps
        assert within_reach.all().item() is (factor > 1)
        assert not problem.fooled(found)[~within_reach].any()
        assert problem.fooled(found).all().item() is (factor > 1)


@every_package
def test_images_and_weights_in_channels_last_are_attacked_as_others_are(package):
    attack, name, threat = attack_named(package), "ddn" if package == "adv_lib" else None, ThreatModel("l2", 1.5)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(4 * 5 * 4, 5))
    images, labels = torch.rand(6, 3, 9, 8, generator=generator()), torch.arange(6) % 5
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        model, given = layers.to(memory_format=layout), images.contiguous(memory_format=layout)
        settings = {"steps": 3} | ({} if name is None else {"name": name})
        found.append(attack(classification(model, labels), given, threat, generator=generator(), **settings))
        assert found[-1].stride() == given.stride()
    assert (found[0] - found[1]).abs().max() <= 1e-4
    assert (found[0] - images).abs().max() > 0.01


@every_package
def test_an_attack_takes_part_in_harden_and_evaluate_and_leaves_the_model_as_it_was(package):
    attack_named(package)
    model, mean = small_model(), {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "progress": False}
    before = everything(model)
    judged = partial(sweep, norms=["linf"], eps=[0.1], attack=package, steps=3)
    records = robusttune.evaluate(model, [GOOD], ["clean", judged], **mean)
    assert everything(model) == before
    (judgement,) = records.where("sweep")
    assert judgement.setting["attack"] == package
    assert judgement.images > 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        weights = [p.detach().clone() for p in model.parameters()]
        settings = {"attack": package, "steps": 2, "epochs": 1, "tasks": {"rotation": 0.5}, "eps_ramp": False}
        robusttune.harden(model, [GOOD], attack_tasks="separate", **settings, **mean)
    after = everything(model)
    assert after[:1] + after[2:4] == before[:1] + before[2:4]  # chance, modes, hooks, attributes
    assert [row[:4] for row in after[1]] == [row[:4] for row in before[1]]
    assert any(not torch.equal(new, old) for new, old in zip(model.parameters(), weights, strict=True))


@every_package
def test_an_attack_with_a_loss_of_its_own_runs_once_however_many_losses_are_asked_for(package):
    attack_named(package)
    model, calls = small_model(), []
    model.register_forward_hook(lambda *_: calls.append(1))
    counted = []
    for losses in (["cross_entropy"], ["cross_entropy", "margin"]):
        calls.clear()
        judged = partial(sweep, norms=["linf"], eps=[0.01], attack=package, steps=3, losses=losses)
        (record,) = robusttune.evaluate(model, [GOOD], judged, normalized=False, progress=False)
        assert record.setting["losses"] == "its own"
        judge = Judge(model, ThreatModel("linf", 0.01), attack=package, steps=3, losses=losses, normalized=False)
        _, answers, labels = judge.attacked([GOOD])
        assert float((answers == labels).float().mean()) == pytest.approx(record.value)
        counted.append(len(calls))
    assert counted[0] == counted[1]


@every_package
def test_the_model_is_seen_in_eval_mode_on_normalised_images(package):
    attack_named(package)
    seen = []

    class Watcher(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = small_model()

        def forward(self, images):
            seen.append((self.training, images.detach().min().item(), images.detach().max().item()))
            return self.model(images)

    loss = robusttune.RobustLoss(
        Watcher(), ThreatModel("linf", 0.05), tasks=None, attack=package, steps=2, mean=[0.5] * 3, std=[0.1] * 3,
        normalized=False, images=GOOD[0],
    )  # fmt: skip
    seen.clear()
    loss.train()
    loss(*GOOD)
    assert [training for training, _, _ in seen] == [False] * (len(seen) - 1) + [True]
    assert len(seen) >= 3
    assert all(low < -4 and high > 4 for _, low, high in seen)


def test_one_line_makes_an_attack_of_any_function():
    pytest.importorskip("adv_lib")
    import adv_lib.attacks as library

    _, images, loss_of = small_problem()
    attack = lambda goal, x, threat, *, generator: library.pgd_linf(goal.logits_of, x, goal.labels, threat.eps)  # noqa: E731
    loss = robusttune.RobustLoss(
        small_model(), ThreatModel("linf", 0.1), attack=attack, tasks=None, images=images
    )  # fmt: skip
    assert loss(images, loss_of.labels)["loss"].isfinite()


@every_package
def test_a_joint_attack_is_refused_in_words(package):
    attack_named(package)
    loss = robusttune.RobustLoss(
        small_model(), ThreatModel("l2", 0.5), tasks={"rotation": 0.5}, attack=package, images=GOOD[0]
    )
    with pytest.raises(ValueError, match=r"attack_tasks='joint'.*use attack_tasks='none' or 'separate'"):
        loss(*GOOD)


@pytest.mark.parametrize(
    ("package", "norm", "settings", "told"),
    [
        ("torchattacks", "l2", {"name": "APGDD"}, r"torchattacks has no attack 'APGDD': did you mean APGD or APGDT"),
        ("torchattacks", "l2", {"name": "qqq"}, r"torchattacks has no attack 'qqq': it has APGD, .*, VNIFGSM$"),
        ("torchattacks", "l2", {"name": "FGSM"}, "FGSM left the l2 ball"),
        ("torchattacks", "linf", {"name": "FGSM", "steps": 3}, r"FGSM takes no steps: leave it out .* it takes eps$"),
        ("torchattacks", "linf", {"name": "PGDL2"}, "torchattacks' PGDL2 is for l2, but the adversary's norm is linf"),
        ("torchattacks", "linf", {"name": "CW"}, "torchattacks' CW is for l2"),
        ("torchattacks", "linf", {"name": "APGD", "norm": "L2"}, "APGD is told norm=L2, but the adversary's is Linf"),
        ("torchattacks", "linf", {"name": "PGD", "eps": 0.1}, "PGD is told eps=0.1, but the adversary's is 0.5: leave eps"),
        ("foolbox", "l2", {"name": "deepfool"}, r"foolbox has no attack 'deepfool': did you mean .*DeepFoolAttack"),
        ("foolbox", "l2", {"name": "FGSM"}, "foolbox's FGSM is for the Linf distance, but the adversary's norm is l2"),
        ("foolbox", "linf", {"name": "SpatialAttack"}, "SpatialAttack knows no distance"),
        ("foolbox", "linf", {"step": 3}, "foolbox's LinfPGD takes no step: .* it takes rel_stepsize, abs_stepsize"),
        ("adv_lib", "l2", {"name": "DDNN"}, "adv-lib has no attack 'DDNN': did you mean ddn"),
        ("adv_lib", "linf", {"name": "ddn"}, "adv-lib's ddn is for l2, but the adversary's norm is linf"),
        ("adv_lib", "linf", {"name": "sigma_zero"}, "sigma_zero is for other norms"),
        ("adv_lib", "linf", {"name": "apgd", "norm": 2}, "adv-lib's apgd is told norm=2, but the adversary's is inf"),
        ("adv_lib", "linf", {"name": "apgd", "eps": 0.1}, "adv-lib's apgd is told eps=0.1, but the adversary's is 0.5"),
        ("adv_lib", "linf", {"alpha": 3}, "adv-lib's apgd takes no alpha: leave it out .* it takes eps, norm"),
    ],
)  # fmt: skip
def test_what_an_attack_cannot_do_is_told(package, norm, settings, told):
    _, images, loss_of = small_problem()
    with pytest.raises(ValueError, match=told):
        attack_named(package)(loss_of, images, ThreatModel(norm, 0.5), generator=generator(), **settings)


@every_package
def test_a_norm_of_the_users_own_needs_an_attack_made_for_it(package):
    _, images, loss_of = small_problem()
    threat = ThreatModel(plugins.find("norms", "l2"), 0.5)
    with pytest.raises(ValueError, match=r"(no PGD for|adversary's norm is).*pass name="):
        attack_named(package)(loss_of, images, threat, generator=generator())
    named = {"torchattacks": {"name": "PGDL2"}, "foolbox": {"name": "L2PGD"}, "adv_lib": {"name": "apgd", "norm": 2}}
    found = attack_named(package)(loss_of, images, threat, generator=generator(), **named[package])
    assert (threat.size(found, images) <= 0.5 + 1e-5).all()
    assert not torch.equal(found, images)


@every_package
def test_a_missing_package_gives_the_install_line(package, monkeypatch):
    _, images, loss_of = small_problem()
    monkeypatch.setitem(sys.modules, package, None)
    line = EXTRA.get(package, r"pip install 'setuptools<82' wheel && pip install --no-build-isolation adv-lib")
    with pytest.raises(ImportError, match=line):
        plugins.find("attacks", package)(loss_of, images, ThreatModel("l2", 0.5), generator=generator())


def test_torchattacks_with_numpy_chance_leaves_numpy_alone_and_repeats_itself():
    # Pixle moves pixels about at random places, by numpy, and the linf ball of radius 1 is the whole box.
    _, images, loss_of = small_problem()
    pixle = partial(attack_named("torchattacks"), name="Pixle", max_iterations=2, restarts=2)
    before = np.random.get_state()[1].tolist()
    found = pixle(loss_of, images, ThreatModel("linf", 1.0), generator=generator())
    assert np.random.get_state()[1].tolist() == before
    np.random.random(3)
    assert torch.equal(found, pixle(loss_of, images, ThreatModel("linf", 1.0), generator=generator()))
    assert not torch.equal(found, images)
