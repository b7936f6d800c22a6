"""Any attack of the torchattacks package (an extra)."""

import inspect
from typing import Any

import torch
from torch import Tensor

from robusttune import plugins
from robusttune.attacks import LossOf, ThreatModel, _adapters, declares, differentiable
from robusttune.run.randomness import own_randomness

__all__ = ["torchattacks"]

SLACK = 1e-3
PGD: dict[object, str] = {"linf": "PGD", "l2": "PGDL2"}
SPELLINGS: dict[object, object] = {"linf": "Linf", "l2": "L2"}
RADIUS = ("eps", "max_epsilon")


def _imported() -> Any:
    with _adapters.needing("torchattacks", "pip install 'robusttune[torchattacks]'"):
        import torchattacks as library
    return library


@plugins.requires(_imported)
@declares(differentiates_once=False)
def torchattacks(
    loss_of: LossOf,
    images: Tensor,
    threat: ThreatModel,
    *,
    generator: torch.Generator,
    name: str | None = None,
    **settings: Any,
) -> Tensor:
    """Images (N,C,H,W) found by an attack of torchattacks inside the same ball, on the logits and labels of `loss_of`.

    Attacks without a radius look for the nearest adversarial image; those that lie too far away are brought back.

    Args:
        loss_of: its `labels` and `logits_of` are used.
        images: (N,C,H,W) in [0,1].
        threat: gives the radius, and the norm of those attacks that take one.
        generator: gives the seed of those attacks that take one, and of the global states while the attack runs.
        name: the class, such as "APGD"; "PGD" or "PGDL2", by the norm, unless given.
        settings: the class's own arguments; `step_size` is its alpha.

    Raises:
        ImportError: torchattacks is not installed.
        ValueError: the loss is not one of labels (a joint attack), no such class or setting, or one that leaves the ball.
    """
    library = _imported()
    model, labels = _adapters.problem(loss_of, images, "torchattacks")
    if name is None and threat.norm not in PGD:
        raise ValueError(f"torchattacks has no PGD for {threat.norm!r}: pass name=… of a class made for this norm")
    name = _adapters.known_name(name or PGD[threat.norm], _names(library), "torchattacks")
    kind = getattr(library, name)
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    with differentiable(), own_randomness(seed):
        given = _offered(kind, threat, seed) | _adapters.arguments(kind, settings, f"torchattacks' {name}")
        found: Tensor = kind(model, **given)(_adapters.copied(images), labels)
    bounded = any(radius in given for radius in RADIUS)
    if bounded and bool((threat.size(found, images) > threat.eps * (1 + SLACK) + 1e-6).any()):
        raise ValueError(f"{name} left the {threat.norm} ball of radius eps: it is made for another norm")
    return _adapters.as_laid_out(found, images) if bounded else _adapters.brought_back(found, images, threat)


def _offered(kind: type, threat: ThreatModel, seed: int) -> dict[str, Any]:
    """Those of radius, norm and seed that the class takes."""
    norm = SPELLINGS.get(threat.norm, threat.norm)
    offered = {**dict.fromkeys(RADIUS, threat.eps), "norm": norm, "seed": seed}
    taken = inspect.signature(kind).parameters
    return {key: value for key, value in offered.items() if key in taken}


def _names(library: Any) -> list[str]:
    kind = library.attack.Attack
    return [name for name, one in vars(library).items() if isinstance(one, type) and issubclass(one, kind)]
