"""A push sends the card, the configuration and the weights, and nothing else; here to a server on this machine."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from hub_server import Repository, hub

import robusttune
from robusttune.model.hub import FILES


@pytest.fixture(scope="module")
def saved(run, tmp_path_factory):
    folder = robusttune.save(run, tmp_path_factory.mktemp("pushed") / "digits", license="mit")
    (folder / "model.onnx").write_bytes(b"an export")
    return folder


def test_a_dry_run_lists_what_would_go_up_and_sends_nothing(saved):
    repository = Repository()
    with hub(repository) as address:
        planned = robusttune.push_to_hub(saved, "me/digits", dry_run=True, endpoint=address)
    assert repository.requests == []
    assert planned.files == {name: (saved / name).stat().st_size for name in FILES}
    assert (planned.left_out, planned.url, planned.private) == (("model.onnx",), None, True)
    first, *rows, last = str(planned).splitlines()
    assert first == "would go up to me/digits (private)"
    assert [row.split()[0] for row in rows] == list(FILES)
    assert last == "left out: model.onnx"


def test_a_push_sends_the_three_files_as_they_are(saved):
    repository = Repository()
    with hub(repository) as address:
        pushed = robusttune.push_to_hub(saved, "me/digits", endpoint=address, token="hf_mine")
    assert repository.files == {name: (saved / name).read_bytes() for name in FILES}
    assert (repository.name, repository.private) == ("me/digits", True)
    assert {token for _, token in repository.requests} == {"Bearer hf_mine"}
    assert pushed.url.startswith(f"{address}/me/digits/commit/")
    assert str(pushed).startswith(f"went up: {pushed.url} (private)")


def test_a_public_repository_is_refused_for_a_private_model(saved):
    repository = Repository()
    repository.name, repository.private = "me/digits", False
    with hub(repository) as address:
        with pytest.raises(ValueError, match="is there already, and is public: pass private=False"):
            robusttune.push_to_hub(saved, "me/digits", endpoint=address, token="hf_mine")
        assert repository.files == {}
        pushed = robusttune.push_to_hub(saved, "me/digits", endpoint=address, token="hf_mine", private=False)
    assert (set(repository.files), pushed.private) == (set(FILES), False)


def test_a_private_repository_stays_private_and_is_called_so(saved, caplog):
    repository = Repository()
    repository.name, repository.private = "me/digits", True
    with hub(repository) as address:
        pushed = robusttune.push_to_hub(saved, "me/digits", endpoint=address, token="hf_mine", private=False)
    assert (set(repository.files), pushed.private) == (set(FILES), True)
    assert str(pushed).startswith(f"went up: {pushed.url} (private)")
    assert "'me/digits' was there already, and stays private: make it public in its settings" in caplog.text


def test_a_refusal_of_the_hub_is_said_in_words(saved):
    with (
        hub(Repository()) as address,
        pytest.raises(ValueError, match=r"the Hub did not take .* log in by `hf auth login`"),
    ):
        robusttune.push_to_hub(saved, "me/digits", endpoint=f"{address}/nowhere", token="hf_mine")


@pytest.mark.parametrize("name", ["digits", "a/b/c", "me/--x", "me/..", 3])
def test_a_name_that_is_none_of_the_hubs_is_refused(saved, name):
    with pytest.raises(ValueError, match=r"repo_id is .*USER/NAME"):
        robusttune.push_to_hub(saved, name, dry_run=True)


def test_a_word_in_the_place_of_a_flag_does_not_publish(saved):
    with pytest.raises(ValueError, match="private is 'no', but True or False is needed"):
        robusttune.push_to_hub(saved, "me/digits", private="no", dry_run=True)


def test_a_folder_that_is_not_whole_is_refused(saved, run, tmp_path):
    with pytest.raises(ValueError, match=r"lacks README.md, config.json, so it is no folder of a saved model"):
        robusttune.push_to_hub(run, "me/digits", dry_run=True)
    folder = robusttune.save(run, tmp_path / "damaged", license="mit")
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="does not match its checksum"):
        robusttune.push_to_hub(folder, "me/digits", dry_run=True)


def test_a_link_is_refused_as_another_file_would_go_up(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "linked")
    (tmp_path / "secret").write_text("of this machine")
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match=r"README.md in .* are links, and the files that they lead to would go up"):
        robusttune.push_to_hub(folder, "me/digits", dry_run=True)


@pytest.mark.parametrize("metadata", ["license: [", "license: !!python/object/apply:os.getcwd []", "- a list"])
def test_a_card_whose_metadata_cannot_be_read_is_refused(metadata, saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "edited")
    (folder / "README.md").write_text(f"---\n{metadata}\n---\n\n# A card\n")
    with pytest.raises(ValueError, match=r"the metadata at the top of .*README.md' cannot be read"):
        robusttune.push_to_hub(folder, "me/digits", dry_run=True)


def test_a_card_without_a_licence_is_said(run, tmp_path, caplog):
    folder = robusttune.save(run, tmp_path / "unlicensed")
    robusttune.push_to_hub(folder, "me/digits", dry_run=True)
    assert "names no license, so nobody else may use the weights" in caplog.text


def test_a_name_that_the_hub_does_not_have_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"'hf-hub:me/no such' cannot be fetched .*write hf-hub:USER/NAME"):
        robusttune.load("hf-hub:me/no such")


FROM_THE_HUB = """
import json, timm, torch, robusttune
images = torch.load("images.pt", weights_only=True)
models = timm.create_model("hf-hub:me/digits", pretrained=True).eval(), robusttune.load("hf_hub:me/digits")
print(json.dumps([model(images).tolist() for model in models]))
"""


@pytest.mark.slow
def test_timm_and_robusttune_load_from_the_server_what_was_pushed(saved, loader, tmp_path):
    repository, images = Repository(), next(iter(loader))[0][:2]
    torch.save(images.clone(), tmp_path / "images.pt")
    with hub(repository) as address:
        robusttune.push_to_hub(saved, "me/digits", endpoint=address, token="hf_mine")
        place = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": os.getcwd()}
        done = subprocess.run(
            [sys.executable, "-c", FROM_THE_HUB], capture_output=True, text=True, cwd=tmp_path, env=place
        )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = robusttune.load(saved)(images)
    for logits in json.loads(done.stdout.splitlines()[-1]):
        assert torch.allclose(torch.tensor(logits), expected, atol=1e-6)
