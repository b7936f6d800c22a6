"""Adapter to every attack of the torchattacks package (an extra)."""

import inspect
from types import ModuleType
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
# The norm of classes that do not take one, but would find little in the ball of another norm, and not leave it.
NORM_OF = {"CW": "l2", "DeepFool": "l2", "PGDL2": "l2", "PGDRSL2": "l2"}


# Any: the library has no types.
def _imported() -> Any:
    """Import torchattacks.

    Raises:
        ImportError: torchattacks is not installed.
    """
    with _adapters.needing("torchattacks", "pip install 'robusttune[torchattacks]'"):
        import torchattacks as library
    return library


@plugins.requires(_imported)
@declares(own_loss=True)
def torchattacks(
    loss_of: LossOf,
    images: Tensor,
    threat: ThreatModel,
    *,
    generator: torch.Generator,
    name: str | None = None,
    **settings: Any,
) -> Tensor:
    """Run an attack of torchattacks on the logits and labels of `loss_of`, and return images (N,C,H,W) inside the ball.

    Attacks without a radius search for the nearest adversarial image; results outside the ball are projected into it. "APGDT" has a fault
    in l2, which makes it weaker: it moves all images of a batch by the step of the first one (3.5.1); adv-lib's "apgd_targeted" has not.

    Args:
        loss_of: its `labels` and `logits_of` are used.
        images: (N,C,H,W) in [0,1].
        threat: the radius, and the norm for attacks that take one.
        generator: draws the seed for attacks that take one, and of the global random states while the attack runs.
        name: the class, such as "APGD"; None for "PGD" or "PGDL2", by the norm.
        settings: arguments of the class; `step_size` is its alpha.

    Raises:
        ImportError: torchattacks is not installed.
        ValueError: the loss has no labels (a joint attack), the class or a setting is unknown or of another norm or radius, or the
            result leaves the ball.
    """
    library = _imported()
    model, labels = _adapters.problem(loss_of, images, "torchattacks")
    if name is None and threat.norm not in PGD:
        raise ValueError(f"torchattacks has no PGD for {threat.norm!r}: pass name=… of a class for this norm")
    name = _adapters.known_name(name or PGD[threat.norm], _names(library), "torchattacks")
    kind = getattr(library, name)
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    offered, given = _offered(kind, threat, seed), _adapters.arguments(kind, settings, f"torchattacks' {name}")
    _check_threat(name, threat, offered, given)
    with differentiable(), own_randomness(seed):
        arguments = offered | given
        results: Tensor = kind(model, **arguments)(_adapters.copied(images), labels)
    bounded = any(radius in arguments for radius in RADIUS)
    if bounded and bool((threat.size(results, images) > threat.eps * (1 + SLACK) + 1e-6).any()):
        raise ValueError(
            f"{name} left the {threat.norm} ball of radius eps, so it is for another norm: pass name=… of a class for {threat.norm}"
        )
    return _adapters.as_laid_out(results, images) if bounded else _adapters.projected(results, images, threat)


def _check_threat(name: str, threat: ThreatModel, offered: dict[str, object], given: dict[str, object]) -> None:
    """Raise a ValueError for a class of another norm, and for settings that say another norm or radius."""
    if threat.norm in SPELLINGS and NORM_OF.get(name, threat.norm) != threat.norm:
        raise ValueError(
            f"torchattacks' {name} is for {NORM_OF[name]}, but the adversary's norm is {threat.norm}: pass name=… of another"
        )
    own = RADIUS if threat.norm not in SPELLINGS else (*RADIUS, "norm")
    _adapters.check_threat(given, {key: offered[key] for key in own if key in offered}, f"torchattacks' {name}")


def _offered(kind: type, threat: ThreatModel, seed: int) -> dict[str, object]:
    """Return the radius, norm and seed as arguments of a class, as far as it takes them."""
    norm = SPELLINGS.get(threat.norm, threat.norm)
    offered = {**dict.fromkeys(RADIUS, threat.eps), "norm": norm, "seed": seed}
    parameters = inspect.signature(kind).parameters
    return {key: value for key, value in offered.items() if key in parameters}


def _names(library: ModuleType) -> list[str]:
    kind = library.attack.Attack
    return [name for name, one in vars(library).items() if isinstance(one, type) and issubclass(one, kind)]
