"""The files of a folder belong together: a stop between two of them, or a file of another run, is named."""

import logging
import threading

import pytest
import torch

from robusttune.run import files, folder, manifest

BEST = {"model.weight": torch.ones(2), "heads.rotation.weight": torch.ones(3)}


@pytest.fixture
def run(tmp_path):
    """A folder with the files of a run."""
    folder.write_run(tmp_path, {"run": "harden", "arguments": {}})
    folder.save_outputs(tmp_path, BEST, {"model.weight": torch.zeros(2)})
    return tmp_path


def test_whole_folders_are_read(run):
    assert torch.equal(files.load_weights(run)["weight"], torch.ones(2))
    assert files.heads_of(run).keys() == {"rotation.weight"}


@pytest.mark.parametrize("read", [files.load_weights, files.heads_of])
def test_a_stop_between_two_files_is_named_and_the_file_alone_is_read(read, run):
    files.save_weights(run / files.MODEL, {"weight": 2 * torch.ones(2)})
    files.save_weights(run / files.HEADS, {"rotation.weight": 2 * torch.ones(3)})
    with pytest.raises(ValueError, match="is not the one that was written together with the other files") as raised:
        read(run)
    assert "resume=True" in str(raised.value)
    assert torch.equal(files.load_weights(run / files.MODEL)["weight"], 2 * torch.ones(2))


def test_a_file_that_is_gone_is_missed(run):
    (run / files.HEADS).unlink()
    with pytest.raises(ValueError, match=r"heads\.safetensors' is missing, but manifest\.json beside it names it"):
        files.heads_of(run)
    assert files.load_weights(run).keys() == {"weight"}


def test_a_damaged_manifest_is_named(run):
    (run / manifest.FILE).write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json' is damaged: call the run again"):
        files.load_weights(run)


def test_folders_of_versions_before_have_none_and_are_read(run):
    (run / manifest.FILE).unlink()
    files.save_weights(run / files.MODEL, {"weight": 2 * torch.ones(2)})
    assert torch.equal(files.load_weights(run)["weight"], 2 * torch.ones(2))


def test_a_run_json_that_was_changed_is_said(run, caplog):
    manifest.warn_if_changed(run)
    assert not caplog.records
    (run / files.RUN).write_text((run / files.RUN).read_text() + " ")
    with caplog.at_level(logging.WARNING):
        manifest.warn_if_changed(run)
    assert "was changed after the run wrote it" in caplog.text


def test_a_reader_waits_for_a_run_that_is_writing(run, monkeypatch):
    files.save_weights(run / files.MODEL, {"weight": 2 * torch.ones(2)})
    (run / ".lock").touch()
    threading.Timer(0.5, lambda: manifest.write_manifest(run)).start()
    assert torch.equal(files.load_weights(run)["weight"], 2 * torch.ones(2))
