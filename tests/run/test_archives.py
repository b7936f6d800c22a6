"""Archives that would take far more room than the file are refused before they are unpacked."""

import io
import zipfile

import numpy as np
import pytest
import torch

from robusttune.measuring import failures
from robusttune.run import archives, files


def bomb(target, size):
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a/data.pkl", "w") as entry:
        for _ in range(size // 2**20):
            entry.write(bytes(2**20))


@pytest.mark.parametrize("read", [files.load_weights, lambda path: files.load_state(path.parent)])
def test_a_checkpoint_that_expands_is_not_unpacked(read, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MOST", 2**24)
    bomb(tmp_path / "state.pt", 2**25)
    assert (tmp_path / "state.pt").stat().st_size < 2**17
    with pytest.raises(ValueError, match=r"state\.pt' cannot be read") as raised:
        read(tmp_path / "state.pt")
    assert "when unpacked" in str(raised.value.__cause__)


def test_pictures_that_expand_are_not_unpacked(monkeypatch):
    monkeypatch.setattr(archives, "MOST", 2**24)
    content = io.BytesIO()
    np.savez_compressed(content, image=np.zeros((2**23,), np.float32))
    with pytest.raises(ValueError, match=r"pictures of failures would take 0\.0 GiB when unpacked"):
        failures.load(content)


def test_what_torch_writes_is_read(tmp_path):
    torch.save({"weight": torch.zeros(2**16)}, tmp_path / "large.pt")
    archives.check_expansion(tmp_path / "large.pt", "the weights")
    assert files.load_weights(tmp_path / "large.pt")["weight"].shape == (2**16,)
