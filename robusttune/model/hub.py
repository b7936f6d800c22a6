"""Folders of published models: on this machine, or fetched from the Hugging Face Hub."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from robusttune.run.about import LOCAL, MODEL, is_published
from robusttune.types import PathLike, check_path

CARD, CONFIG = "README.md", "config.json"
FILES = (CARD, CONFIG, MODEL)  # of a published model; other files of its repository are not fetched


def folder_of(place: PathLike) -> PathLike:
    """Return the folder of a published model, which is fetched first where it is on the Hub; another path as it is.

    Args:
        place: local-dir:FOLDER; hf-hub:USER/NAME, or hf-hub:USER/NAME@REVISION; or a path.

    Raises:
        ValueError: the Hub has no such model, or cannot be reached.
    """
    if not isinstance(place, str) or not is_published(place):
        return place
    kind, _, name = place.partition(":")
    if kind in LOCAL:
        return Path(name)
    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(FILES)))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        why = " ".join(str(error).split())
        raise ValueError(
            f"{place!r} cannot be fetched ({why}): write hf-hub:USER/NAME, log in by `hf auth login` for a private model, or pass "
            "local-dir:FOLDER with a copy on this machine"
        ) from error


def folder_of_model(model: PathLike) -> PathLike:
    """Return the folder that was passed as a model; one on the Hub is fetched first.

    Raises:
        ValueError: there is no such folder, the Hub has no such model, or it cannot be reached.
    """
    folder = folder_of(model)
    if not check_path("model", folder).exists():
        raise ValueError(
            f"the model is {str(model)!r}, and there is no such folder: pass a torch.nn.Module, or the folder of a run of harden"
        )
    return folder
