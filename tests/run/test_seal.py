"""Files of weights tell damage by themselves: every flipped bit and every cut, wherever the file is."""

import random

import pytest
import torch
from safetensors.torch import load_file, save_file

from robusttune.run import files
from robusttune.run.about import METADATA
from robusttune.run.seal import checksum_of_weights

WEIGHTS = {
    "weight": torch.arange(12.0).reshape(3, 4),
    "scale": torch.tensor(2.0, dtype=torch.bfloat16),
    "flags": torch.tensor([True, False]),
    "none": torch.zeros(0, 3),
}


@pytest.fixture
def path(tmp_path):
    files.save_weights(
        tmp_path / "w.safetensors", WEIGHTS, {METADATA: '{"run": "harden", "about": null, "purpose": null}'}
    )
    return tmp_path / "w.safetensors"


def test_weights_come_back_and_other_programs_read_them(path):
    for read in (files.load_weights(path), load_file(path)):
        assert read.keys() == WEIGHTS.keys()
        assert all(torch.equal(read[name], tensor) for name, tensor in WEIGHTS.items())
    assert files.run_of_weights(path).function == "harden"


def test_the_same_weights_are_the_same_file(path, tmp_path):
    files.save_weights(
        tmp_path / "again.safetensors",
        dict(reversed(WEIGHTS.items())),
        {METADATA: '{"purpose": null, "run": "harden", "about": null}'},
    )
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_a_flipped_bit_is_never_used_in_silence(path):
    whole, drawn = path.read_bytes(), random.Random(0)
    silent = []
    for _ in range(300):
        at, bit = drawn.randrange(len(whole)), drawn.randrange(8)
        damaged = bytearray(whole)
        damaged[at] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            read = files.load_weights(path)
        except ValueError as error:
            named = str(path) in str(error)
            silent += [] if named else [(at, bit)]
            continue
        if not all(name in read and torch.equal(read[name], tensor) for name, tensor in WEIGHTS.items()):
            silent.append((at, bit))
    assert silent == []


def test_a_file_that_was_cut_is_refused(path):
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(
            ValueError, match=r"w\.safetensors' (cannot be read as weights|does not match its checksum)"
        ):
            files.load_weights(path)


def test_files_of_others_have_no_checksum_and_are_read(tmp_path):
    save_file(WEIGHTS, tmp_path / "theirs.safetensors")
    assert checksum_of_weights(tmp_path / "theirs.safetensors") is None
    assert files.load_weights(tmp_path / "theirs.safetensors").keys() == WEIGHTS.keys()
