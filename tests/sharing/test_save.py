"""A saved folder carries its model and its story: timm and robusttune load it, and what is not known is said."""

import json
import logging
import shutil

import pytest
import timm
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import robusttune
from robusttune.run.about import METADATA
from robusttune.run.seal import metadata_of

SIDE = 16


@pytest.fixture(scope="module")
def saved(run, tmp_path_factory):
    """The run, saved with a licence."""
    return robusttune.save(run, tmp_path_factory.mktemp("saved") / "digits", license="mit")


@pytest.fixture(scope="module")
def images(loader):
    return next(iter(loader))[0]


def logits(model, images):
    with torch.no_grad():
        return model.eval()(images)


def config_of(folder):
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def small(channels=3):
    """A model that no library makes."""
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * SIDE * SIDE, 2), nn.Identity())


def test_timm_loads_the_folder_by_its_own_name_with_equal_logits(saved, run, images):
    model = timm.create_model(f"local-dir:{saved}", pretrained=True)
    assert torch.equal(logits(model, images), logits(robusttune.load(run), images))
    config = model.pretrained_cfg
    assert tuple(config["label_names"])[3] == "three"
    assert (config["input_size"], config["mean"], config["std"]) == ([3, 16, 16], [0] * 3, [1] * 3)
    data = timm.data.resolve_data_config(pretrained_cfg=config)
    assert (data["mean"], data["input_size"]) == ([0] * 3, [3, 16, 16])


@pytest.mark.parametrize("name", ["{}", "local-dir:{}", "{}/model.safetensors"])
def test_load_makes_the_model_again(saved, run, images, name):
    again = robusttune.load(name.format(saved))
    assert torch.equal(logits(again, images), logits(robusttune.load(run), images))


def test_harden_and_evaluate_take_the_folder(saved, run, loader):
    records = robusttune.evaluate(f"local-dir:{saved}", loader, "clean", progress=False)
    assert records[0].value == robusttune.Records.load(run)[0].value
    assert (records.facts["norm"], records.facts["eps"], records.facts["eps from"]) == ("linf", "4/255", "run")
    settings = {"tasks": None, "epochs": 1, "max_steps": 1, "steps": 1, "progress": False}
    model = robusttune.harden(f"local-dir:{saved}", loader, **settings)
    assert not torch.equal(model.fc.weight, robusttune.load(saved).fc.weight)


def test_a_saved_folder_can_be_saved_again(saved, tmp_path):
    again = robusttune.save(saved, tmp_path / "again", license="mit")
    assert load_file(again / "model.safetensors").keys() == load_file(saved / "model.safetensors").keys()
    assert config_of(again)["label_names"] == config_of(saved)["label_names"]


def test_nothing_of_this_machine_is_in_the_folder(saved, run):
    for text in (
        (saved / "README.md").read_text(),
        (saved / "config.json").read_text(),
        metadata_of(saved / "model.safetensors"),
    ):
        assert "/home/someone" not in text
        assert str(run.parent) not in text


def test_a_model_that_takes_normalised_images_keeps_mean_and_std(tmp_path):
    model = timm.create_model("test_resnet", num_classes=2, in_chans=1).eval()
    folder = robusttune.save(model, tmp_path / "grey", mean=0.1307, std=0.3081, classes=["even", "odd"])
    known = config_of(folder)["pretrained_cfg"]
    assert (known["mean"], known["std"], known["first_conv"]) == ([0.1307], [0.3081], None)
    again = timm.create_model(f"local-dir:{folder}", pretrained=True)
    grey = torch.rand(2, 1, SIDE, SIDE)
    assert torch.equal(logits(again, grey), logits(model, grey))
    assert (
        "(pixels on \\[0, 1\\] - mean) / std, with mean (0.1307) and std (0.3081)" in (folder / "README.md").read_text()
    )


def test_a_model_of_fixed_size_is_made_for_that_size(tmp_path):
    model = timm.create_model("test_vit", num_classes=2, img_size=32).eval()
    folder = robusttune.save(model, tmp_path / "vit", classes=["a", "b"], normalized=False)
    again = timm.create_model(f"local-dir:{folder}", pretrained=True)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(logits(again, images), logits(model, images))


def test_a_card_says_what_is_not_known(tmp_path, caplog):
    model = timm.create_model("test_resnet", num_classes=2)
    with caplog.at_level(logging.WARNING, "robusttune"):
        folder = robusttune.save(model, tmp_path / "bare")
    for missing in ("names of its classes", "pixels or normalised images", "its accuracy"):
        assert missing in caplog.text
    card = (folder / "README.md").read_text()
    assert "not known: which output is which class has to be asked" in card
    assert "not known, whether pixels on \\[0, 1\\] or normalised images" in card
    assert "Nothing was measured" in card
    assert "None is stated. Who owns the weights has to choose one" in card
    data = ModelCard(card).data
    assert (data.get("license"), data.eval_results) == (None, None)
    facts = config_of(folder)
    assert "label_names" not in facts
    assert "mean" not in facts["pretrained_cfg"]
    assert (facts["robusttune"]["input"], facts["robusttune"]["class_names"]) == ("not known", "not known")
    caplog.clear()
    robusttune.load(folder)
    assert "does not say whether its model takes pixels or normalised images" in caplog.text
    images = [(torch.rand(4, 3, SIDE, SIDE), torch.arange(4) % 2)]
    facts = robusttune.evaluate(folder, images, "clean", mean=0.5, std=0.5, normalized=False, progress=False).facts
    assert "does not know its classes by name (labels count as they are)" in caplog.text
    assert "mean and std of its model's input (those of the loader count)" in caplog.text
    assert "was trained on" not in caplog.text  # which nobody knows
    assert facts["mean"] == [0.5] * 3
    assert model.training


def test_a_model_of_the_users_own_is_given_its_weights(tmp_path):
    model = small()
    folder = robusttune.save(model, tmp_path / "own", normalized=False, classes=["a", "b"])
    assert "architecture" not in config_of(folder)
    assert "a torch.nn.Module that neither timm nor torchvision makes" in config_of(folder)["robusttune"]["model"]
    assert 'robusttune.load("hf-hub:USER/NAME", model)' in (folder / "README.md").read_text()
    with pytest.raises(ValueError, match="does not name its model"):
        robusttune.load(folder)
    again = robusttune.load(folder, small())
    assert torch.equal(again[1].weight, model[1].weight)


def rewritten(folder, **changes):
    """Let the metadata of the weights in a folder name another model; the checksum goes, as with a forger's file."""
    path = folder / "model.safetensors"
    facts = json.loads(metadata_of(path))
    facts.pop("checksum")
    facts["about"] |= changes
    save_file(load_file(path), path, {METADATA: json.dumps(facts)})


@pytest.mark.parametrize(
    ("model", "arguments", "match"),
    [
        ("builtins:exec", None, "code that reading a file must not call"),
        ("timm:hf-hub:somebody/else", None, "fetched from elsewhere"),
        ("timm:test_resnet", {"pretrained_cfg_overlay": {"file": "x"}}, "other files may be read"),
    ],
)
def test_nothing_that_a_folder_names_is_called(run, tmp_path, model, arguments, match):
    folder = robusttune.save(run, tmp_path / "forged")
    rewritten(folder, model=model, model_args=arguments)
    for call in (robusttune.load, lambda place: robusttune.save(place, tmp_path / "new")):
        with pytest.raises(ValueError, match=match):
            call(folder)


def test_records_of_other_weights_are_refused(run, tmp_path):
    records = robusttune.Records.load(run)
    other = timm.create_model("test_resnet", num_classes=4)
    with pytest.raises(ValueError, match=r"measured on other weights \(fingerprint \w+\) than those of the model"):
        robusttune.save(other, tmp_path / "new", records)
    with pytest.raises(ValueError, match="do not say which weights"):
        robusttune.save(other, tmp_path / "new", robusttune.Records(records))
    with pytest.raises(ValueError, match="the weights of the model are not those that the run"):
        robusttune.save(other, tmp_path / "new", run=run)


@pytest.mark.parametrize(
    ("said", "match"),
    [
        (
            {"classes": ["dog", "cat"]},
            "measured on the classes .*'cat', 'dog'.*, but the card would name the outputs .*'dog', 'cat'",
        ),
        (
            {"normalized": False},
            r"measured on images normalised with mean=.*, but the card would state pixels on \[0, 1\]",
        ),
        (
            {"mean": 0.1, "std": 0.2},
            "measured on images normalised with .*, but the card would state images normalised",
        ),
    ],
)
def test_a_card_never_has_figures_of_another_preprocessing_or_order_of_classes(tmp_path, said, match):
    data = TensorDataset(torch.rand(8, 3, SIDE, SIDE), torch.arange(8) % 2)
    data.classes = ["cat", "dog"]
    model, space = timm.create_model("test_resnet", num_classes=2), {"mean": 0.5, "std": 0.25, "normalized": False}
    records = robusttune.evaluate(model, DataLoader(data, 8), "clean", **space, progress=False)
    with pytest.raises(ValueError, match=match):
        robusttune.save(model, tmp_path / "wrong", records, **said)
    robusttune.save(model, tmp_path / "right", records, classes=["a cat", "a dog"], mean=[0.5] * 3, std=[0.25] * 3)


def test_a_card_never_has_another_preprocessing_than_the_run(run, tmp_path):
    with pytest.raises(
        ValueError, match=r"the run was trained on pixels on \[0, 1\], but the card would state images norm"
    ):
        robusttune.save(run, tmp_path / "wrong", mean=0.5, std=0.25)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"license": "my own: see file"}, "an identifier as the Hub lists them is needed"),
        ({"name": 3}, "name is 3, but a text is needed"),
        ({"classes": "ab"}, "classes is 'ab', but a list of names is needed"),
        ({"overwrite": "no"}, "overwrite is 'no', but True or False is needed"),
        ({"classes": ["a"]}, "classes= names 1 classes .* has 2 outputs"),
        ({"mean": [0.5, 0.5], "std": [0.5, 0.5]}, "2 numbers, but the model takes images of 3 channels"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, arguments, match):
    with pytest.raises(ValueError, match=match):
        robusttune.save(timm.create_model("test_resnet", num_classes=2), tmp_path / "new", **arguments)


def test_a_folder_with_other_files_is_refused(saved, run, tmp_path):
    with pytest.raises(ValueError, match="is the folder of a run, whose checkpoints are not for others"):
        robusttune.save(run, run, overwrite=True)
    with pytest.raises(ValueError, match=r"is not empty \(README.md.*overwrite=True"):
        robusttune.save(run, saved)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"is not empty \(notes.txt\)"):
        robusttune.save(run, tmp_path, overwrite=True)
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ValueError, match=r"is not empty \(README.md, notes.txt\).*replace an earlier model"):
        robusttune.save(run, tmp_path, overwrite=True)
    assert (tmp_path / "README.md").read_text() == "mine"
    with pytest.raises(ValueError, match="is a file, but a folder is needed"):
        robusttune.save(run, tmp_path / "notes.txt")
    before = (saved / "README.md").read_text()
    robusttune.save(run, saved, license="mit", overwrite=True)
    assert (saved / "README.md").read_text() == before


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"and no model of robusttune\.save"):
        robusttune.save(tmp_path / "nothing", tmp_path / "new")


@pytest.mark.parametrize(("wrap", "inside"), [(nn.DataParallel, "module"), (torch.compile, "_orig_mod")])
def test_a_wrapper_is_refused_as_its_weights_have_other_names(tmp_path, wrap, inside):
    with pytest.raises(ValueError, match=rf"is wrapped in \w+, so its weights .* pass model\.{inside}"):
        robusttune.save(wrap(small()), tmp_path / "new", normalized=False)


def test_a_folder_that_could_not_be_replaced_in_full_has_no_card_of_other_weights(saved, tmp_path, monkeypatch):
    def full(path, text):
        raise OSError(28, "No space left on device")

    folder = shutil.copytree(saved, tmp_path / "digits")
    monkeypatch.setattr("robusttune.sharing.save.write_text", full)
    with pytest.raises(OSError, match="No space left"):
        robusttune.save(timm.create_model("test_resnet", num_classes=4), folder, normalized=False, overwrite=True)
    assert not (folder / "README.md").exists()
    with pytest.raises(ValueError, match=r"lacks README.md"):
        robusttune.push_to_hub(folder, "me/digits", dry_run=True)
