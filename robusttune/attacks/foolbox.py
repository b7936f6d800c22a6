"""Any attack of the foolbox package (an extra)."""

import inspect
import math
from typing import Any

import torch
from torch import Tensor

from robusttune import plugins
from robusttune.attacks import LossOf, ThreatModel, _adapters, declares, differentiable
from robusttune.run.randomness import own_randomness

__all__ = ["foolbox"]

PGD: dict[object, str] = {"linf": "LinfPGD", "l2": "L2PGD"}
POWER = {"linf": math.inf, "l2": 2}


def _imported() -> Any:
    with _adapters.needing("foolbox", "pip install 'robusttune[foolbox]'"):
        import foolbox as library
    return library


@plugins.requires(_imported)
@declares(differentiates_once=False)
def foolbox(
    loss_of: LossOf,
    images: Tensor,
    threat: ThreatModel,
    *,
    generator: torch.Generator,
    name: str | None = None,
    **settings: Any,
) -> Tensor:
    """Images (N,C,H,W) found by an attack of foolbox inside the same ball, on the logits and labels of `loss_of`.

    Attacks without a radius look for the nearest adversarial image; those that lie too far away are brought back.

    Args:
        loss_of: its `labels` and `logits_of` are used.
        images: (N,C,H,W) in [0,1].
        threat: gives the radius, and the distance of those attacks that take one.
        generator: gives the seed of the global states while the attack runs.
        name: the class in `foolbox.attacks`, such as "L2DeepFoolAttack"; "LinfPGD" or "L2PGD", by the norm, unless given.
        settings: the class's own arguments; `step_size` is its abs_stepsize.

    Raises:
        ImportError: foolbox is not installed.
        ValueError: the loss is not one of labels (a joint attack), no such class or setting, or one for another norm.
    """
    library = _imported()
    model, labels = _adapters.problem(loss_of, images, "foolbox")
    if name is None and threat.norm not in PGD:
        raise ValueError(f"foolbox has no PGD for {threat.norm!r}: pass name=… of a class made for this norm")
    name = _adapters.known_name(name or PGD[threat.norm], _names(library), "foolbox")
    kind = getattr(library.attacks, name)
    given = _offered(library, kind, threat) | _adapters.arguments(kind, settings, f"foolbox's {name}")
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    with differentiable(), own_randomness(seed):
        attack = kind(**given)
        _check_distance(attack, name, threat)
        borrowed = library.PyTorchModel(model, bounds=(0, 1), device=images.device)
        _, found, _ = attack(borrowed, _adapters.copied(images), labels, epsilons=threat.eps)
    return _adapters.brought_back(found, images, threat)


def _offered(library: Any, kind: type, threat: ThreatModel) -> dict[str, Any]:
    """The norm, as those classes take it that serve several."""
    if threat.norm not in POWER:
        return {}
    offered = {"distance": library.distances.LpDistance(POWER[threat.norm]), "constraint": threat.norm}
    taken = inspect.signature(kind).parameters
    return {key: value for key, value in offered.items() if key in taken}


def _check_distance(attack: Any, name: str, threat: ThreatModel) -> None:
    distance = getattr(attack, "distance", None)
    if threat.norm in POWER and getattr(distance, "p", None) != POWER[threat.norm]:
        made = "knows no distance" if distance is None else f"is made for the {distance}"
        raise ValueError(f"foolbox's {name} {made}, but the adversary's norm is {threat.norm}: pass name=… of another")


def _names(library: Any) -> list[str]:
    kind = library.attacks.Attack
    return [name for name, one in vars(library.attacks).items() if isinstance(one, type) and issubclass(one, kind)]
