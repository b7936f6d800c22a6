"""Images without labels in the shell: beside labelled ones, and alone, for a model whose answers stand for labels."""

import json
import re
import shutil

import pytest
import torch
from PIL import Image
from short_runs import a_model, digits
from torch import nn

from robusttune import Records
from robusttune.cli import main
from robusttune.run import files

# timm's data sets leave the files that they have read to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*held-out accuracy"),
]

SHAPE = ["--size", "8", "--channels", "1", "--batch_size", "20"]
MODEL = ["--model", "short_runs:a_model", "--checkpoint", "model.pt", *SHAPE]
QUICK = ["--norm", "l2", "--eps", "0.3", "--epochs", "1", "--tasks", "none", "--steps", "1", "--ema", "0"]
QUICK += ["--augment", "none", "--lr", "0.01"]
TENS = [str(number) for number in range(10)]


def write(folder, first, count, *, labelled):
    images, labels = (part[first : first + count] for part in digits(first + count).tensors)
    for row, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        place = folder / str(label) if labelled else folder
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image[0] * 255).round().byte().numpy()).save(place / f"{row:03}.png")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Images of digits with and without class folders, and a model that has learnt from the former."""
    folder = tmp_path_factory.mktemp("digits")
    write(folder / "data" / "train", 0, 80, labelled=True)
    write(folder / "data" / "validation", 80, 40, labelled=True)
    write(folder / "traffic", 120, 60, labelled=False)
    model, (images, labels) = a_model(), digits(120).tensors
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    torch.save(model.state_dict(), folder / "model.pt")
    (folder / "names.txt").write_text("\n".join(TENS))
    (folder / "reversed.txt").write_text("\n".join(reversed(TENS)))
    return folder


@pytest.fixture
def there(source, tmp_path, monkeypatch):
    """The images and the model in the working directory."""
    shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ran(capsys, *words):
    """The exit code of a command, what it prints, and what it says."""
    capsys.readouterr()
    code = main(list(words))
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def hardened(capsys, out, *more, data="data", model=MODEL):
    return ran(capsys, "harden", *model, "--data", data, *QUICK, "--out", out, *more)


def facts_of(folder):
    return json.loads((folder / "run.json").read_text())


def weights_of(folder):
    return (folder / "model.safetensors").read_bytes()


def test_unlabelled_images_join_the_labelled_ones(there, capsys):
    taught = ["--unlabeled", "traffic", "--classes_file", "names.txt"]
    code, out, said = hardened(capsys, "runs/a", *taught)
    assert code == 0
    assert re.search(r"without labels +60 images", said + out)
    assert re.search(r"teacher +the model as it is now; right on \d+\.\d% of 40 held-out images", said + out)
    assert re.search(r"images +140, 20 in a batch", said + out)
    facts = facts_of(there / "runs/a")
    assert (facts["command"]["unlabeled"], facts["command"]["unlabeled_split"]) == ("traffic", "train")
    assert ran(capsys, "replay", "runs/a", "--trust", "true")[0] == 0
    # As it was finished, it goes on with a second epoch.
    options = [*taught, "--resume"]
    assert hardened(capsys, "runs/a", *options)[0] == 0
    code, out, said = ran(capsys, "estimate", *MODEL, "--data", "data", *QUICK, *taught, "--teacher", "runs/a")
    assert code == 0
    assert "teacher" in out
    assert "--unlabeled traffic" in out.splitlines()[-1]
    assert "--teacher runs/a" in out.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pretrain", "finetune", ""])
def test_a_run_in_stages_is_stopped_and_resumed(stage, there, capsys, monkeypatch):
    options = ["--unlabeled", "traffic", "--classes_file", "names.txt", "--pretrain_epochs", "2", "--finetune", "2"]
    options += ["--epochs", "2", "--checkpoint_every", "3", "--progress", "false"]
    assert hardened(capsys, "runs/a", *options)[0] == 0
    save, written = files.save_state, []

    def saved(folder, state):
        save(folder, state)
        written.append(folder.resolve())
        if written.count((there / "runs/b" / stage).resolve()) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(files, "save_state", saved)
        assert hardened(capsys, "runs/b", *options)[0] != 0
    assert not (there / "runs/b/model.safetensors").exists()
    assert hardened(capsys, "runs/b", *options, "--resume")[0] == 0
    assert weights_of(there / "runs/a") == weights_of(there / "runs/b")


def test_images_of_the_validation_split_among_those_without_labels_are_refused_before_the_stages(there, capsys):
    for place in sorted((there / "data/validation").rglob("*.png")):
        shutil.copy(place, there / "traffic" / f"held-{place.parent.name}-{place.name}")
    stages = ["--pretrain_epochs", "1", "--finetune", "1"]
    code, _, said = hardened(capsys, "runs/a", "--unlabeled", "traffic", "--classes_file", "names.txt", *stages)
    assert code == 1
    assert "40 images without labels are also among the held-out images" in said
    assert "remove them from --unlabeled, or pass another --val_split" in said
    assert not (there / "runs/a/pretrain").exists()


@pytest.mark.slow
def test_teachers_have_names(there, capsys):
    more = ["--unlabeled", "traffic", "--classes_file", "names.txt"]
    assert (
        hardened(capsys, "runs/self", *more, "--unlabeled_share", "0.5", "--drop_foreign", "--progress", "false")[0]
        == 0
    )
    taught = [*more, "--progress", "false", "--teacher"]
    code, _, said = hardened(capsys, "runs/file", *taught, "model.pt")
    assert (code, "the weights in 'model.pt' do not name their classes: outputs are taken in the order" in said) == (
        0,
        True,
    )
    assert hardened(capsys, "runs/own", *taught, "self")[0] == 0
    assert weights_of(there / "runs/file") == weights_of(there / "runs/own")
    assert facts_of(there / "runs/file")["command"]["teacher"] == "model.pt"
    assert ran(capsys, "replay", "runs/file", "--trust", "true")[0] == 0
    assert hardened(capsys, "runs/run", *taught, "runs/own")[0] == 0
    assert facts_of(there / "runs/run")["teacher"]["name"] == "runs/own"
    assert weights_of(there / "runs/run") != weights_of(there / "runs/own")
    assert ran(capsys, "replay", "runs/run", "--trust", "true")[0] == 0
    other = ["--progress", "false", "--unlabeled", "traffic", "--classes_file", "reversed.txt", "--teacher", "runs/own"]
    code, _, said = hardened(capsys, "runs/other", *other)
    assert code == 1
    assert "'runs/own' has 10 classes" in said
    torch.save({"state_dict": torch.load("model.pt"), "classes": TENS[::-1]}, "reversed.pt")
    code, _, said = hardened(capsys, "runs/other", *taught, "reversed.pt")
    assert code == 1
    assert "the teacher answers with other classes: the checkpoint 'reversed.pt' names 9, 8, 7" in said
    code, _, said = hardened(capsys, "runs/other", *taught, "nobody")
    assert code == 1
    assert "--teacher is 'nobody', but it must be 'self', none, the folder of a run, or a file of weights of" in said
    code, _, said = hardened(capsys, "runs/other", *taught, "none")
    assert code == 1
    assert "there are no tasks" in said


def test_a_trained_model_hardens_by_its_own_answers(there, capsys):
    code, out, said = hardened(capsys, "runs/a", "--classes_file", "names.txt", data="traffic")
    assert code == 0
    assert re.search(r"without labels +60 images", said + out)
    assert re.search(
        r"teacher +the model as it is now; gives each class to .* how often rightly is not known", said + out
    )
    facts = facts_of(there / "runs/a")
    assert (facts["about"]["classes"], facts["about"]["outputs"]) == (TENS, 10)
    assert "next: robusttune evaluate runs/a --model short_runs:a_model --data traffic" in out
    assert ran(capsys, "replay", "runs/a", "--trust", "true")[0] == 0
    again = ["--classes_file", "names.txt", "--resume", "--epochs", "2"]
    assert hardened(capsys, "runs/a", *again, data="traffic")[0] == 0
    # The run knows its classes, and is measured on images with labels as any other.
    code, out, _ = ran(capsys, "evaluate", "runs/a", "--trust", "true", "--data", "data", "--which", "clean")
    assert code == 0
    assert "balanced accuracy" in out
    code, out, said = ran(capsys, "estimate", *MODEL, "--data", "traffic", *QUICK)
    assert code == 0
    assert re.search(r"labels +none: a teacher's answers stand for them", said + out)


def test_epochs_on_images_alone_are_judged_by_labels_where_there_are_some(there, capsys):
    shutil.rmtree(there / "data/train")
    shutil.copytree(there / "traffic", there / "data/train")
    code, out, said = hardened(capsys, "runs/a", "--classes_file", "names.txt")
    assert code == 0
    assert re.search(r"held out +40 images of the split 'validation', to choose the epoch by\n", said + out)
    code, out, said = hardened(capsys, "runs/b")
    assert code == 0
    assert "it is not known which output of the model is which class: pass --classes_file" in said
    assert re.search(r"held out +none", said + out)
    shutil.rmtree(there / "data/validation")
    write(there / "data/validation", 180, 20, labelled=False)
    code, out, said = hardened(capsys, "runs/c")
    assert code == 0
    assert re.search(
        r"20 images of the split 'validation', to choose the epoch by agreement with the teacher", said + out
    )


UNFIT = [
    (
        ["--model", "timm:test_resnet", *SHAPE],
        "timm:test_resnet has random weights, so these say nothing: put the images",
    ),
    (
        [*MODEL, "--classes", "7"],
        "has 10 outputs and is replaced by a new one of 7, which is not trained, so these say",
    ),
    (["--model", "short_runs:a_model", *SHAPE], "comes without --checkpoint and may not be trained, so these say"),
    ([*MODEL, "--teacher", "none"], "--teacher is none, but the images have no labels"),
]


@pytest.mark.parametrize(("model", "why"), UNFIT, ids=["random", "new head", "unknown", "no teacher"])
def test_images_alone_need_a_trained_model(there, capsys, model, why):
    code, _, said = hardened(capsys, "runs/a", data="traffic", model=model)
    assert code == 1
    assert why in said
    if "--teacher" not in model:
        assert "has images, but no folder of images for each class, so that the model's own answers would be" in said
    assert not (there / "runs/a").exists()


def test_a_run_is_measured_on_images_alone(there, capsys):
    assert hardened(capsys, "runs/a", "--classes_file", "names.txt")[0] == 0
    code, out, said = ran(
        capsys, "evaluate", "runs/a", "--trust", "true", "--data", "traffic", "--which", "clean", "--out", "runs/e"
    )
    assert code == 0
    assert re.search(r"agreement \| 100\.0%", out)
    assert "the same as its own answers for the image as it is. It is not accuracy" in out
    assert re.search(r"labels +none: a teacher's answers stand for them", said + out)
    for teacher in ("model.pt", "runs/a"):
        given = ["--data", "traffic", "--which", "clean", "--teacher", teacher, "--out", f"runs/by-{teacher}"]
        code, out, _ = ran(capsys, "evaluate", "runs/a", "--trust", "true", *given)
        assert code == 0
        assert "the same as the answers of " in out
    assert Records.load("runs/e")[0].metric == "agreement"
    code, out, _ = ran(capsys, "compare", "runs/e", "runs/by-runs/a")
    assert (code, "clean, agreement" in out, "It is not accuracy" in out) == (0, True, True)
    code, _, said = ran(
        capsys, "evaluate", "runs/a", "--trust", "true", "--data", "data", "--which", "clean", "--teacher", "model.pt"
    )
    assert code == 1
    assert "--teacher gives labels to images that have none, but the loader yields labels: leave --teacher out" in said
    given = ["--data", "traffic", "--norm", "l2", "--which", "clean", "--teacher", "model.pt"]
    code, out, _ = ran(capsys, "estimate", *MODEL, *given)
    assert (code, "images forward" in out) == (0, True)
    random = ["--model", "timm:test_resnet", *SHAPE, "--data", "traffic", "--which", "clean"]
    assert "has random weights, so these say nothing" in ran(capsys, "evaluate", *random)[2]
    assert ran(capsys, "evaluate", *random, "--classes", "5", "--untrained")[0] == 0
