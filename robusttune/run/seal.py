"""Checksums inside files of weights, which detect a damaged file, even after it was copied elsewhere."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from robusttune.run.about import METADATA
from robusttune.run.provenance import digest, tensor_bytes
from robusttune.types import from_json

CHECKSUM = "checksum"


class BrokenSeal(ValueError):
    """The checksum in a file of weights does not match its weights."""


def sealed(weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata of a file of weights, with a checksum of the weights and of the rest of the metadata added."""
    facts = from_json(metadata.get(METADATA, "{}"))
    facts = {name: value for name, value in facts.items() if name != CHECKSUM}
    return {METADATA: json.dumps({**facts, CHECKSUM: _checksum(weights, facts)}, sort_keys=True)}


def _checksum(weights: Mapping[str, Tensor], facts: Mapping[str, object]) -> str:
    """Hash weights, their names, shapes and types, and the facts in the metadata of their file."""
    names = sorted(weights)
    about = [facts, *([name, str(weights[name].dtype), list(weights[name].shape)] for name in names)]
    return digest([json.dumps(about, sort_keys=True).encode(), *(tensor_bytes(weights[name]) for name in names)])


def checksum_of_weights(path: Path) -> str | None:
    """Return the checksum that stands in a safetensors file; None for a file without one, or one that cannot be read."""
    try:
        facts = from_json(metadata_of(path) or "{}")
    except ValueError:
        return None
    checksum = facts.get(CHECKSUM) if isinstance(facts, dict) else None
    return checksum if isinstance(checksum, str) else None


def metadata_of(path: Path) -> str | None:
    """Return what this library wrote into the metadata of a safetensors file; None for another file."""
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get(METADATA)
    except SafetensorError:
        return None  # `load_weights` says that it is damaged


def check_seal(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Raise a BrokenSeal if the file's checksum does not match the weights; files of other programs have no checksum."""
    facts = from_json(metadata_of(path) or "{}")
    if CHECKSUM not in facts:
        return
    checksum = facts.pop(CHECKSUM)
    if _checksum(weights, facts) != checksum:
        raise BrokenSeal(str(path))
