"""Situations and the advice for them; that harden takes it; that it says what the defaults and the records say."""

import re
from functools import lru_cache
from pathlib import Path

import pytest
import timm
import torch
from short_runs import a_loader, a_model
from torch.utils.data import DataLoader, TensorDataset

import robusttune
from robusttune import advise
from robusttune.norms import default_eps
from robusttune.tasks import HEADS_ALONE
from robusttune.training.advice.advise import PURPOSES, seconds_of
from robusttune.training.advice.figures import rows
from robusttune.training.presets import PRESETS, chosen_attacker, default_radius
from robusttune.training.settings import Adversary, RunLength, run_settings

PAGE = Path(__file__).parents[3] / "docs" / "settings.md"


@lru_cache
def images(count, side=32, channels=1, batch=128, alone=False):
    pixels = torch.zeros(1, channels, side, side).expand(count, -1, -1, -1)
    data = TensorDataset(pixels) if alone else TensorDataset(pixels, torch.arange(count) % 10)
    return DataLoader(data, batch)


MANY = images(10_000, alone=True)
STANDARD = {"preset": "standard", "tasks": dict(HEADS_ALONE)}
SELF = {"preset": "fast", "teacher": "self", "tasks": None}
# What is passed beside the loader, and the settings that are advised.
SITUATIONS = {
    "plenty of labels": (images(10_000), {"norm": "linf"}, {**STANDARD, "norm": "linf", "eps": 8 / 255, "epochs": 10}),
    "colour": (images(4_000, channels=3), {"norm": "l2"}, {**STANDARD, "norm": "l2", "eps": 0.5, "epochs": 10}),
    "nothing said": (images(10_000), {}, {**STANDARD, "norm": "linf", "eps": 8 / 255, "epochs": 10}),
    "another eps": (images(10_000), {"norm": "2", "eps": 0.1}, {**STANDARD, "norm": "l2", "eps": 0.1, "epochs": 10}),
    "few images": (images(300, batch=32), {"norm": "linf"}, {**STANDARD, "norm": "linf", "eps": 8 / 255, "epochs": 30}),
    "2,000 images": (images(2_000), {"norm": "linf"}, {**STANDARD, "norm": "linf", "eps": 8 / 255, "epochs": 20}),
    "large, linf": (
        images(100, 224, 3, batch=4),
        {"norm": "linf"},
        {**STANDARD, "norm": "linf", "eps": 4 / 255, "epochs": 10},
    ),
    "large, l2": (images(100, 224, 3, batch=4), {"norm": "l2"}, {**STANDARD, "norm": "l2", "eps": 3.0, "epochs": 10}),
    "200 labels": (
        images(200, batch=32),
        {"norm": "linf", "unlabeled_loader": MANY},
        {**SELF, "norm": "linf", "eps": 8 / 255, "pretrain_epochs": 4, "finetune": 58, "epochs": 6},
    ),
    "200 of the loader's images have labels": (
        images(10_000),
        {"norm": "linf", "labels": 200},
        {**SELF, "norm": "linf", "eps": 8 / 255, "pretrain_epochs": 4, "finetune": 200, "epochs": 6},
    ),
    "2,500 labels": (
        images(2_500),
        {"norm": "linf", "unlabeled_loader": MANY},
        {**SELF, "norm": "linf", "eps": 8 / 255, "finetune": 20, "epochs": 6},
    ),
    "5,000 labels": (
        images(5_000),
        {"norm": "linf", "unlabeled_loader": MANY},
        {**STANDARD, "norm": "linf", "eps": 8 / 255, "epochs": 10},
    ),
    "no labels": (MANY, {"norm": "linf"}, {**SELF, "norm": "linf", "eps": 8 / 255, "epochs": 6}),
    "monitoring with few labels": (
        images(1_000),
        {"norm": "linf", "unlabeled_loader": MANY, "purpose": "monitoring"},
        {
            **SELF,
            "norm": "linf",
            "eps": 8 / 255,
            "tasks": dict(HEADS_ALONE),
            "pretrain_epochs": 4,
            "finetune": 50,
            "epochs": 6,
        },
    ),
    "corruptions": (
        images(10_000),
        {"purpose": "corruptions"},
        {"norm": "l2", "eps": 0.0, "steps": 1, "eps_ramp": False, "tasks": None, "augment": "prime", "epochs": 10},
    ),
    "corruptions and attackers": (
        images(10_000, channels=3),
        {"purpose": "corruptions", "norm": "l2"},
        {**STANDARD, "purpose": "corruptions", "norm": "l2", "eps": 0.1, "epochs": 10},
    ),
    "a budget without a model": (
        images(10_000),
        {"norm": "linf", "budget": "90min"},
        {**STANDARD, "norm": "linf", "eps": 8 / 255, "epochs": 10, "time_budget": 5400.0},
    ),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_situations_and_their_advice(name):
    loader, asked, expected = SITUATIONS[name]
    advice = advise(None, loader, **asked)
    settings = dict(advice.settings)
    assert settings.pop("eps") == pytest.approx(expected["eps"])
    assert settings == {key: value for key, value in expected.items() if key != "eps"}
    run_settings(loader, **advice.settings)  # which harden checks first
    assert all(each.source and each.value for each in (*advice.choices, *advice.expected))
    assert advice.call() in str(advice)


def sources(advice):
    return {each.name: each.source.partition(" (")[0] for each in (*advice.choices, *advice.expected)}


def test_small_images_are_measured_and_large_ones_are_the_literature_s():
    small, large = (
        sources(advise(None, SITUATIONS[name][0], norm="linf")) for name in ("plenty of labels", "large, linf")
    )
    assert small["preset"] == small["accuracy, nearest case"] == "measured by us"
    assert large["preset"] == large["accuracy, published"] == "from the literature"
    assert small["accuracy on your images"] == large["time and memory"] == "unknown"
    (l2,) = [each for each in advise(None, images(100, 224, 3, batch=4), norm="l2").expected if each.name == "accuracy"]
    assert l2.value == "unknown"


def test_the_best_augmentation_of_the_records_is_advised(monkeypatch):
    from robusttune.training.advice import adversary

    changed = [dict(row, all=0.9) if row["arm"] == "AugMix" else row for row in rows("corruptions")]
    monkeypatch.setattr(adversary, "rows", lambda group: changed)
    assert advise(None, images(10_000), purpose="corruptions").settings["augment"] == "augmix"


@pytest.mark.parametrize("purpose", PURPOSES)
def test_what_to_do_first(purpose):
    todo = " ".join(advise(None, images(300, batch=32), purpose=purpose).todo)
    assert ("robusttune poc" in todo) == (purpose == "unsure")
    assert ("pass out=" in todo) == (purpose == "monitoring")
    assert ("robusttune.Monitor(model, held_out, heads=folder)" in todo) == (purpose == "monitoring")
    assert "val_loader=" in todo
    assert ("labels are few" in todo) == (purpose != "corruptions")
    assert "purpose= was left out" not in todo
    assert "purpose= was left out" in " ".join(advise(None, images(300)).todo)


def test_few_labels_alone_are_compared_with_the_nearest_number_of_labels_of_the_study():
    for labels, near in ((150, 200), (900, 1000)):
        todo = " ".join(advise(None, images(labels), norm="linf").todo)
        assert f"{labels} labels are few" in todo
        assert f"With {near:,} labels of 10,000 images" in todo


def test_uneven_and_rare_classes_are_said():
    labels = torch.cat([torch.zeros(400), torch.ones(30)]).long()
    data = TensorDataset(torch.zeros(430, 1, 8, 8), labels)
    assert "classes have 30 to 400 images" in " ".join(advise(None, DataLoader(data, 64), norm="l2").todo)
    rare = TensorDataset(torch.zeros(40, 1, 8, 8), torch.arange(40) % 5)
    assert "a class has only 8 images" in " ".join(advise(None, DataLoader(rare, 8), norm="l2").todo)


def test_a_radius_far_above_the_customary_one_is_said():
    why = {each.name: each.why for each in advise(None, images(10_000), norm="linf", eps=24 / 255).choices}["eps"]
    assert "the customary radius for images of this size is 8/255: this one is 3.0 times as large" in why


@pytest.fixture(scope="module")
def timed():
    """Advice with a model and a budget, timed once."""
    model = a_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    advice = advise(model, a_loader(400, 40), norm="l2", budget="1h", seed=1)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    return model, advice


@pytest.mark.slow
def test_a_model_is_timed_and_the_epochs_fit_the_budget(timed):
    _, advice = timed
    found = sources(advice)
    assert found["time"] == found["memory"] == "measured on this machine with your model"
    assert advice.settings["epochs"] == 30  # as many over few images as were measured
    assert 3500 < advice.settings["time_budget"] < 3600
    assert advice.settings["finetune"] == 40  # 400 steps of 10 an epoch
    assert "the budget has time for" in " ".join(advice.todo)
    assert "sgd lr 0.2" in str(advice)


def test_harden_takes_the_advice(timed):
    model, advice = timed
    short = {**advice.settings, "finetune": 1, "epochs": 1}
    assert robusttune.harden(model, a_loader(400, 40), **short, max_steps=2, progress=False) is model


@pytest.mark.parametrize(("labels", "epochs"), [(200, 4), (1_000, None)])
def test_a_transformer_is_pretrained_with_the_fewest_labels_only(labels, epochs):
    model = timm.create_model("test_vit", img_size=32, in_chans=1, num_classes=10)
    advice = advise(model, images(labels), unlabeled_loader=MANY, norm="linf", measure=False)
    assert advice.settings.get("pretrain_epochs") == epochs
    assert ("it brought nothing to nets of this kind" in str(advice)) == (epochs is None)


@pytest.mark.slow
def test_harden_takes_the_advice_for_few_labels():
    few, many = a_loader(40, 20), DataLoader(TensorDataset(a_loader(400, 40).dataset.tensors[0][:200]), 40)
    settings = dict(advise(a_model(), few, unlabeled_loader=many, norm="linf", measure=False).settings)
    assert (settings["teacher"], settings["pretrain_epochs"], settings["finetune"]) == ("self", 4, 200)
    short = {**settings, "pretrain_epochs": 1, "finetune": 1, "epochs": 1, "max_steps": 2}
    robusttune.harden(a_model(), few, unlabeled_loader=many, **short, progress=False)


@pytest.mark.slow
def test_harden_takes_the_advice_for_corruptions():
    settings = advise(a_model(), a_loader(400, 40), purpose="corruptions", measure=False).settings
    assert settings["augment"] == "prime"
    robusttune.harden(a_model(), a_loader(400, 40), **settings, max_steps=2, progress=False)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"eps": 0.5}, "eps is 0.5, but the same number is another radius in each norm: pass norm='linf' or norm='l2'"),
        (
            {"purpose": "weather"},
            "purpose is 'weather', but it must be one of 'attacks', 'corruptions', 'monitoring', 'unsure'",
        ),
        (
            {"budget": "2 hourss"},
            "budget is '2 hourss', but seconds, or a text such as '90min', '2h' or '1d', are needed",
        ),
        ({"budget": 0}, "budget is 0, but seconds"),
        ({"norm": "l3"}, "l3"),
        ({"norm": "linf", "eps": 8}, "did you mean 8/255"),
        ({"labels": 20_000}, "labels is 20,000, but the loader has 10,000 images"),
    ],
)
def test_what_does_not_fit_is_refused(asked, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        advise(None, images(10_000), **asked)


def test_a_number_of_images_that_is_not_known_is_asked_for():
    endless = iter([(torch.rand(4, 1, 8, 8), torch.arange(4))])
    with pytest.raises(ValueError, match=r"does not say how many images it has: pass labels="):
        advise(None, endless, norm="l2")


@pytest.mark.parametrize("text", ["h", "", "2x", "1h2", "-3", "nan", "1..2h", "2h3"])
def test_texts_that_are_no_time(text):
    with pytest.raises(ValueError, match="budget is"):
        seconds_of(text)


def test_the_defaults_on_the_page_are_those_of_the_code():
    page = PAGE.read_text(encoding="utf-8")
    table = re.findall(r"^\| (\S+) px, (grey|colour) \| (\S+) \| (\S+) \| (\S+) \| (.+) \|$", page, re.MULTILINE)
    assert len(table) >= 5
    for side, colour, linf, l2, small_l2, attack in table:
        shape = ({"grey": 1, "colour": 3}[colour], int(side), int(side))
        sample = torch.zeros(1, *shape)
        assert default_eps("linf", shape) == pytest.approx(float(linf.split("/")[0]) / 255, rel=0.01)
        assert default_eps("l2", shape) == pytest.approx(float(l2), rel=0.01)
        assert default_radius("corruptions", "l2", sample) == pytest.approx(float(small_l2), rel=0.02)
        linf_first, l2_first = (
            chosen_attacker(Adversary(norm), PRESETS["standard"], sample).attack for norm in ("linf", "l2")
        )
        assert attack == (linf_first if linf_first == l2_first else f"{linf_first} (linf), {l2_first} (l2)")
    assert f'`epochs={RunLength().epochs}` and `preset="{run_settings([]).adversary.preset}"`' in page


def test_the_figures_on_the_page_are_those_of_the_records():
    page = PAGE.read_text(encoding="utf-8")
    for row in rows("radii"):
        eps = f"{round(255 * row['eps'])}/255" if row["norm"] == "linf" else f"{row['eps']:g}"
        line = f"| {row['data']} | {row['norm']} {eps} | {row['clean before']:.1%} | {row['clean after']:.1%} | {row['robust after']:.1%} |"
        assert line in page
