"""Adapter to every attack of the adv-lib package (no extra: its dependencies do not build with current setuptools)."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from robusttune import plugins
from robusttune.attacks import LossOf, ThreatModel, _adapters, declares, differentiable
from robusttune.run.randomness import own_randomness

__all__ = ["adv_lib"]

INSTALL = "pip install 'setuptools<82' wheel && pip install --no-build-isolation adv-lib"
POWER = {"linf": math.inf, "l2": 2}
RADIUS, NORM = ("eps", "ε"), ("norm", "p")
# The norm of functions that do not take one.
NORM_OF = {
    "pgd_linf": "linf",
    "carlini_wagner_linf": "linf",
    "carlini_wagner_l2": "l2",
    "alma": "l2",
    "ddn": "l2",
    "pdgd": "l2",
    "sdf": "l2",
    "str_attack": "l2",
}


# Any: the library has no types.
def _imported() -> Any:
    """Import adv-lib's attacks.

    Raises:
        ImportError: adv-lib is not installed.
    """
    with _adapters.needing("adv-lib", INSTALL):
        import adv_lib.attacks as library
    return library


@plugins.requires(_imported)
@declares(own_loss=True)
def adv_lib(
    loss_of: LossOf,
    images: Tensor,
    threat: ThreatModel,
    *,
    generator: torch.Generator,
    name: str | None = None,
    **settings: Any,
) -> Tensor:
    """Run an attack of adv-lib on the logits and labels of `loss_of`, and return images (N,C,H,W) inside the ball.

    adv-lib returns an image unchanged if the attack fails, except `apgd` with `best_loss=True` (it then takes 100 steps).
    Attacks without a radius search for the nearest adversarial image; results outside the ball are projected into it.

    Args:
        loss_of: its `labels` and `logits_of` are used.
        images: (N,C,H,W) in [0,1].
        threat: the radius and the norm, for attacks that take them.
        generator: draws the seed of the global random states while the attack runs.
        name: the function in `adv_lib.attacks`, such as "ddn"; None for "apgd" on the cross-entropy.
        settings: arguments of the function; `steps` is its n_iter, num_steps or the like.

    Raises:
        ImportError: adv-lib is not installed.
        ValueError: the loss has no labels (a joint attack), or the function or a setting is unknown or for another norm or
            radius.
    """
    library = _imported()
    model, labels = _adapters.problem(loss_of, images, "adv-lib")
    settings = {"loss_function": "ce"} | settings if name is None else settings
    known = [key for key, one in vars(library).items() if inspect.isfunction(one)]
    name = _adapters.known_name(name or "apgd", known, "adv-lib")
    attack = getattr(library, name)
    arguments = _adapters.arguments(attack, settings, f"adv-lib's {name}")
    offered = _offered(attack, name, threat, arguments)
    _adapters.check_threat(arguments, offered, f"adv-lib's {name}")
    arguments = offered | arguments
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    with differentiable(), own_randomness(seed):
        results = attack(model, _adapters.copied(images), labels, **arguments)
    return _adapters.projected(results, images, threat)


def _offered(
    attack: Callable[..., Tensor], name: str, threat: ThreatModel, arguments: Mapping[str, object]
) -> dict[str, object]:
    """Return the radius and the norm as arguments of a function of adv-lib.

    Raises:
        ValueError: the function is for another norm.
    """
    parameters = inspect.signature(attack).parameters
    # A parameter with a default is no radius, but a first guess or the size of a trust region.
    required = [key for key, one in parameters.items() if one.default is inspect.Parameter.empty]
    offered: dict[str, object] = {key: threat.eps for key in RADIUS if key in required}
    norms = [key for key in NORM if key in parameters]
    if norms and threat.norm in POWER:
        return offered | dict.fromkeys(norms, POWER[threat.norm])
    if (norms and arguments.keys() & set(norms)) or NORM_OF.get(name) == threat.norm:
        return offered
    norm = NORM_OF.get(name, "other norms")
    raise ValueError(
        f"adv-lib's {name} is for {norm}, but the adversary's norm is {threat.norm}: pass name=… of another"
    )
