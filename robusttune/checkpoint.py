"""Files of a run that survive a kill at any moment, and random states that go on where they stopped."""

import hashlib
import io
import json
import logging
import os
import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.utils.data import IterableDataset

STATE, MODEL, LAST, HEADS, RUN = "state.pt", "model.safetensors", "last.safetensors", "heads.safetensors", "run.json"
FORMAT = 1
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
# The arguments that a resumed run may be given anew.
FREE = {
    "model",
    "loader",
    "images",
    "val_loader",
    "unlabeled_loader",
    "resume",
    "device",
    "progress",
    "log",
    "on_epoch",
    "out",
}

# What the caller of a run adds to its facts.
_MORE: ContextVar[Mapping[str, Any]] = ContextVar("more", default=MappingProxyType({}))

logger = logging.getLogger("robusttune")


def prepared(out: str | Path | None, resume: bool) -> Path | None:
    """The folder of a run, made if it is not there.

    Raises:
        ValueError: it holds something already and `resume` is not asked for, or it is not a folder.
    """
    if out is None:
        if resume:
            raise ValueError("resume=True needs out=, the folder of the run to go on with")
        return None
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out={str(out)!r} is a file, but a folder is needed")
    if folder.exists() and any(folder.iterdir()) and not resume:
        raise ValueError(
            f"out={str(out)!r} is not empty: pass resume=True to go on with the run in it, or name another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"out={str(out)!r} cannot be made ({error.strerror}): name a folder that can be written to"
        ) from error
    return folder


def write_bytes(path: Path, content: bytes) -> None:
    """Put a file in place at once: a reader, or a run that is killed, finds the old one or the new one."""
    draft = path.with_name(path.name + ".part")
    with open(draft, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write `state.pt`, with its checksum inside."""
    content = io.BytesIO()
    torch.save(dict(state), content)
    payload = torch.frombuffer(bytearray(content.getvalue()), dtype=torch.uint8)
    sealed = io.BytesIO()
    torch.save({"format": FORMAT, "sha256": _digest(payload), "payload": payload}, sealed)
    write_bytes(folder / STATE, sealed.getvalue())


def load_state(folder: Path) -> dict[str, Any] | None:
    """What `save_state` wrote; None where nothing was written yet.

    Raises:
        ValueError: the file is damaged, or of something else.
    """
    path = folder / STATE
    if not path.exists():
        return None
    try:
        sealed = torch.load(path, weights_only=True)
        payload, told, kind = sealed["payload"], sealed["sha256"], sealed["format"]
    except Exception as error:
        raise ValueError(_unusable(path, "cannot be read as a checkpoint of robusttune")) from error
    if kind != FORMAT:
        raise ValueError(_unusable(path, f"has format {kind}, but this version reads format {FORMAT}"))
    if _digest(payload) != told:
        raise ValueError(_unusable(path, "does not match its checksum"))
    state: dict[str, Any] = torch.load(io.BytesIO(payload.numpy().tobytes()), weights_only=True)
    return state


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a safetensors file; tensors that share memory are written one by one."""
    write_bytes(path, save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()}))


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or torch file, or of the best model of a run's folder.

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


def give_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load weights whose names and shapes are exactly the model's.

    Raises:
        ValueError: they are not; some of the differences are named.
    """
    own = model.state_dict()
    wrong = [name for name in own if name not in weights] + [name for name in weights if name not in own]
    wrong += [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if wrong:
        raise ValueError(
            f"{source} does not fit the model: {len(wrong)} names or shapes differ, such as {', '.join(wrong[:3])}: "
            "pass weights of this same model"
        )
    model.load_state_dict(dict(weights))


def heads_of(source: Any) -> Mapping[str, Tensor] | None:
    """The weights of pretext heads: of a RobustLoss, or of a run's folder; None for None.

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


def told_if_inexact(loader: Any) -> None:
    """Say so where a resumed run cannot see the images exactly as the one that was killed would have."""
    why = ""
    if getattr(loader, "persistent_workers", False) and getattr(loader, "num_workers", 0):
        why = "its workers are persistent, so their random transforms begin anew"
    elif isinstance(getattr(loader, "dataset", None), IterableDataset):
        why = "its data set is iterable, so its order may be another one"
    if why:
        logger.warning("the run goes on, but not exactly as it would have without the break: %s", why)


def save_outputs(folder: Path, best: Mapping[str, Tensor], last: Mapping[str, Tensor]) -> None:
    """Write the best and the last weights of a RobustLoss: its model's under the user's own names, its heads' apart."""
    for path, weights in ((folder / MODEL, best), (folder / LAST, last)):
        save_weights(path, _under("model.", weights))
    heads = _under("heads.", best)
    if heads:
        save_weights(folder / HEADS, heads)


def _under(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


@contextmanager
def told_on_failure(folder: Path | None) -> Iterator[None]:
    """On any exception, Ctrl-C too, say that the run in the folder can go on."""
    try:
        yield
    except BaseException as error:
        if folder is not None and (folder / STATE).exists():
            note = f"the run stopped; its checkpoints are kept in {str(folder)!r}: pass resume=True to go on with it"
            logger.error(note)
            if hasattr(error, "add_note"):
                error.add_note(note)
        raise


def write_run(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write `run.json`: what the run was asked to do, with what, on what."""
    write_bytes(folder / RUN, (json.dumps(_plain({**facts, **_MORE.get()}), indent=1) + "\n").encode())


@contextmanager
def also_in_run(facts: Mapping[str, Any]) -> Iterator[None]:
    """Let runs that are begun meanwhile write these facts, too."""
    token = _MORE.set(facts)
    try:
        yield
    finally:
        _MORE.reset(token)


def is_plain(value: Any) -> bool:
    """Whether `run.json` holds all of a value, so that it can be read back."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_plain(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, str | bool | int | float | Path)


def _plain(facts: Any) -> Any:
    """The facts as JSON has them, with objects as words that are the same in every process: without their addresses."""
    if isinstance(facts, Mapping):
        return {_plain(key) if not isinstance(key, str) else key: _plain(value) for key, value in facts.items()}
    if isinstance(facts, list | tuple):
        return [_plain(each) for each in facts]
    plain = facts is None or isinstance(facts, str | bool | int | float)
    return facts if plain else ADDRESS.sub("", str(facts))


def check_same_run(folder: Path, facts: Mapping[str, Any]) -> None:
    """Raise a ValueError where the folder's run was asked for something else than this one."""
    path = folder / RUN
    if not path.exists():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))["arguments"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(_unusable(path, "cannot be read")) from error
    now = json.loads(json.dumps(_plain(facts["arguments"])))
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if changed:
        shown = ", ".join(f"{key} was {before.get(key)} and is {now.get(key)}" for key in changed[:3])
        raise ValueError(
            f"{str(folder)!r} holds a run with other arguments ({shown}): pass the same ones to resume it, another out= "
            "to start afresh, or init_from= to start from its weights"
        )


def random_states(loader: Any) -> dict[str, Any]:
    """The states of torch, numpy, Python, the accelerator, and of the loader's own generators."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "python": random.getstate(),
        "loader": [generator.get_state() for generator in generators(loader)],
    }


def restore_random_states(states: Mapping[str, Any], loader: Any) -> None:
    """Go on with the states that `random_states` gave."""
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all(states["cuda"])
    kind, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, inner, gaussian = states["python"]
    random.setstate((version, tuple(inner), gaussian))
    for generator, state in zip(generators(loader), states["loader"], strict=False):
        generator.set_state(state)


def generators(loader: Any) -> list[torch.Generator]:
    """The sources of chance that a loader holds."""
    places = (
        loader,
        getattr(loader, "sampler", None),
        getattr(getattr(loader, "batch_sampler", None), "sampler", None),
    )
    found = [getattr(place, "generator", None) for place in places if place is not None]
    unique = {id(generator): generator for generator in found if isinstance(generator, torch.Generator)}
    return list(unique.values())


def _digest(payload: Tensor) -> str:
    return hashlib.sha256(payload.numpy().tobytes()).hexdigest()


def _unusable(path: Path, why: str) -> str:
    return (
        f"{str(path)!r} {why}: it may be damaged, half copied or of another program; restore it from a copy, or remove "
        "it to start the run afresh"
    )
