"""Adapter to every attack of the foolbox package (an extra)."""

import inspect
import math
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from robusttune import plugins
from robusttune.attacks import LossOf, ThreatModel, _adapters, declares, differentiable
from robusttune.run.randomness import own_randomness

__all__ = ["foolbox"]

PGD: dict[object, str] = {"linf": "LinfPGD", "l2": "L2PGD"}
POWER = {"linf": math.inf, "l2": 2}


# Any: the library has no types.
def _imported() -> Any:
    """Import foolbox.

    Raises:
        ImportError: foolbox is not installed.
    """
    with _adapters.needing("foolbox", "pip install 'robusttune[foolbox]'"):
        import foolbox as library
    return library


@plugins.requires(_imported)
@declares(own_loss=True)
def foolbox(
    loss_of: LossOf,
    images: Tensor,
    threat: ThreatModel,
    *,
    generator: torch.Generator,
    name: str | None = None,
    **settings: Any,
) -> Tensor:
    """Run an attack of foolbox on the logits and labels of `loss_of`, and return images (N,C,H,W) inside the ball.

    Attacks without a radius search for the nearest adversarial image; results outside the ball are projected into it.

    Args:
        loss_of: its `labels` and `logits_of` are used.
        images: (N,C,H,W) in [0,1].
        threat: the radius, and the distance for attacks that take one.
        generator: draws the seed of the global random states while the attack runs.
        name: the class in `foolbox.attacks`, such as "L2DeepFoolAttack"; None for "LinfPGD" or "L2PGD", by the norm.
        settings: arguments of the class; `step_size` is its abs_stepsize.

    Raises:
        ImportError: foolbox is not installed.
        ValueError: the loss has no labels (a joint attack), or the class or a setting is unknown or for another norm.
    """
    library = _imported()
    model, labels = _adapters.problem(loss_of, images, "foolbox")
    if name is None and threat.norm not in PGD:
        raise ValueError(f"foolbox has no PGD for {threat.norm!r}: pass name=… of a class for this norm")
    name = _adapters.known_name(name or PGD[threat.norm], _names(library), "foolbox")
    kind = getattr(library.attacks, name)
    arguments = _offered(library, kind, threat) | _adapters.arguments(kind, settings, f"foolbox's {name}")
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    with differentiable(), own_randomness(seed):
        attack = kind(**arguments)
        _check_distance(attack, name, threat)
        adapted = library.PyTorchModel(model, bounds=(0, 1), device=images.device)
        _, results, _ = attack(adapted, _adapters.copied(images), labels, epsilons=threat.eps)
    return _adapters.projected(results, images, threat)


def _offered(library: ModuleType, kind: type, threat: ThreatModel) -> dict[str, object]:
    """Return the norm as arguments of a class that serves several norms."""
    if threat.norm not in POWER:
        return {}
    offered = {"distance": library.distances.LpDistance(POWER[threat.norm]), "constraint": threat.norm}
    parameters = inspect.signature(kind).parameters
    return {key: value for key, value in offered.items() if key in parameters}


def _check_distance(attack: object, name: str, threat: ThreatModel) -> None:
    """Raise a ValueError if an attack of foolbox is for another norm than the threat's."""
    distance = getattr(attack, "distance", None)
    if threat.norm in POWER and getattr(distance, "p", None) != POWER[threat.norm]:
        reason = "knows no distance" if distance is None else f"is for the {distance}"
        raise ValueError(
            f"foolbox's {name} {reason}, but the adversary's norm is {threat.norm}: pass name=… of another"
        )


def _names(library: ModuleType) -> list[str]:
    kind = library.attacks.Attack
    return [name for name, one in vars(library.attacks).items() if isinstance(one, type) and issubclass(one, kind)]
