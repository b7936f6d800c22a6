"""A model that came with the names of its classes: they are read, said, and labels go by them."""

import json
import re

import numpy as np
import pytest
import timm
import torch
from brightness import Configured, Net, numbered, write
from PIL import Image
from safetensors.torch import save_file
from timm.data import ImageNetInfo
from torchvision import models as zoo

from robusttune.cli import main
from robusttune.cli.model_labels import came_with, names_in
from robusttune.cli.options import Sources
from robusttune.cli.sources import named
from robusttune.model.named import statistics_of

# timm's data sets leave the files that they have read to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:no weight of the model has changed"),
]

NAMES = ["owl", "ant", "10", "cat", "2", "bee"]  # neither sorted as text nor by number
WNIDS = ImageNetInfo().label_names()


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Folders of six classes, in an order that only their names tell, and weights; it is the working directory."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data" / "val", numbered(NAMES), classes=6)
    return tmp_path


def evaluated(capsys, *more, data="data", model="brightness:Net", arguments="{classes: 6}"):
    """The exit code, the accuracy that is printed, and what is said."""
    options = ["--model", model, "--model_args", arguments, "--data", data, "--size", "8", "--channels", "1"]
    code = main(["evaluate", *options, "--which", "clean", "--progress", "false", *more])
    shown = capsys.readouterr()
    found = re.search(r"accuracy \| ([\d.]+)%", shown.out)
    return code, None if found is None else float(found[1]), shown.err


TOP = {
    "classes": NAMES,
    "class_names": tuple(NAMES),
    "class_to_idx": {name: row for row, name in enumerate(NAMES)},
    "idx_to_class": dict(enumerate(NAMES)),
    "id2label": {str(row): name for row, name in enumerate(NAMES)},
    "meta": {"dataset_meta": {"CLASSES": NAMES}},
}


@pytest.mark.parametrize("weights", ["state_dict", "model"])
@pytest.mark.parametrize("key", sorted(TOP))
def test_names_in_a_checkpoint_of_torch(weights, key, data, capsys):
    torch.save({weights: Net(6).state_dict(), "epoch": 3, key: TOP[key]}, "theirs.pth")
    code, accuracy, said = evaluated(capsys, "--checkpoint", "theirs.pth")
    assert (code, accuracy) == (0, 100.0)
    assert "the checkpoint 'theirs.pth' names 6 classes, owl, ant, 10, cat, 2, bee: labels go by these names" in said


@pytest.mark.parametrize("key", ["id2label", "classes", "class_names", "labels", "config"])
def test_names_in_the_metadata_of_safetensors(key, data, capsys):
    value = {"config": {"id2label": TOP["id2label"]}, "id2label": TOP["id2label"]}.get(key, NAMES)
    save_file(Net(6).state_dict(), "theirs.safetensors", {"format": "pt", key: json.dumps(value)})
    code, accuracy, said = evaluated(capsys, "--checkpoint", "theirs.safetensors")
    assert (code, accuracy) == (0, 100.0)
    assert "the checkpoint 'theirs.safetensors' names 6 classes" in said


@pytest.mark.parametrize(
    "config",
    [{"id2label": TOP["id2label"]}, {"label_names": NAMES}, {"pretrained_cfg": {"label_names": NAMES}}],
    ids=["Hugging Face", "timm's hub", "timm's pretrained_cfg"],
)
@pytest.mark.parametrize("named", ["folder", "file"])
def test_names_in_the_configuration_beside_the_weights(config, named, data, capsys):
    (data / "theirs").mkdir()
    save_file(Net(6).state_dict(), "theirs/model.safetensors")
    (data / "theirs" / "config.json").write_text(json.dumps(config))
    checkpoint = "theirs" if named == "folder" else "theirs/model.safetensors"
    code, accuracy, said = evaluated(capsys, "--checkpoint", checkpoint)
    assert (code, accuracy) == (0, 100.0)
    assert "the file 'theirs/config.json' beside the weights names 6 classes" in said


@pytest.mark.parametrize("model", ["brightness:Configured", "brightness:configured_within"])
def test_names_in_the_configuration_of_a_model(model, data, capsys):
    code, accuracy, said = evaluated(capsys, model=model, arguments="{names: owl ant 10 cat 2 bee}")
    assert (code, accuracy) == (0, 100.0)
    assert f"the config of {model} names 6 classes" in said


def test_names_that_differ_are_refused_with_both_shown_and_a_file_of_names_wins(data, capsys):
    other = ["owl", "ant", "x", "cat", "y", "bee"]
    torch.save({"state_dict": Net(6).state_dict(), "classes": other}, "theirs.pth")
    code, accuracy, said = evaluated(capsys, "--checkpoint", "theirs.pth")
    assert (code, accuracy) == (1, None)
    assert "the checkpoint 'theirs.pth' names 6 classes, owl, ant, x, cat, y, bee, but the split" in said
    assert "has 6, 10, 2, ant, bee, cat, owl: 4 of them agree; rename the folders" in said
    (data / "names.txt").write_text("\n".join(NAMES))
    code, accuracy, said = evaluated(capsys, "--checkpoint", "theirs.pth", "--classes_file", "names.txt")
    assert (code, accuracy) == (0, 100.0)
    assert "names 6 classes" not in said


def test_a_class_without_a_folder_keeps_its_output(data, capsys):
    torch.save({"state_dict": Net(6).state_dict(), "classes": NAMES}, "theirs.pth")
    write(data / "fewer", {"cat": 3, "owl": 0}, classes=6)
    code, accuracy, said = evaluated(capsys, "--checkpoint", "theirs.pth", data="fewer")
    assert (code, accuracy) == (0, 100.0)
    assert "all 6 outputs stay" in said
    assert "has no image of 4 of 6 classes: ant, 10, 2, bee" in said


def test_placeholders_and_names_of_another_number_of_outputs(data, capsys):
    for names in ([f"LABEL_{row}" for row in range(12)], list(map(str, range(12)))):
        torch.save({"state_dict": Net(12).state_dict(), "classes": names}, "theirs.pth")
        numbers = data / names[0]
        write(numbers, numbered(sorted(map(str, range(12)))), classes=12)
        code, accuracy, said = evaluated(
            capsys, "--checkpoint", "theirs.pth", data=str(numbers), arguments="{classes: 12}"
        )
        assert (code, accuracy) == (1, None)
        assert "the names of its classes are not known: class 2 may be '10'" in said
    torch.save({"state_dict": Net(6).state_dict(), "classes": NAMES}, "theirs.pth")
    code, _, said = evaluated(capsys, "--checkpoint", "theirs.pth", "--classes", "7")
    assert code == 1
    assert "7, but the checkpoint 'theirs.pth' names 6: leave --classes out" in said
    assert came_with(Sources("timm:resnet18", "", checkpoint="theirs.pth", classes=7), None, training=True) is None


def test_what_is_no_list_of_names():
    for facts in (
        {"classes": 10},
        {"classes": [0, 1]},
        {"labels": torch.zeros(3)},
        {"id2label": {0: "a", 2: "b"}},
        {"classes": "[broken"},
        {"classes": ["only one"]},
        {"class_to_idx": {"a": 0, "b": 0}},
        [],
        None,
    ):
        assert names_in(facts) is None


def test_a_run_remembers_the_names_that_its_model_came_with(data, capsys):
    torch.save({"state_dict": Net(6).state_dict(), "classes": NAMES}, "theirs.pth")
    write(data / "data" / "train", numbered(NAMES), classes=6)
    quick = ["--epochs", "1", "--tasks", "null", "--steps", "1", "--lr", "0", "--ema", "0", "--norm", "linf"]
    source = ["--model", "brightness:Net", "--model_args", "{classes: 6}", "--size", "8", "--channels", "1"]
    more = [*quick, "--eps", "8/255", "--progress", "false", "--checkpoint", "theirs.pth"]
    assert main(["harden", *source, "--data", "data", *more, "--out", "runs/a"]) == 0
    assert json.loads((data / "runs/a/run.json").read_text())["about"]["classes"] == NAMES
    write(data / "others", {"kiwi": 0, "plum": 1}, classes=6)
    with pytest.raises(ValueError, match="0 of them agree"):
        came_with(Sources(*source[1::2][:1], "", checkpoint="theirs.pth"), None, training=False).names_for(
            ["kiwi", "plum"], "it"
        )
    capsys.readouterr()
    assert main(["harden", *source, "--data", "others", *more, "--out", "runs/b"]) == 1
    said = capsys.readouterr().err
    assert "0 of them agree, and the model is trained on those of the images" in said


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A model of timm with 1,000 outputs in a folder, as its hub has them, which is right on three classes of ImageNet."""
    monkeypatch.chdir(tmp_path)
    model = timm.create_model("test_resnet", in_chans=1).eval()
    rows = {WNIDS[300]: 300, WNIDS[7]: 7, WNIDS[2]: 2}
    for level, name in enumerate(rows):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.fromarray(np.full((32, 32), 100 * level, np.uint8)).save(tmp_path / "data" / name / "0.png")
    with torch.no_grad():
        images = torch.tensor([0, 100, 200])[:, None, None, None].expand(3, 1, 32, 32) / 255
        features = model.forward_head(model.forward_features(images), pre_logits=True)
        level = features @ features[2] / features[2].norm()  # features of grey images lie on one line
        head = model.get_classifier()
        head.weight.zero_()
        head.weight[list(rows.values())] = 2 * level[:, None] * features[2] / features[2].norm()
        head.bias.fill_(-1000.0)
        head.bias[list(rows.values())] = -(level**2)
    (tmp_path / "theirs").mkdir()
    save_file(model.state_dict(), "theirs/model.safetensors")
    facts = {"architecture": "test_resnet", "num_classes": 1000, "pretrained_cfg": {"num_classes": 1000}}
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(facts))
    return tmp_path


HUB = ["--model", "timm:local-dir:./theirs", "--data", "data", "--size", "32", "--channels", "1", "--progress", "false"]


def test_a_published_head_is_measured_on_some_of_its_classes(hub, capsys):
    assert main(["evaluate", *HUB, "--pretrained", "true", "--which", "clean"]) == 0
    shown = capsys.readouterr()
    assert re.search(r"accuracy \| 100", shown.out)
    assert "names 1000 classes, n01440764, n01443537" in shown.err
    assert "labels go by these names; all 1000 outputs stay" in shown.err


def test_a_published_head_with_names_of_its_own(hub, capsys):
    names = [f"name {row}" for row in range(1000)]
    facts = json.loads((hub / "theirs" / "config.json").read_text())
    (hub / "theirs" / "config.json").write_text(json.dumps({**facts, "label_names": names}))
    assert main(["evaluate", *HUB, "--pretrained", "true", "--which", "clean"]) == 1
    assert "0 of them agree" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--classes", "1000"], []], ids=["asked for", "in the checkpoint"])
def test_a_thousand_outputs_are_those_of_imagenet(more, hub, capsys):
    options = [*HUB, "--which", "clean", "--checkpoint", "theirs/model.safetensors", *more]
    options[1] = "timm:test_resnet"
    assert main(["evaluate", *options]) == 0
    shown = capsys.readouterr()
    assert re.search(r"accuracy \| 100", shown.out)
    assert "ImageNet, which has as many classes as timm:test_resnet has outputs, names 1000 classes" in shown.err


def test_imagenet_is_known_by_three_spellings_and_training_on_less_takes_another_head():
    came = came_with(Sources("torchvision:resnet18", "", pretrained=True), None, training=False)
    words = ImageNetInfo().label_descriptions()
    categories = zoo.ResNet18_Weights.DEFAULT.meta["categories"]
    for spelling in (WNIDS, words, categories):
        assert came.names_for(spelling[5:8], "it")[:9] == tuple(spelling[:9])
    assert came.names_for(["my", "own"], "it") is None
    assert came.names_for(None, "it") is None
    training = came_with(Sources("timm:resnet18", "", pretrained=True), None, training=True)
    assert training.names_for(WNIDS[5:8], "it") is None
    assert training.names_for(WNIDS, "it") == tuple(WNIDS)
    asked = came_with(Sources("timm:resnet18", "", pretrained=True, classes=1000), None, training=True)
    assert asked.names_for(WNIDS[5:8], "it") == asked.names_for(None, "it") == tuple(WNIDS)
    assert came_with(Sources("timm:resnet18", "", pretrained=True, classes=3), None, training=True) is None
    assert came_with(Sources("timm:resnet18", ""), None, training=False) is None


@pytest.mark.parametrize(
    ("model", "settings"),
    [("torchvision:resnet18", {"weights": "IMAGENET1K_V1"}), ("timm:resnet18", {"pretrained": True})],
)
def test_published_weights_by_the_librarys_own_argument_bring_classes_and_pixels(model, settings):
    sources = Sources(model, "", model_args=settings)
    assert came_with(sources, None, training=False).names_for(WNIDS[5:8], "it") == tuple(WNIDS)
    assert (
        statistics_of(named(sources), zoo.resnet18() if "weights" in settings else timm.create_model("resnet18"))[0]
        is not None
    )
    assert came_with(Sources(model, "", model_args=dict.fromkeys(settings)), None, training=False) is None


def test_a_function_that_makes_a_model_with_a_published_head(hub, capsys):
    arguments = ["--model_args", "{model_name: 'local-dir:./theirs', pretrained: true, in_chans: 1}"]
    options = [*HUB, *arguments, "--which", "clean"]
    options[1] = "timm.models:create_model"
    assert main(["evaluate", *options]) == 0
    shown = capsys.readouterr()
    assert re.search(r"accuracy \| 100", shown.out)
    assert "as timm.models:create_model has outputs, names 1000 classes" in shown.err


def test_words_of_a_model_of_imagenet_are_found_in_folders_by_number():
    model = Configured(ImageNetInfo().label_descriptions())
    came = came_with(Sources("mine:model", ""), model, training=False)
    assert came.names_for(WNIDS[5:8], "it") == tuple(WNIDS)
