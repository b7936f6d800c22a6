"""Security advisories for packages that read files: affected versions, effect and source."""

import json
import os
import urllib.request
from collections.abc import Mapping
from typing import NamedTuple

import torch

TRUST = "ROBUSTTUNE_TRUST_CHECKPOINTS"
DATABASE, SECONDS = "https://api.osv.dev/v1/querybatch", 20.0


class Advisory(NamedTuple):
    """A published fault.

    Attributes:
        package: the package that has it.
        fixed: the first version without it, as numbers.
        name: by which it is known.
        what: it lets others do.
        source: where it is published.
    """

    package: str
    fixed: tuple[int, int]
    name: str
    what: str
    source: str


UNPICKLER = Advisory(
    "torch",
    (2, 10),
    "CVE-2026-24747",
    "a crafted .pt or .pth file can run code, even with weights_only=True",
    "https://github.com/pytorch/pytorch/security/advisories/GHSA-63cw-57p8-fm3p",
)
ADVISORIES = (
    UNPICKLER,
    Advisory(
        "torch",
        (2, 6),
        "CVE-2025-32434",
        "a crafted checkpoint can run code, even with weights_only=True",
        "https://github.com/pytorch/pytorch/security/advisories/GHSA-53q9-r3pm-6pq6",
    ),
)


def numbers_of(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version.

    Example:
        >>> numbers_of("2.14.1+cu130"), numbers_of("2.9.0a0")
        ((2, 14), (2, 9))
    """
    first, second = version.split(".")[:2]
    return int(first), int("".join(each for each in second if each.isdigit()) or 0)


def check_unpickler(path: object) -> None:
    """Refuse to read a file of torch's own format with a version of torch that lets such files run code.

    Raises:
        ValueError: torch is older than 2.10, and the user has not said that the files are trusted.
    """
    if numbers_of(torch.__version__) >= UNPICKLER.fixed or os.environ.get(TRUST) == "1":
        return
    fixed = ".".join(map(str, UNPICKLER.fixed))
    raise ValueError(
        f"{str(path)!r} is not read with torch {torch.__version__}, which has {UNPICKLER.name}: {UNPICKLER.what}; install torch "
        f"{fixed} or later, pass safetensors, or, for files that nobody else can have written, set {TRUST}=1"
    )


def looked_up(versions: Mapping[str, str]) -> dict[str, list[str]]:
    """Ask the database of osv.dev for the published faults of versions; returns their names by package.

    Only names and versions of packages are sent.

    Raises:
        OSError: it cannot be reached, or does not answer in time.
    """
    queries = [
        {"package": {"name": name, "ecosystem": "PyPI"}, "version": version.partition("+")[0]}
        for name, version in versions.items()
    ]
    body = json.dumps({"queries": queries}).encode()
    request = urllib.request.Request(DATABASE, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            results = json.load(answer)["results"]
    except (ValueError, KeyError, TypeError) as error:
        raise OSError(f"its answer cannot be read: {error}") from error
    found = {
        name: [each["id"] for each in result.get("vulns", [])] for name, result in zip(versions, results, strict=True)
    }
    return {name: names for name, names in found.items() if names}
