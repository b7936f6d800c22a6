"""Upload of a saved model to the Hugging Face Hub."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from yaml import YAMLError

from robusttune.model.hub import CARD, FILES
from robusttune.run import files
from robusttune.run.about import MODEL
from robusttune.run.log import warn
from robusttune.run.settings import check_settings
from robusttune.types import PathLike, check_flag, check_path, shown

MIB = 2**20


@dataclass(frozen=True)
class Push:
    """An upload to the Hub, or the one that would be made.

    Attributes:
        repo_id: USER/NAME of the repository.
        private: the repository is private, by the Hub's own answer; of a dry run, it is asked to be.
        files: bytes by the name of each file that goes up.
        left_out: files of the folder that stay here.
        url: the address of the commit; None for a dry run.
    """

    repo_id: str
    private: bool
    files: Mapping[str, int]
    left_out: tuple[str, ...] = ()
    url: str | None = None

    def __str__(self) -> str:
        done = f"would go up to {self.repo_id}" if self.url is None else f"went up: {self.url}"
        kind = "private" if self.private else "public"
        rows = [f"  {name}  {size / MIB:.2f} MiB" for name, size in self.files.items()]
        left = [f"left out: {', '.join(self.left_out)}"] if self.left_out else []
        return "\n".join([f"{done} ({kind})", *rows, *left])


def push_to_hub(
    folder: PathLike,
    repo_id: str,
    *,
    private: bool = True,
    dry_run: bool = False,
    message: str = "Add a model and its card",
    token: str | None = None,
    endpoint: str | None = None,
) -> Push:
    """Upload the folder that `save` wrote to the Hugging Face Hub; return what went up, or with `dry_run` what would.

    The card, the configuration and the weights go up, and nothing else of the folder. The repository is created if there is
    none.

    Args:
        folder: the folder that `save` wrote.
        repo_id: USER/NAME of the repository.
        private: True for a private repository; one that exists and is public is then refused. With False, one that exists and is
            private stays private, with a warning.
        dry_run: check the folder and list its files; nothing is sent.
        message: message of the commit.
        token: token of the Hub; None for that of `hf auth login` or of the variable HF_TOKEN.
        endpoint: address of a server in place of the Hub; None for that of the variable HF_ENDPOINT, or the Hub.

    Raises:
        ValueError: the folder lacks a file or its weights are damaged, `repo_id` is not a valid name, the repository is public,
            or the Hub refuses.

    Example:
        >>> import robusttune
        >>> print(robusttune.push_to_hub("published/cats", "me/cats", dry_run=True))  # doctest: +SKIP
        would go up to me/cats (private)
          README.md  0.01 MiB
          config.json  0.00 MiB
          model.safetensors  1.47 MiB
    """
    check_settings({"path": folder})
    check_flag("private", private)
    check_flag("dry_run", dry_run)
    place = _checked(check_path("path", folder), repo_id)
    sizes = {name: (place / name).stat().st_size for name in FILES}
    others = sorted(each.name for each in place.iterdir() if each.name not in FILES)
    planned = Push(repo_id, private, sizes, tuple(others))
    if dry_run:
        return planned
    api = HfApi(endpoint=endpoint, token=token, library_name="robusttune")
    try:
        name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        hidden = _is_hidden(api, name, private)
        commit = api.upload_folder(repo_id=name, folder_path=place, allow_patterns=list(FILES), commit_message=message)
    except (HfHubHTTPError, OSError) as error:
        raise ValueError(
            f"the Hub did not take {str(place)!r} ({' '.join(str(error).split())}): log in by `hf auth login` or pass token=, and look "
            "whether you may write to the repository; pass dry_run=True to see what would go up"
        ) from error
    return Push(name, hidden, sizes, tuple(others), str(commit.commit_url))


def _checked(place: Path, repo_id: str) -> Path:
    """Return a folder that can be published.

    Raises:
        ValueError: it lacks a file or has a link, weights or card are damaged, or the name of the repository is none.
    """
    missing = [name for name in FILES if not (place / name).is_file()]
    if missing:
        raise ValueError(
            f"{str(place)!r} lacks {', '.join(missing)}, so it is no folder of a saved model: write one with "
            "robusttune.save(model_or_run, folder)"
        )
    if not isinstance(repo_id, str) or repo_id.count("/") != 1:
        raise ValueError(f"repo_id is {shown(repo_id)}, but USER/NAME is needed, such as 'me/cats'")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(
            f"repo_id is {shown(repo_id)}, which the Hub does not take ({error}): write USER/NAME"
        ) from error
    files.load_weights(place / MODEL)  # refuses damaged ones
    linked = [name for name in FILES if (place / name).is_symlink()]
    if linked:
        raise ValueError(
            f"{', '.join(linked)} in {str(place)!r} are links, and the files that they lead to would go up: push a folder that "
            "robusttune.save wrote, or put copies in the place of the links"
        )
    if _license_of(place / CARD) is None:
        warn("the card names no license, so nobody else may use the weights: save the model with license=", False)
    return place


def _license_of(card: Path) -> object:
    """Read the license of a card; None for none.

    Raises:
        ValueError: the metadata of the card cannot be read.
    """
    try:
        return ModelCard.load(card).data.get("license")
    except (YAMLError, ValueError) as error:
        raise ValueError(
            f"the metadata at the top of {str(card)!r} cannot be read ({' '.join(str(error).split())}): correct them, or write the card "
            "again with robusttune.save(…, overwrite=True)"
        ) from error


def _is_hidden(api: HfApi, repo_id: str, private: bool) -> bool:
    """Return True for a private repository, as the Hub says; one that is private although a public one was asked for is warned of.

    Raises:
        ValueError: it is public, and a private one was asked for.
    """
    hidden = bool(api.repo_info(repo_id).private)
    if private and not hidden:
        raise ValueError(
            f"the repository {repo_id!r} is there already, and is public: pass private=False to publish the model, or name another one"
        )
    if hidden and not private:
        warn(
            f"the repository {repo_id!r} was there already, and stays private: make it public in its settings on the Hub",
            False,
        )
    return hidden
