"""Files of weights and checkpoints, written so that a kill at any moment leaves no damaged file."""

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from robusttune.run.about import METADATA, EarlierRun, run_of_metadata
from robusttune.run.about import RUN as RUN
from robusttune.types import PathLike

STATE, MODEL, LAST, HEADS = "state.pt", "model.safetensors", "last.safetensors", "heads.safetensors"
FORMAT = 1


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step: after a kill, or for another reader, it is either the old file or the new one."""
    draft = path.with_name(path.name + ".part")
    with open(draft, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a file of UTF-8 text in one step, as `write_bytes` does."""
    write_bytes(path, text.encode())


def save_state(folder: Path, state: Mapping[str, object]) -> None:
    """Write a checkpoint, `state.pt`, together with its checksum."""
    content = io.BytesIO()
    torch.save(dict(state), content)
    payload = torch.frombuffer(bytearray(content.getvalue()), dtype=torch.uint8)
    sealed = io.BytesIO()
    torch.save({"format": FORMAT, "sha256": _digest(payload), "payload": payload}, sealed)
    write_bytes(folder / STATE, sealed.getvalue())


def load_state(folder: Path) -> dict[str, Any] | None:
    """Read the checkpoint that `save_state` wrote; return None if there is none yet.

    Raises:
        ValueError: the file is damaged, or no checkpoint of this format.
    """
    path = folder / STATE
    if not path.exists():
        return None
    try:
        sealed = torch.load(path, weights_only=True)
        payload, checksum, kind = sealed["payload"], sealed["sha256"], sealed["format"]
    except Exception as error:
        raise ValueError(unusable(path, "cannot be read as a checkpoint of robusttune")) from error
    if kind != FORMAT:
        raise ValueError(unusable(path, f"has format {kind}, but this version reads format {FORMAT}"))
    if _digest(payload) != checksum:
        raise ValueError(unusable(path, "does not match its checksum"))
    return cast("dict[str, Any]", torch.load(io.BytesIO(payload.numpy().tobytes()), weights_only=True))


def save_weights(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file; tensors that share memory are each written in full."""
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()}
    write_bytes(path, save(tensors, None if metadata is None else dict(metadata)))


def load_weights(path: PathLike) -> dict[str, Tensor]:
    """Read the tensors of a safetensors or torch file, or of `model.safetensors` in a run's folder.

    Raises:
        ValueError: there is no such file, or it cannot be read.
    """
    path = Path(path)
    path = path / MODEL if path.is_dir() else path
    if not path.exists():
        raise ValueError(f"{str(path)!r} is not there: pass a file of weights, or the folder of a finished run")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{str(path)!r} cannot be read as weights: it may be damaged or half copied") from error
    weights = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{str(path)!r} does not hold a state_dict: save model.state_dict() or its safetensors")
    return dict(weights)


def run_of_weights(path: Path) -> EarlierRun | None:
    """Read what a safetensors file says of the run that wrote it; None for another file."""
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(METADATA)
    except SafetensorError:
        return None  # `load_weights` says that it is damaged
    return None if text is None else run_of_metadata(path, text)


def give_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load weights into the model, whose names and shapes they must have exactly.

    Args:
        source: names the weights in the error.

    Raises:
        ValueError: names or shapes differ; up to three of them are shown.
    """
    current = model.state_dict()
    wrong = [name for name in current if name not in weights] + [name for name in weights if name not in current]
    wrong += [name for name in current if name in weights and current[name].shape != weights[name].shape]
    if wrong:
        raise ValueError(
            f"{source} does not fit the model: {len(wrong)} names or shapes differ, such as {', '.join(wrong[:3])}: "
            "pass weights of this same model"
        )
    model.load_state_dict(dict(weights))


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
    path = Path(source)
    return load_weights(path / HEADS if path.is_dir() else path)


def _digest(payload: Tensor) -> str:
    return hashlib.sha256(payload.numpy().tobytes()).hexdigest()


def unusable(path: Path, why: str) -> str:
    """Return an error text for a file that cannot be used: its path, the reason, and the next step."""
    return (
        f"{str(path)!r} {why}: it may be damaged, half copied or of another program; restore it from a copy, or remove "
        "it to start the run afresh"
    )
