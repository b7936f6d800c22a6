"""The folder of a run: a resume that cannot be exact, and one with other arguments."""

from functools import partial

import pytest
import torch
from short_runs import Halves, a_loader, digits, hardened
from torch.utils.data import DataLoader

from robusttune.attacks.pgd import pgd

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained


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
