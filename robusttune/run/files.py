"""Files of weights and checkpoints, written so that a kill at any moment leaves no damaged file."""

import copy
import hashlib
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from robusttune.run.about import HEADS as HEADS
from robusttune.run.about import LAST as LAST
from robusttune.run.about import MODEL as MODEL
from robusttune.run.about import RUN as RUN
from robusttune.run.about import STATE as STATE
from robusttune.run.about import EarlierRun, run_of_metadata
from robusttune.run.advisories import check_unpickler
from robusttune.run.archives import check_expansion
from robusttune.run.checkpoints import NotRead, read_checkpoint, weights_in, without_wrapper
from robusttune.run.manifest import check_together
from robusttune.run.provenance import digest
from robusttune.run.seal import BrokenSeal, check_seal, metadata_of, sealed
from robusttune.run.writing import write_bytes
from robusttune.types import PathLike, check_path

FORMAT = 1
EXTRA = "_extra_state"  # torch's name of what a module keeps beside tensors

Value = TypeVar("Value")
logger = logging.getLogger("robusttune")


def save_state(folder: Path, state: Mapping[str, object]) -> None:
    """Write a checkpoint, `state.pt`, together with its checksum."""
    content = io.BytesIO()
    torch.save(dict(state), content)
    payload = torch.frombuffer(bytearray(content.getvalue()), dtype=torch.uint8)
    sealed = io.BytesIO()
    torch.save({"format": FORMAT, "sha256": _digest(payload), "payload": payload}, sealed)
    write_bytes(folder / STATE, sealed.getvalue())


def load_state(folder: Path) -> dict[str, Any] | None:
    """Read the checkpoint that `save_state` wrote, with its tensors on the CPU; return None if there is none yet.

    The device that a tensor was on need not be here, or belongs to the first of several processes.

    Raises:
        ValueError: the file is damaged, or no checkpoint of this format.
    """
    path = folder / STATE
    if not path.exists():
        return None
    check_unpickler(path)
    try:
        check_expansion(path, "the checkpoint")
        content = torch.load(path, weights_only=True)
        payload, checksum, kind = content["payload"], content["sha256"], content["format"]
    except Exception as error:
        raise ValueError(unusable(path, "cannot be read as a checkpoint of robusttune")) from error
    if kind != FORMAT:
        raise ValueError(unusable(path, f"has format {kind}, but this version reads format {FORMAT}"))
    if _digest(payload) != checksum:
        raise ValueError(unusable(path, "does not match its checksum"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Validating sparse")  # which takes a moment, and is right
        return cast(
            "dict[str, Any]", torch.load(io.BytesIO(payload.numpy().tobytes()), map_location="cpu", weights_only=True)
        )


def save_weights(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file with a checksum; tensors that share memory are each written in full.

    The format holds dense tensors alone: sparse ones and `_extra_state` are left out, and `give_weights` does not ask for
    them.
    """
    dense = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items() if is_dense(tensor)}
    write_bytes(path, save(dense, sealed(dense, metadata or {})))


def load_weights(path: PathLike, *, quiet: bool = False) -> dict[str, Tensor]:
    """Read the tensors of a safetensors or torch file, or of `model.safetensors` in a run's folder.

    Args:
        path: the file or the folder.
        quiet: say nothing where the file holds averaged weights, too, which are not read.

    Raises:
        ValueError: there is no such file, it is damaged, or it holds code.
    """
    path = _file_in(Path(path), MODEL)
    if not path.exists():
        raise ValueError(f"{str(path)!r} is not there: pass a file of weights, or the folder of a finished run")
    try:
        if path.suffix == ".safetensors":
            weights = load_file(path)
            check_seal(path, weights)
            return weights
        content = read_checkpoint(path)
    except NotRead:
        raise
    except Exception as error:
        why = "does not match its checksum" if isinstance(error, BrokenSeal) else "cannot be read as weights"
        raise ValueError(
            f"{str(path)!r} {why}: it may be damaged or half copied; restore it from a copy, or let the run write it again with "
            "resume=True"
        ) from error
    held = weights_in(content, None if quiet else str(path))
    if not held or not all(isinstance(value, Tensor) or _is_extra(name) for name, value in held.items()):
        raise ValueError(f"{str(path)!r} does not hold a state_dict: save model.state_dict() or its safetensors")
    return held


def run_of_weights(path: Path) -> EarlierRun | None:
    """Read what a safetensors file says of the run that wrote it; None for another file."""
    text = metadata_of(path) if path.suffix == ".safetensors" else None
    return None if text is None else run_of_metadata(path, text)


def give_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load weights into the model, whose names and shapes they must have exactly, but for a wrapper's name before each.

    What a safetensors file cannot hold may be missing (see `save_weights`), and stays as the model has it, with a warning.

    Args:
        source: names the weights in the error.

    Raises:
        ValueError: names or shapes differ; up to three of them are shown.
    """
    current = model.state_dict()
    weights = without_wrapper(weights, current, source)
    missing = [name for name in current if name not in weights]
    kept = [name for name in missing if not is_dense(current[name])]
    wrong = [name for name in missing if name not in kept] + [name for name in weights if name not in current]
    wrong += [
        f"{name} ({ours} in the model, {theirs} in the file)"
        for name in current
        if name in weights and (ours := shape_of(current[name])) != (theirs := shape_of(weights[name]))
    ]
    if wrong:
        alien = weights and not any(name in current for name in weights)
        there = f" (its own names are such as {next(iter(weights))})" if alien else ""
        raise ValueError(
            f"{source} does not fit the model: {len(wrong)} names or shapes differ, such as {', '.join(wrong[:3])}{there}: "
            "pass weights of this same model"
        )
    model.load_state_dict(dict(weights), strict=False)
    _warn_of_kept(kept, source)


def digest_of_weights(place: PathLike) -> str:
    """Hash a file of weights, or `model.safetensors` in a run's folder."""
    path = Path(place)
    return digest([(path / MODEL if path.is_dir() else path).read_bytes()])


def has_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    """Return True if a model has these weights, as `save_weights` would write them."""
    current = {name: value for name, value in model.state_dict().items() if is_dense(value)}
    return current.keys() == weights.keys() and all(
        torch.equal(value.cpu(), weights[name].cpu()) for name, value in current.items()
    )


def copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy a state_dict, which beside tensors may hold any object as `_extra_state`."""
    return {
        name: value.detach().clone() if _is_tensor(value) else copy.deepcopy(value) for name, value in weights.items()
    }


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def loadable(weights: Mapping[str, Value]) -> dict[str, Value]:
    """Return a state_dict without the objects that a checkpoint cannot hold, as loading them could run code."""
    return {name: value for name, value in weights.items() if isinstance(value, Tensor) or _can_be_loaded(value)}


def completed(weights: Mapping[str, Value], current: Mapping[str, Value]) -> dict[str, Value]:
    """Return a state_dict from a checkpoint with the objects that `loadable` left out, as the model has them."""
    kept = [name for name in current if _is_extra(name) and name not in weights]
    _warn_of_kept(kept, "the checkpoint")
    return {**weights, **{name: current[name] for name in kept}}


def _can_be_loaded(value: object) -> bool:
    content = io.BytesIO()
    try:
        torch.save(value, content)
        content.seek(0)
        torch.load(content, weights_only=True)
    except Exception:  # whatever an object of the user's raises when it is pickled
        return False
    return True


def _warn_of_kept(names: Sequence[str], source: str) -> None:
    if names:
        shown = ", ".join(names[:3])
        logger.warning("%s does not hold %s, which is no dense tensor: it stays as the model has it", source, shown)


def is_dense(value: object) -> bool:
    """Return True for a tensor with a dense (strided) layout."""
    return isinstance(value, Tensor) and value.layout == torch.strided


def _is_extra(name: str) -> bool:
    return name.rpartition(".")[2] == EXTRA


def shape_of(value: object) -> tuple[int, ...] | None:
    """Return the shape of a tensor; None for anything else."""
    return tuple(value.shape) if isinstance(value, Tensor) else None


def heads_of(source: nn.Module | PathLike | None) -> Mapping[str, Tensor] | None:
    """Return the weights of pretext heads: of a RobustLoss, of the heads themselves, or of a run's folder or file.

    Raises:
        ValueError: the folder holds no heads.
    """
    if source is None:
        return None
    if isinstance(source, nn.Module):
        weights: Mapping[str, Tensor] = getattr(source, "heads", source).state_dict()
        return weights
    return load_weights(_file_in(check_path("heads", source), HEADS))


def _file_in(path: Path, name: str) -> Path:
    """Return the path of a file of weights, or of the one in a run's folder, where it belongs to the others."""
    if not path.is_dir():
        return path
    check_together(path, name)
    return path / name


def _digest(payload: Tensor) -> str:
    return hashlib.sha256(payload.numpy().tobytes()).hexdigest()


def unusable(path: Path, why: str) -> str:
    """Return an error text for a file that cannot be used: its path, the reason, and the next step."""
    return (
        f"{str(path)!r} {why}: it may be damaged, half copied or of another program; restore it from a copy, or remove "
        "it to start the run afresh"
    )
