"""Runs that are evaluated and monitored by their folders, on photographs of handwritten digits."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torchvision import transforms
from torchvision.datasets import ImageFolder

import robusttune
from robusttune.cli import main
from robusttune.evaluations.corruptions import corruptions
from robusttune.evaluations.strong import strong
from robusttune.evaluations.sweep import sweep

# timm's data sets leave the files that they have read to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
NAMES = ["one", "seven", "three"]
HALF = [0.5, 0.5, 0.5]
SIZE = 16


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with digits by class, and a run of a ResNet of timm on them, which takes normalised images."""
    place, digits = tmp_path_factory.mktemp("home"), load_digits()
    for row in range(240):
        name = {1: "one", 7: "seven", 3: "three"}.get(int(digits.target[row]))
        if name is not None:
            (place / "data" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray((digits.images[row] * 15.9).astype("uint8")).save(place / "data" / name / f"{row}.png")
    model = ["--model", "timm:test_resnet", "--data", "data", "--size", str(SIZE), "--batch_size", "16"]
    threat = ["--norm", "l2", "--eps", "64/255", "--steps", "1", "--tasks", "{rotation: 0.5}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(["harden", *model, *threat, "--epochs", "2", "--progress", "false", "--out", "runs/a"]) == 0
    return place


@pytest.fixture
def at_home(home, monkeypatch):
    monkeypatch.chdir(home)
    return home


def a_loader(*steps, size=SIZE, folder="data"):
    """Images by class, with further steps of their transform."""
    chain = [transforms.Resize(size), transforms.ToTensor(), *steps]
    return torch.utils.data.DataLoader(ImageFolder(folder, transforms.Compose(chain)), 20)


def said(caplog):
    """What is logged, but that the model, which has hardly been trained, may as well guess."""
    return [record.message for record in caplog.records if "which is no more than guessing" not in record.message]


def test_a_folder_gives_the_numbers_of_its_model_with_all_that_the_run_knows(at_home, caplog):
    which = ["clean", partial(sweep, steps=2), "pretext"]
    found = robusttune.evaluate("runs/a", a_loader(), which, progress=False)
    assert not said(caplog)
    settings = {"norm": "l2", "eps": 64 / 255, "mean": HALF, "std": HALF, "heads": "runs/a", "progress": False}
    expected = robusttune.evaluate(robusttune.load("runs/a"), a_loader(), which, **settings)
    assert list(found) == list(expected)
    assert found.facts["threat"] == f"l2 eps {64 / 255:.6g}"
    assert "head accuracy" in {record.metric for record in found}
    normalised = robusttune.evaluate(Path("runs/a"), a_loader(transforms.Normalize(HALF, HALF)), "clean")
    assert [record.value for record in normalised] == [record.value for record in found.where("clean")]


def test_the_line_of_a_folder_says_what_is_taken(at_home, capsys):
    robusttune.evaluate("runs/a", a_loader(), "clean")
    assert "the run in 'runs/a': l2 eps 64/255, images normalised with mean=(0.5, 0.5, 0.5)" in capsys.readouterr().err
    nameless = [next(iter(a_loader()))]
    robusttune.evaluate("runs/a", nameless, "clean")
    assert "labels count as those of the run: 0 one, 1 seven, 2 three" in capsys.readouterr().err


def test_what_is_passed_comes_first(at_home):
    found = robusttune.evaluate("runs/a", a_loader(), "clean", norm="linf", progress=False)
    assert found.facts["threat"] == f"linf eps {8 / 255:.6g}"
    found = robusttune.evaluate("runs/a", a_loader(), "clean", eps=1.0, mean=0.0, std=1.0, progress=False)
    assert found.facts["threat"] == "l2 eps 1"
    assert "mean=(0), std=(1)" in found.facts["pixels"]


def test_an_evaluation_of_earlier_weights_is_not_taken_for_that_of_the_run(at_home, tmp_path):
    run = Path(shutil.copytree("runs/a", tmp_path / "b"))
    measured = robusttune.evaluate(run, a_loader(), "clean", out=run / "eval", progress=False)
    assert list(robusttune.Records.load(run)) == list(measured)
    weights = load_file(run / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, run / "model.safetensors")
    with pytest.raises(ValueError, match=r"/eval' is of other weights than '.*/b' holds now: evaluate it again"):
        robusttune.compare(run, run / "eval")
    assert list(robusttune.Records.load(run / "eval")) == list(measured)


def test_a_loaded_model_says_how_its_images_are_normalised(at_home, caplog):
    robusttune.load("runs/a")
    assert "takes images normalised with mean=[0.5, 0.5, 0.5] and std=[0.5, 0.5, 0.5]: pass these to" in caplog.text


def test_another_size_is_said(at_home, caplog):
    robusttune.evaluate("runs/a", a_loader(size=24), "clean", progress=False)
    assert "the model of 'runs/a' was trained on images of 16x16, and gets 24x24" in caplog.text


@pytest.fixture
def renamed(at_home):
    for name in NAMES:
        (at_home / "other" / name.replace("seven", "sieben")).mkdir(parents=True, exist_ok=True)
    for path in at_home.glob("data/*/*.png"):
        place = at_home / "other" / path.parent.name.replace("seven", "sieben") / path.name
        place.write_bytes(path.read_bytes())
    return "other"


def test_what_does_not_fit_a_run_is_refused(at_home, renamed):
    evaluate = partial(robusttune.evaluate, which="clean", progress=False)
    with pytest.raises(
        ValueError, match=r"'runs/a' has 3 classes, one, seven, three, but by loader\.dataset\.classes class 1 is"
    ):
        evaluate("runs/a", a_loader(folder=renamed))
    with pytest.raises(ValueError, match="images have 1 channel, but the model of 'runs/a' takes images of 3"):
        evaluate("runs/a", a_loader(transforms.Grayscale()))
    with pytest.raises(
        ValueError, match=r"normalised with mean=\(0\.4.*the model of 'runs/a' takes .* mean=\(0\.5, 0\.5, 0\.5\)"
    ):
        evaluate("runs/a", a_loader(transforms.Normalize([0.4] * 3, [0.3] * 3)))
    with pytest.raises(ValueError, match="leave it out"):
        evaluate("runs/a", a_loader(), run="runs/a")
    with pytest.raises(ValueError, match=r"'data' holds no run\.json of a run"):
        evaluate("data", a_loader())
    with pytest.raises(ValueError, match="images have 1 channel, but the model of 'runs/a' takes images of 3"):
        robusttune.Monitor("runs/a", a_loader(transforms.Grayscale()))


def test_a_run_without_labels_is_refused(at_home, tmp_path):
    facts = json.loads(Path("runs/a/run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**facts, "run": "pretrain"}))
    with pytest.raises(ValueError, match="learnt without labels, so its classifier is not trained: harden it first"):
        robusttune.evaluate(tmp_path, a_loader())


def test_a_model_is_evaluated_as_that_of_its_run(at_home, caplog):
    model = robusttune.load("runs/a")
    caplog.clear()
    found = robusttune.evaluate(model, a_loader(), "clean", run="runs/a", progress=False)
    assert list(found) == list(robusttune.evaluate("runs/a", a_loader(), "clean", progress=False))
    assert not said(caplog)
    torch.nn.init.zeros_(model.get_classifier().weight)
    robusttune.evaluate(model, a_loader(), "clean", run="runs/a", progress=False)
    assert "the weights of the model are not those that the run in 'runs/a' ended with" in caplog.text


def test_a_folder_is_monitored_with_its_heads(at_home, tmp_path):
    loader = a_loader()
    monitor = robusttune.Monitor("runs/a", loader, seed=3)
    settings = {"heads": "runs/a", "mean": HALF, "std": HALF, "seed": 3}
    expected = robusttune.Monitor(robusttune.load("runs/a"), loader, **settings)
    assert monitor.statistics == expected.statistics
    assert "strangeness" in monitor.statistics
    images = next(iter(loader))[0]
    assert monitor(images) == expected(images)
    again = robusttune.Monitor.load(monitor.save(tmp_path / "reference"), "runs/a")
    assert again(images) == monitor(images)


def test_heads_do_not_measure_images_on_which_they_count_otherwise(at_home, caplog):
    wide = a_loader(transforms.Resize((SIZE, SIZE + 8)))
    with pytest.raises(
        ValueError,
        match=r"rotation head in 'runs/a' was trained on images of 16x16 px, which have 4 .* 16x24 px have 2",
    ):
        robusttune.evaluate("runs/a", wide, "pretext", heads="runs/a", progress=False)
    assert "strangeness" not in robusttune.Monitor("runs/a", wide).statistics
    assert "the pretext heads in 'runs/a' are left out: the rotation head" in caplog.text
    larger = robusttune.evaluate("runs/a", a_loader(size=24), "pretext", progress=False)
    assert larger[0].images == len(wide.dataset)


def test_a_model_of_timm_is_known_in_a_run_from_python(at_home, tmp_path, capsys):
    loader = a_loader()
    model = timm.create_model("test_resnet", num_classes=3)
    robusttune.harden(
        model, loader, norm="linf", eps=4 / 255, steps=1, epochs=1, tasks=None, progress=False, out=tmp_path
    )
    expected = robusttune.evaluate(model, loader, "clean", norm="linf", eps=4 / 255, progress=False)
    found = robusttune.evaluate(tmp_path, loader, "clean", progress=False)
    assert (list(found), found.facts["threat"]) == (list(expected), expected.facts["threat"])
    assert main(["evaluate", str(tmp_path), "--data", "data", "--which", "clean", "--progress", "false"]) == 0
    assert f"| {100 * found[0].value:.1f}% |" in " ".join(capsys.readouterr().out.split())


def test_other_statistics_than_those_of_the_run_are_said(at_home, caplog, capsys):
    clean = partial(robusttune.evaluate, "runs/a", a_loader(), "clean", progress=False)
    clean(mean=HALF, std=HALF)
    assert said(caplog) == []
    clean(mean=0.2, std=0.5)
    (line,) = said(caplog)
    assert "'runs/a' was trained on images normalised with mean=(0.5, 0.5, 0.5)" in line
    assert "here it gets images normalised with mean=(0.2) and std=(0.5), as mean= and std= say" in line
    options = ["--data", "data", "--which", "clean", "--mean", "0.2", "--std", "0.5", "--progress", "false"]
    for model in (
        ["runs/a"],
        ["--model", "timm:test_resnet", "--checkpoint", "runs/a/model.safetensors", "--size", "16"],
    ):
        assert main(["evaluate", *model, *options]) == 0
        assert capsys.readouterr().err.count("as --mean and --std say: leave both out") == 1


def test_a_run_without_an_adversary_is_attacked_at_the_customary_radius(at_home, tmp_path):
    shutil.copytree("runs/a", tmp_path / "ordinary")
    facts = json.loads((tmp_path / "ordinary/run.json").read_text(encoding="utf-8"))
    facts["about"]["eps"] = "0"
    (tmp_path / "ordinary/run.json").write_text(json.dumps(facts), encoding="utf-8")
    strong_of = partial(strong, steps=1, target_steps=1)
    for eps, radius in ((None, 8 / 255), (0.0, 0.0)):
        records = robusttune.evaluate(
            tmp_path / "ordinary", a_loader(), strong_of, norm="linf", eps=eps, subset=2, progress=False
        )
        assert {record.setting["eps"] for record in records} == {radius}
    own = robusttune.evaluate(tmp_path / "ordinary", a_loader(), strong_of, subset=2, progress=False)
    assert {record.setting["norm"] for record in own} == {"l2"}
    assert min(record.setting["eps"] for record in own) > 0


def test_labels_that_a_transform_maps_to_those_of_the_run_are_taken(at_home, tmp_path):
    shutil.copytree("data", tmp_path / "data")
    shutil.rmtree(tmp_path / "data/one")
    (tmp_path / "data/seven").rename(tmp_path / "data/x")
    loader = a_loader(folder=tmp_path / "data")
    with pytest.raises(ValueError, match="or map their labels to those of the run in the target_transform"):
        robusttune.evaluate("runs/a", loader, "clean", progress=False)
    loader.dataset.target_transform = {0: 2, 1: 1}.get  # three, x
    mapped = robusttune.evaluate("runs/a", loader, "clean", progress=False)
    every = robusttune.evaluate("runs/a", a_loader(), "clean", progress=False)
    assert sorted(mapped.labels) == sorted(label for label in every.labels if label > 0)
    assert mapped.classes == tuple(NAMES)


def test_two_orders_of_names_are_said_where_the_run_has_no_names(at_home, tmp_path, caplog):
    shutil.copytree("runs/a", tmp_path / "run")
    facts = json.loads((tmp_path / "run/run.json").read_text(encoding="utf-8"))
    facts["about"]["classes"] = None
    (tmp_path / "run/run.json").write_text(json.dumps(facts), encoding="utf-8")
    for name, number in zip(NAMES, ("1", "10", "2"), strict=True):
        shutil.copytree(Path("data") / name, tmp_path / "data" / number)
    loader = a_loader(folder=tmp_path / "data")
    robusttune.evaluate(tmp_path / "run", loader, "clean", progress=False)
    assert "so its class 1 may be '10' (sorted as text" in caplog.text
    caplog.clear()
    loader.dataset.target_transform = {0: 0, 1: 2, 2: 1}.get  # by number
    robusttune.evaluate(tmp_path / "run", loader, "clean", progress=False)
    robusttune.evaluate(tmp_path / "run", a_loader(), "clean", progress=False)
    assert "sorted as text" not in caplog.text


def test_answers_are_named_as_the_run_names_its_classes(at_home, renamed):
    assert robusttune.Monitor("runs/a", a_loader(folder=renamed)).classes == tuple(NAMES)


def test_corruptions_of_the_training_are_marked_in_another_process_too(tmp_path):
    images, labels = torch.rand(16, 3, SIZE, SIZE), torch.arange(16) % 3
    model = timm.create_model("test_resnet", num_classes=3)
    out, short = tmp_path / "a", {"tasks": None, "epochs": 1, "steps": 1, "tune": False, "progress": False}
    robusttune.harden(model, [(images, labels)], norm="l2", augment="noise", out=out, **short)
    which = partial(corruptions, names=["gaussian_noise", "contrast"], severities=[1])
    copy = timm.create_model("test_resnet", num_classes=3)
    copy.load_state_dict(model.state_dict())
    published = robusttune.save(model, tmp_path / "b", run=out, normalized=False)
    for source in ({"model": out}, {"model": published}, {"model": copy, "run": out}):
        with pytest.warns(
            UserWarning, match="the model was trained on gaussian_noise: its accuracy on that says little"
        ):
            records = robusttune.evaluate(loader=[(images, labels)], which=which, progress=False, **source)
        seen = {
            each.setting.get("corruption") or each.setting["over"]: "in training" in each.setting for each in records
        }
        assert seen == {"gaussian_noise": True, "contrast": False, "noise": True, "digital": False, "all": True}
        (check,) = records.require("corruptions>=0.001")
        assert check.what.endswith("mean over all corruptions, some of which the training has seen")
    text = robusttune.report(records, tmp_path / "r", sections=["verdict", "corruptions"]).read_text(encoding="utf-8")
    assert "; the training has seen some of them)" in text
    assert "16 images *" in text
