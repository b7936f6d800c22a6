"""The look at a teacher's labels before a run, and the warnings and refusals that come of it."""

import json
import re

import pytest
import torch
from short_runs import a_model, digits, hardened, same, weights_of
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from robusttune import replay
from robusttune.model.teacher import Teacher
from robusttune.run import files
from robusttune.training import run_facts

LABELLED, MORE = 100, 300


def labelled(count=LABELLED):
    images, labels = digits().tensors
    return DataLoader(TensorDataset(images[:count], labels[:count]), 25, shuffle=True)


def more(images=None):
    return DataLoader(TensorDataset(digits().tensors[0][LABELLED:] if images is None else images), 50, shuffle=True)


class Reads(nn.Module):
    """A teacher that knows the label of each image by heart, but answers some classes by another."""

    def __init__(self, instead=None):
        super().__init__()
        data = digits(1700)
        self.known = {image.numpy().tobytes(): int(label) for image, label in zip(*data.tensors, strict=True)}
        self.instead = instead or {}

    def forward(self, images):
        labels = [self.known.get(image.numpy().tobytes(), 0) for image in images]
        return nn.functional.one_hot(torch.tensor([self.instead.get(label, label) for label in labels]), 10).float()


def warnings_in(caplog):
    """What was warned of, but for the model that is no better than guessing."""
    said = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    return [each for each in said if "guessing" not in each]


def run(teacher, unlabeled=None, loader=None, **settings):
    return hardened(
        a_model(),
        labelled() if loader is None else loader,
        unlabeled_loader=more() if unlabeled is None else unlabeled,
        teacher=teacher,
        **{"tasks": None, **settings},
    )


def test_the_labels_are_described_in_one_line(caplog, tmp_path):
    caplog.set_level("INFO", "robusttune")
    truth = digits().tensors[1][LABELLED:]
    shares = torch.bincount(truth, minlength=10) / len(truth)
    run(Reads(), out=tmp_path / "run")
    spread = f"gives each class to {100 * shares.min():.1f}% to {100 * shares.max():.1f}% of them"
    assert "without labels  300 images, " in caplog.text
    assert f"Reads; right on 100.0% of 100 labelled images, which it may have learnt from, {spread}" in caplog.text
    (warning,) = warnings_in(caplog)
    assert warning.startswith(
        "how often the teacher's labels are right is not known, as it may have learnt from the labelled"
    )
    assert "none of them were held out: pass val_loader= with labelled images that are not trained on" in warning
    facts = json.loads((tmp_path / "run" / "run.json").read_text())["labelling"]
    assert facts["accuracy"] == 1.0
    assert facts["labels"] == pytest.approx(shares.tolist())
    caplog.clear()
    images, labels = digits(1000).tensors
    run(Reads(), val_loader=[(images[600:700], labels[600:700])])
    assert "right on 100.0% of 100 held-out images, gives each class to" in caplog.text
    assert not warnings_in(caplog)


def test_bad_labels_are_warned_of(caplog):
    run(Reads(dict.fromkeys(range(4), 5)))
    warnings = warnings_in(caplog)
    right = float((digits().tensors[1][:LABELLED] >= 4).float().mean())
    assert f"right on only {100 * right:.1f}% of 100 images with labels" in warnings[0]
    assert "finetune=" in warnings[0]
    assert "none of the images without labels the class 0, 1, 2, 3: either" in warnings[1]
    assert len(warnings) == 2


def test_a_class_that_is_missing_is_named(caplog):
    data = TensorDataset(*labelled().dataset.tensors)
    data.classes = [f"digit {number}" for number in range(10)]
    run(Reads({7: 1}), loader=DataLoader(data, 25))
    _, warning = warnings_in(caplog)
    assert "the class digit 7: either they hold no such images" in warning


def test_held_out_images_among_those_without_labels_are_refused():
    images, labels = digits().tensors
    with pytest.raises(ValueError, match="20 images without labels are also among the held-out images"):
        run("self", val_loader=[(images[380:], labels[380:])])
    with pytest.raises(ValueError, match="20 images without labels are also among the held-out images"):
        hardened(a_model(), [images], val_loader=[(images[380:], labels[380:])])
    run("self", more(images[100:380]), val_loader=[(images[380:], labels[380:])])


def test_foreign_images_are_counted_and_left_out(caplog):
    caplog.set_level("INFO", "robusttune")
    right, wrong = digits().tensors[0][LABELLED:], torch.rand(80, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    mixed = torch.cat([right, wrong])
    run(Reads(), more(mixed))
    count = int(re.search(r"380 images, (\d+) of them unlike the labelled ones\n", caplog.text)[1])
    assert 78 <= count <= 90  # noise, and about one in a hundred digits
    facts = []
    run(Reads(), more(mixed), drop_foreign=True, on_epoch=facts.append)
    assert f"380 images, {count} of them unlike the labelled ones and left out" in caplog.text
    assert facts[0]["step"] == -(-(LABELLED + len(mixed) - count) // 25)


@pytest.mark.slow
def test_a_run_that_leaves_images_out_is_repeated(tmp_path):
    wrong = torch.rand(80, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    mixed = torch.cat([digits().tensors[0][LABELLED:], wrong])
    run("self", more(mixed), drop_foreign=True, epochs=2, out=tmp_path / "run")
    assert replay(tmp_path / "run", a_model(), labelled(), unlabeled_loader=more(mixed)).same
    facts = json.loads((tmp_path / "run/run.json").read_text())
    assert (facts["arguments"]["drop_foreign"], facts["labelling"]["foreign"] >= 78) == (True, True)
    run("self", more(mixed), epochs=2, out=tmp_path / "all")
    assert not same(files.load_weights(tmp_path / "run"), files.load_weights(tmp_path / "all"))


def test_too_few_labelled_images_tell_nothing_about_others():
    with pytest.raises(ValueError, match="drop_foreign compares images with the labelled ones, of which at least 64"):
        run("self", loader=labelled(60), drop_foreign=True)
    with pytest.raises(
        ValueError, match="drop_foreign leaves out images unlike the labelled ones, but no image has a label"
    ):
        hardened(a_model(), [digits().tensors[0]], drop_foreign=True)


def test_looking_changes_no_random_number():
    images = digits().tensors[0][LABELLED:]
    before = weights_of(run(Reads(), more(images)))
    fixed = [images[start : start + 50] for start in range(0, 300, 50)]
    assert same(before, weights_of(run(Reads(), more(images))))

    class Drawn:
        """Batches in an order that their own generator draws at each pass."""

        generator = torch.Generator().manual_seed(3)

        def __len__(self):
            return len(fixed)

        def __iter__(self):
            return iter([fixed[row] for row in torch.randperm(len(fixed), generator=self.generator)])

    state = Drawn.generator.get_state()
    first = weights_of(run(Reads(), Drawn()))
    Drawn.generator.set_state(state)
    assert same(first, weights_of(run(Reads(), Drawn())))


def test_an_endless_loader_is_looked_at_in_part(caplog):
    caplog.set_level("INFO", "robusttune")

    class Endless:
        def __iter__(self):
            while True:
                yield digits().tensors[0][:10]

    hardened(a_model(), Endless(), max_steps=3)
    assert "without labels  500 images" in caplog.text
    assert "the model as it is now; gives each class to" in caplog.text


def test_a_teacher_that_is_a_function_is_known_by_its_answers_in_the_first_process(tmp_path, monkeypatch):
    settings = {"tasks": None, "teacher": Reads().forward, "unlabeled_loader": more(), "out": tmp_path / "run"}

    def stop(facts):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        hardened(loader=labelled(), on_epoch=stop, epochs=2, **settings)
    begun = json.loads((tmp_path / "run" / "run.json").read_text())["teacher"]
    # As in a second process, which has other images, and so other answers.
    gathered = run_facts.distributed.gathered

    def of_both(mine):
        return [begun, mine] if isinstance(mine, dict) and "fingerprint" in mine else gathered(mine)

    monkeypatch.setattr(run_facts.distributed, "gathered", of_both)
    monkeypatch.setattr(Teacher, "facts", lambda self, images: {"name": self.name, "fingerprint": "of others"})
    hardened(loader=labelled(), resume=True, epochs=2, **settings)


@pytest.mark.parametrize(("shuffle", "batch", "told"), [(False, 50, True), (False, 100, False), (True, 50, False)])
def test_images_that_no_epoch_comes_to_are_warned_of(caplog, shuffle, batch, told):
    images = digits().tensors[0][LABELLED:]
    loader = DataLoader(TensorDataset(images), batch, shuffle=shuffle)
    hardened(loader=labelled(), unlabeled_loader=loader, teacher=None, tasks=["rotation"], steps=1, max_steps=1)
    assert ("does not shuffle, and has 6 batches, but the loader 4" in caplog.text) == told
    assert ("does not shuffle" in caplog.text) == told
