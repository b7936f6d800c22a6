"""A card says the numbers that were measured, and no word from elsewhere is markup in it."""

import math
from pathlib import Path

import pytest
import timm
import yaml
from huggingface_hub import ModelCard
from torch import nn

import robusttune
from robusttune.measuring.record import Record
from robusttune.run.about import About, EarlierRun
from robusttune.sharing.card import card_of
from robusttune.sharing.config import _facts
from robusttune.sharing.story import Story, without_paths


@pytest.fixture(scope="module")
def card(run, tmp_path_factory):
    folder = robusttune.save(run, tmp_path_factory.mktemp("cards") / "digits", license="mit")
    return (folder / "README.md").read_text(encoding="utf-8")


def test_the_model_index_has_clean_and_robust_accuracy_with_all_that_they_depend_on(card, run):
    data, records = ModelCard(card).data, robusttune.Records.load(run)
    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "timm", "image-classification")
    clean, robust = data.eval_results
    attacked = records.where("sweep")[0]
    assert (clean.metric_name, clean.metric_type) == ("clean accuracy", "accuracy")
    assert clean.metric_value == pytest.approx(records[0].value, abs=1e-6)
    assert robust.metric_name == "robust (linf up to 4/255) accuracy"
    assert robust.metric_value == pytest.approx(attacked.value, abs=1e-6)
    assert robust.metric_value <= clean.metric_value
    known = robust.metric_args
    assert (known["norm"], known["eps"], known["images"]) == ("linf", "4/255", 64)
    assert known["interval_95"] == pytest.approx(attacked.interval, abs=1e-6)
    assert "pixel values on [0, 1]" in known["eps_unit"]
    assert known["attacks"][0] | {"attack": "apgd", "steps": 3, "evaluation": "sweep"} == known["attacks"][0]
    assert (robust.dataset_name, robust.dataset_split) == ("digits", "test")


def test_the_page_says_model_input_classes_attack_and_limits(card, run):
    verdict = robusttune.Records.load(run)[0].value
    for text in (
        "hardened against small changes of its images (linf up to 4/255",
        "On unchanged images",
        f"is right on {100 * verdict:.1f}%",
        "timm:test_resnet",
        "pixels on \\[0, 1\\], without a mean and std",
        "It is no proof against other attackers.",
        "Attacks stronger than those of `sweep`",
        "robusttune.harden, ",
        'timm.create_model("hf-hub:USER/NAME", pretrained=True)',
    ):
        assert text in card


def test_a_model_of_ordinary_training_is_not_called_hardened():
    arguments = {"preset": "standard", "objective": "adversarial", "epochs": 2, "eps": 0.0}
    about = About(outputs=2, channels=3, norm="linf", eps="0")
    run = EarlierRun(Path("runs/a"), "harden", None, arguments, about)
    card = card_of(Story("plain", about, run))
    assert "An image classifier, saved by robusttune." in card
    assert "nothing: the training was ordinary, without an adversary" in card
    assert "robusttune.harden with eps 0, epochs 2" in card
    assert _facts(Story("plain", about, run), nn.Linear(1, 1))["hardened_against"] is None
    unknown = card_of(Story("plain", About(outputs=2, channels=3)))
    assert "ordinary" not in unknown


def test_names_of_classes_are_text(card):
    body = ModelCard(card).content.split("\n---\n", 2)[-1]
    assert "<script" not in body
    assert "&lt;script>" in body
    assert "a\\|b" in body
    assert "](javascript" not in body.replace("\\](javascript", "")


@pytest.mark.parametrize("name", ["a\n---\nlicense: mit", "x: [y]", "# <img src=x>", "---", "{{ 7 * 7 }}"])
def test_a_hostile_name_stays_a_name(name):
    card = card_of(Story(name, About(outputs=2, channels=3, classes=["a\n# b", "c"], input_known=False)))
    data = ModelCard(card).data
    assert data.get("license") is None
    assert yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n"))["pipeline_tag"] == "image-classification"
    body = card.split("\n---\n", 1)[1]
    assert "<img" not in body
    assert "\n# b" not in body
    assert "49" not in body


def test_agreement_is_not_called_accuracy(run):
    records = robusttune.Records.load(run)
    renamed = robusttune.Records(
        [Record("clean", "agreement", 0.5, 4, (0.2, 0.8))],
        facts={**records.facts, "agreement": {"name": "self"}},
    )
    results = ModelCard(card_of(Story("m", About(outputs=4, channels=3), None, renamed))).data.eval_results
    assert [(each.metric_type, each.metric_name) for each in results] == [("agreement", "clean agreement")]
    assert results[0].metric_args["labels"] == "its own answers"


def test_a_number_is_never_that_of_another_radius(loader, tmp_path):
    model = timm.create_model("test_resnet", num_classes=4)
    records = robusttune.evaluate(model, loader, "clean", norm="l2", eps=0.5, progress=False)
    folder = robusttune.save(model, tmp_path / "clean", records)
    (clean,) = ModelCard.load(folder / "README.md").data.eval_results
    assert clean.metric_name == "clean accuracy"
    assert math.isclose(clean.metric_value, records[0].value, abs_tol=1e-6)
    assert "under attack was not measured" in (folder / "README.md").read_text()


def test_settings_and_teachers_lose_their_paths(run):
    records = robusttune.Records.load(run)
    setting = {"published": "/home/someone/CIFAR-10-C", "eps": 0.1, "other": "a/b"}
    facts = {"agreement": {"name": "/home/someone/runs/a", "fingerprint": "1a"}}
    kept = without_paths(
        robusttune.Records([Record("corruptions", "agreement", 0.5, 4, (0.2, 0.8), setting)], facts=facts)
    )
    assert kept[0].setting == {"published": "CIFAR-10-C", "eps": 0.1, "other": "a/b"}
    assert kept.facts["agreement"]["name"] == "a"
    assert without_paths(records).facts == records.facts
