"""Random noise, proofs, pretext heads and images from elsewhere, against what can be worked out."""

import math
from functools import partial
from itertools import permutations

import pytest
import torch
from handwritten import digits, hardened, loader
from torch import nn
from torch.nn import functional as F
from whole_photographs import photographs

import robusttune
from robusttune.evaluations.autoattack import autoattack
from robusttune.evaluations.certified import certified, radius_of
from robusttune.evaluations.corruptions import corruptions
from robusttune.evaluations.noise import noise
from robusttune.evaluations.ood import ood
from robusttune.evaluations.sanity import sanity
from robusttune.evaluations.strong import strong
from robusttune.evaluations.sweep import sweep
from robusttune.measuring.subject import NotFinite
from robusttune.tasks._heads import Heads

stats = pytest.importorskip("scipy.stats")


def measured(which, *, model=None, batches=None, **settings):
    settings = {"norm": "l2", "eps": 0.5, "progress": False, **settings}
    return robusttune.evaluate(model or hardened(), batches or loader(), which, **settings)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_noise_finds_less_than_an_attack_and_more_the_larger_it_is(norm):
    eps = {"l2": 1.0, "linf": 0.2}[norm]
    which = [partial(noise, eps=[eps, 4 * eps]), partial(sweep, norms=[norm], eps=[eps], steps=10)]
    records = measured(which, norm=norm, eps=eps)
    small, large = records.where("noise")
    assert large.value <= small.value
    assert records.where("sweep")[0].value <= small.value
    assert small.setting["attack"] == "random noise, 10 draws"
    assert len(measured("noise", norm=norm, eps=eps)) == 4


@pytest.mark.sample(1)
@pytest.mark.sample(2)
@pytest.mark.parametrize("eps", [0.0, 0.3, 0.7, 1.0])
def test_radii_are_distinct_and_none_is_larger_than_white_is_from_black(eps):
    which = [partial(sweep, steps=1, losses=["margin"]), partial(noise, draws=1), partial(sanity, images=20, steps=1)]
    records = measured(which, norm="linf", eps=eps)
    for evaluation in ("sweep", "noise"):
        found = [record.setting["eps"] for record in records.where(evaluation, norm="linf")]
        assert found == sorted(set(found))
        assert 0 < found[-1] <= 1
        assert {record.images for record in records.where(evaluation)} == {60}
    assert [record.images for record in measured(partial(sweep, eps=[0.1, 0.1], norms=["l2", "L2"], steps=1))] == [60]


def test_another_norm_has_its_own_radius():
    """The radius in linf would be next to nothing in l2."""
    which = [partial(strong, norm="l2", steps=1, target_steps=1), partial(noise, norm="L2", draws=1)]
    records = measured(which, norm="linf", eps=0.15)
    usual = 0.5 * (64 / 3072) ** 0.5
    assert records.where("strong")[-1].setting["eps"] == pytest.approx(usual)
    assert records.where("noise")[1].setting["eps"] == pytest.approx(usual)
    assert all(record.setting["norm"] == "l2" for record in records)
    pytest.importorskip("torchattacks")
    suite = partial(autoattack, norm="l2", queries=1)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    batches = [(digits()[0][:4], digits()[1][:4] % 3)]
    assert measured(suite, model=linear, batches=batches, norm="linf")[0].setting["eps"] == pytest.approx(usual)


def test_a_proven_radius_is_that_of_the_formula():
    # All of 1,000 votes: the lower bound solves share^1000 = alpha.
    lower = 0.001 ** (1 / 1000)
    assert radius_of(1000, 1000, 0.5, 0.001, stats.beta) == pytest.approx(0.5 * stats.norm.ppf(lower))
    exact = stats.binomtest(900, 1000).proportion_ci(1 - 2 * 0.001, "exact").low
    assert radius_of(900, 1000, 0.25, 0.001, stats.beta) == pytest.approx(0.25 * stats.norm.ppf(exact))
    assert math.isnan(radius_of(500, 1000, 0.25, 0.001, stats.beta))
    assert math.isnan(radius_of(0, 1000, 0.25, 0.001, stats.beta))


class Halves(nn.Module):
    """Class 1 where the first pixel is above one half."""

    def forward(self, images):
        first = images[:, 0, 0, 0] - 0.5
        return torch.stack([-first, first], 1)


def test_what_is_proven_of_a_half_space_is_its_distance():
    images = torch.full((40, 1, 4, 4), 0.5)
    images[:, 0, 0, 0] += torch.linspace(-0.4, 0.4, 40)
    labels = (images[:, 0, 0, 0] > 0.5).long()
    radii = [0.0, 0.05, 0.1, 0.2]
    which = partial(certified, sigma=0.25, radii=radii, draws=2000)
    records = measured(which, model=Halves(), batches=[(images, labels)])
    far = (images[:, 0, 0, 0] - 0.5).abs()
    for record in records.where("certified")[:-1]:
        # The votes of an image at distance d are right with the share Phi(d / sigma), so its radius is at most d.
        assert record.value <= float((far >= record.setting["eps"]).float().mean()) + 1e-6
        assert record.value >= float((far >= record.setting["eps"] + 0.04).float().mean())
    with pytest.raises(ValueError, match="no Record of"):  # the proofs are of another model, the smoothed one
        records.worst(norm="l2", eps=0.1)
    assert records[-1].metric == "abstentions"
    # Votes decide nothing within about 3 standard errors of one half: 0.25 · 0.035 · 2.5 on either side.
    assert 0 < records[-1].value <= float((far < 0.03).float().mean())


def test_no_attack_on_the_smoothed_classifier_beats_what_is_proven():
    sigma, radius, count = 0.5, 0.4, 100
    images, labels = digits()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(model(images[300:] + sigma * torch.randn_like(images[300:])), labels[300:]).backward()
        optimizer.step()
    which = partial(certified, sigma=sigma, radii=[0.0, radius], draws=1000)
    proven = measured(which, model=model, batches=[(images[:count], labels[:count])])[1]
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(1)

    def votes(pixels, draws):
        noisy = pixels.repeat(draws, 1, 1, 1)
        return model(noisy + sigma * torch.randn(noisy.shape, generator=generator)).view(draws, count, 10)

    threat = robusttune.ThreatModel("l2", radius)
    found = images[:count].clone()
    for _ in range(30):  # expectation over the noise, as of a randomised defence
        found.requires_grad_()
        goal = votes(found, 16).softmax(2).mean(0).clamp_min(1e-6).log()
        (gradient,) = torch.autograd.grad(F.nll_loss(goal, labels[:count]), found)
        found = found.detach() + 0.1 * threat.ascent(gradient)
        delta = found - images[:count]  # the ball alone: the proof knows no box
        found = images[:count] + delta * (radius / delta.flatten(1).norm(dim=1).clamp_min(radius)).view(-1, 1, 1, 1)
    answers = votes(found, 1000).argmax(2)
    smoothed = torch.stack([(answers == each).sum(0) for each in range(10)], 1).argmax(1)
    attacked = float((smoothed == labels[:count]).float().mean())
    assert 0.3 < proven.value <= attacked + 0.02
    assert attacked < 0.99


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model trained with a rotation head on real photographs' parts, and its folder."""
    torch.manual_seed(0)
    images = torch.cat([photographs(32)[:, :, top : top + 16, :16] for top in range(0, 16, 2)])
    layers = [nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(256, 6))
    batches = [(images[rows], (torch.arange(6).repeat(8))[rows]) for rows in torch.randperm(48).split(16)]
    folder = tmp_path_factory.mktemp("run") / "run"
    settings = {
        "preset": "joint",
        "norm": "l2",
        "eps": 0.05,
        "steps": 1,
        "epochs": 40,
        "augment": "none",
        "progress": False,
    }
    robusttune.harden(model, batches, tasks={"rotation": 1.0}, val_loader=batches[:1], out=folder, **settings)
    return model, batches, folder


@pytest.mark.slow
def test_pretext_counts_heads_beside_a_guess(run):
    model, batches, folder = run
    records = measured(["pretext", "clean"], model=model, batches=batches, heads=folder)
    (record,) = records.where("pretext")
    assert records.worst().right == records.where("clean")[0].right  # which the heads have no part in
    assert record.setting["task"] == "rotation"
    assert record.setting["guess"] == 0.25
    assert record.value > 0.5
    assert record.setting["loss"] < math.log(4)
    assert record.images == 48
    heads = robusttune.load_heads(folder, model)
    assert measured("pretext", model=model, batches=batches, heads=heads)[0] == record
    with pytest.raises(ValueError, match="pretext needs heads: pass heads="):
        measured("pretext", model=model, batches=batches)


class Sides(nn.Module):
    """Ten classes by one number of an image of any size, which is NaN for bright images."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(1, 10)

    def forward(self, images):
        mean = images.mean((1, 2, 3))[:, None]
        return self.classifier(torch.where(mean > 0.9, torch.nan, mean))


def of_sides(which, *sizes, last=0.5):
    """Measure with a rotation head on ten grey images of each size, the last ones of another grey."""
    model = Sides()
    heads = Heads({"rotation": 1.0}, "all", 1, patch_size=None, seed=0)
    greys = [*[0.5] * (len(sizes) - 1), last]
    labels = torch.zeros(10, dtype=torch.long)
    batches = [(torch.full((10, 3, *size), grey), labels) for size, grey in zip(sizes, greys, strict=True)]
    return measured(which, model=model, batches=batches, heads=heads)


def test_guessing_is_right_more_often_on_images_that_can_be_turned_by_half_alone():
    for sizes in permutations([(8, 8), (8, 12), (6, 6)]):
        (record,) = of_sides("pretext", *sizes)
        assert record.setting["guess"] == pytest.approx((10 / 4 + 10 / 2 + 10 / 4) / 30)


def test_answers_that_are_nan_are_no_sign_of_images_from_elsewhere():
    bright = [torch.full((4, 3, 8, 8), 0.95)]
    with pytest.raises(NotFinite, match="the answers of the model or of its rotation head hold NaN"):
        of_sides(partial(ood, others=bright), (8, 8))
    with pytest.raises(NotFinite, match="the answers of the head for rotation hold NaN or infinite values"):
        of_sides("pretext", (8, 8), (6, 6), last=0.95)


@pytest.mark.parametrize(
    ("second", "match"),
    [
        ("pretext", "pretext needs heads: pass heads="),
        (partial(ood, others=[torch.rand(4, 3, 16, 16)]), "ood needs a rotation head: pass heads="),
        ("ood", "ood compares with images from elsewhere"),
        (partial(sweep, attack="nfgsm"), "nfgsm leaves the ball"),
        (partial(sweep, attack="pdg"), "pdg"),
        (partial(sweep, losses=[]), r"losses is \[\], but a list of some of cross_entropy, margin is needed"),
        (partial(sweep, losses="margin"), "losses is 'margin', but a list of some of"),
        (partial(noise, draws=0), "draws is 0, but a whole number of at least 1 is needed$"),
        (partial(certified, draws=0), "draws is 0, but a whole number of at least 1 is needed$"),
        (partial(certified, choosing_draws=0), "choosing_draws is 0, but a whole number of at least 1 is needed$"),
        (partial(certified, sigma=-0.25), "sigma is -0.25, but a finite number above 0 is needed$"),
        (partial(certified, alpha=1.0), "alpha is 1.0, but a number above 0 and below 1 is needed$"),
        (partial(certified, radii=[0.1, -0.1]), "radii is -0.1, but a finite number of at least 0 is needed$"),
        (partial(sanity, images=0), "images is 0, but a whole number of at least 1 is needed$"),
        (partial(sanity, steps=0), "steps of sanity is 0, but a whole number from 1 to 10,000 is needed$"),
        (partial(corruptions, names=["foog"]), "foog"),
        (partial(corruptions, severities=[6]), r"severities=\[6\]"),
        (partial(corruptions, published="not-there"), "published='not-there' is no folder"),
    ],
    ids=[
        *("heads", "rotation head", "others", "ball", "attack", "no losses", "losses as a text", "noise without draws"),
        *("no draws", "no choice", "negative noise", "sure error", "negative radius", "no images", "no steps"),
        *("corruption", "severity", "folder"),
    ],
)
def test_nothing_is_measured_where_a_later_evaluation_cannot_be(run, second, match):
    model, batches, _ = run
    seen = []
    with pytest.raises(ValueError, match=match):
        measured([lambda subject: seen.append(subject) or [], second], model=model, batches=batches)
    assert seen == []


def test_images_from_elsewhere_are_told_apart(run):
    model, batches, folder = run
    noisy = [(torch.rand(40, 3, 16, 16), torch.zeros(40, dtype=torch.long))]
    area, taken = measured(partial(ood, others=noisy), model=model, batches=batches, heads=folder)
    assert (area.metric, taken.metric) == ("AUROC", "FPR95")
    assert area.value > 0.8
    assert area.interval[0] <= area.value <= area.interval[1]
    assert taken.images == 40
    same = measured(partial(ood, others=batches), model=model, batches=batches, heads=folder)
    assert same[0].value == pytest.approx(0.5)
    assert same[1].value == pytest.approx(0.95, abs=0.03)
    with pytest.raises(ValueError, match=r"ood compares with images from elsewhere: pass .*others="):
        measured("ood", model=model, batches=batches, heads=folder)
    others = [*noisy, (noisy[0][0] * 4 - 2, noisy[0][1])]
    with pytest.raises(ValueError, match=r"batch 2 of others: images span \[-2.*pass mean=… and std=…"):
        measured(partial(ood, others=others), model=model, batches=batches, heads=folder)
    normalised = [((images - 0.5) / 0.25, labels) for images, labels in batches]
    space = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    with pytest.raises(
        ValueError, match=r"batch 1 of others: images lie within \[0, 1\], but in the loader images are norm"
    ):
        measured(partial(ood, others=noisy), model=model, batches=normalised, heads=folder, **space)
    with pytest.raises(ValueError, match="needs images in both loaders"):
        measured(partial(ood, others=[]), model=model, batches=batches, heads=folder)
