"""The folder of a run: run.json, the weights, and what is said where a run stops or is resumed."""

import functools
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from guarded import GOOD
from short_runs import Halves, a_loader, digits, hardened
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from robusttune.attacks.pgd import pgd
from robusttune.run import files, folder

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained


@pytest.mark.sample(1)
@pytest.mark.parametrize("kind", ["persistent", "iterable", "plain"])
def test_a_resume_that_cannot_be_exact_says_so(tmp_path, caplog, kind):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(digits())

        def __len__(self):
            return 400

    def stop(facts):
        raise KeyboardInterrupt

    loader = {
        "persistent": lambda: DataLoader(digits(), 40, num_workers=1, persistent_workers=True),
        "iterable": lambda: DataLoader(Stream(), 40),
        "plain": a_loader,
    }[kind]()
    with pytest.raises(KeyboardInterrupt):
        hardened(loader=loader, out=tmp_path, epochs=2, on_epoch=stop)
    assert "not exactly" not in caplog.text
    hardened(loader=loader, out=tmp_path, epochs=2, resume=True)
    assert ("not exactly" in caplog.text) == (kind != "plain")
    caplog.clear()
    hardened(loader=loader, out=tmp_path, epochs=2, resume=True)  # of a run that has ended
    assert "not exactly" not in caplog.text


def test_a_run_with_objects_among_its_arguments_is_known_again(tmp_path):
    def attack(size):
        def given(loss_of, images, threat, *, generator):
            return pgd(loss_of, images, threat, generator=generator, steps=size)

        return given

    settings = {"out": tmp_path, "steps": None, "tasks": {Halves(): 0.5}}
    hardened(attack=partial(attack(1), generator=None), **settings)
    hardened(attack=partial(attack(1), generator=None), resume=True, **settings)
    with pytest.raises(ValueError, match=r"holds a run with other arguments \(attack was"):
        hardened(attack=pgd, resume=True, **settings)


def test_objects_are_written_as_texts_without_addresses(tmp_path):
    facts = {"arguments": {"eps": 0.5, "attack": functools.partial(sorted, object()), "steps": (1, 2), 3: None}}
    folder.write_run(tmp_path, facts)
    arguments = json.loads((tmp_path / "run.json").read_text())["arguments"]
    assert arguments["eps"] == 0.5
    assert arguments["steps"] == [1, 2]
    assert arguments["3"] is None
    assert "functools.partial" in arguments["attack"]
    assert " at 0x" not in arguments["attack"]
    assert folder.changed_arguments(tmp_path, facts) == {}


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, True),
        (Path("a"), True),
        ({"a": [1, 2.0, "b", (True,)]}, True),
        ({1: 2}, False),
        ([object()], False),
        (torch.ones(1), False),
    ],
)
def test_what_run_json_holds_in_full(value, plain):
    assert folder.is_plain(value) == plain


def test_a_damaged_run_json_is_refused_by_name(tmp_path):
    assert folder.changed_arguments(tmp_path, {"arguments": {}}) == {}  # there is none yet
    for text in ("{", "[]", "{}"):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(ValueError, match=r"run\.json' cannot be read: it may be damaged or of another program"):
            folder.changed_arguments(tmp_path, {"arguments": {}})


def test_a_folder_that_cannot_be_created_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ValueError, match=r"cannot be created .*: name a folder that can be written to"),
        folder.prepared(tmp_path / "file" / "run", resume=False),
    ):
        pass
    with folder.prepared(None, resume=False) as none:
        assert none is None
    with folder.prepared(tmp_path / "new" / "run", resume=False) as made:
        assert made.is_dir()


def test_weights_are_written_under_the_names_in_the_user_s_model(tmp_path):
    best = {"model.weight": torch.ones(2), "heads.layers.rotation.weight": torch.ones(3)}
    folder.save_outputs(tmp_path, best, {"model.weight": torch.zeros(2)})
    assert set(files.load_weights(tmp_path)) == {"weight"}
    assert torch.equal(files.load_weights(tmp_path / files.LAST)["weight"], torch.zeros(2))
    assert set(files.load_weights(tmp_path / files.HEADS)) == {"layers.rotation.weight"}


def test_an_exception_says_that_the_run_can_be_resumed_once_there_is_a_checkpoint(tmp_path, caplog):
    for checkpoint in (False, True):
        if checkpoint:
            files.save_state(tmp_path, {})
        with pytest.raises(KeyboardInterrupt), folder.noted_on_failure(tmp_path):
            raise KeyboardInterrupt
        assert ("pass resume=True to resume it" in caplog.text) == checkpoint


class Streamed(IterableDataset):
    def __iter__(self):
        return iter([GOOD])


INEXACT = {
    "workers are persistent": lambda: DataLoader(TensorDataset(*GOOD), num_workers=1, persistent_workers=True),
    "data set is iterable": lambda: DataLoader(Streamed()),
}


@pytest.mark.parametrize("reason", INEXACT)
def test_an_inexact_resume_is_warned_of(reason, caplog):
    folder.warn_if_inexact(INEXACT[reason]())
    assert reason in caplog.text


def test_an_exact_resume_is_not_warned_of(caplog):
    for loader in (None, [GOOD], DataLoader(TensorDataset(*GOOD), num_workers=1)):
        folder.warn_if_inexact(loader)
    assert not caplog.records


def test_a_run_of_other_classes_is_refused(tmp_path):
    def facts(*names):
        return {"arguments": {}, "about": {"classes": names or None}}

    folder.write_run(tmp_path, facts("cat", "dog"))
    for same in (facts("cat", "dog"), facts(), {"arguments": {}}):
        assert folder.changed_arguments(tmp_path, folder.as_json(same)) == {}
    for other, says in ((("dog", "cat"), "class 0 is 'dog' and not 'cat'"), (("cat", "dog", "eel"), "there are 3")):
        with pytest.raises(ValueError, match=f"has 2 classes, cat, dog, but by loader.dataset.classes {says}"):
            folder.changed_arguments(tmp_path, folder.as_json(facts(*other)))


def test_a_refused_resume_says_only_that_and_names_each_argument_before_and_now(tmp_path, caplog):
    def stop(facts):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hardened(out=tmp_path, epochs=2, on_epoch=stop, tasks=None, eps=8 / 255)
    assert "pass resume=True" in caplog.text
    caplog.clear()
    changes = {"epochs": 3, "lr": 0.1, "seed": 5, "eps": 4 / 255, "steps": 3}
    says = "eps was 8/255 and is 4/255, steps was 2 and is 3, epochs was 2 and is 3, lr was None and is 0.1, seed was 0 and is 5"
    with pytest.raises(ValueError, match=says) as refused:
        hardened(out=tmp_path, tasks=None, resume=True, **changes)
    with pytest.raises(ValueError, match=r"epochs is 0"):
        hardened(out=tmp_path, tasks=None, resume=True, epochs=0)
    assert not caplog.records
    assert not getattr(refused.value, "__notes__", [])
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None


@pytest.mark.parametrize("notes", [{"command": "python train.py"}, {"start": 5}, {"versions": [1]}])
def test_notes_that_would_be_read_as_facts_are_refused(notes):
    with pytest.raises(ValueError, match=rf"^notes= may not hold {next(iter(notes))}, which run.json has itself"):
        folder.with_notes({"arguments": {}}, notes)
    assert folder.with_notes({"arguments": {}}, {"command": {"model": "timm:x"}, "start": None})["start"] is None
