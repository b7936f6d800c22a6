"""Any attack of the adv-lib package (not an extra, as what it depends on does not build with current setuptools)."""

import inspect
import math
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
# Of those functions that take no norm.
MADE_FOR = {
    "pgd_linf": "linf",
    "carlini_wagner_linf": "linf",
    "carlini_wagner_l2": "l2",
    "alma": "l2",
    "ddn": "l2",
    "pdgd": "l2",
    "sdf": "l2",
    "str_attack": "l2",
}


def _imported() -> Any:
    with _adapters.needing("adv-lib", INSTALL):
        import adv_lib.attacks as library
    return library


@plugins.requires(_imported)
@declares(differentiates_once=False)
def adv_lib(
    loss_of: LossOf,
    images: Tensor,
    threat: ThreatModel,
    *,
    generator: torch.Generator,
    name: str | None = None,
    **settings: Any,
) -> Tensor:
    """Images (N,C,H,W) found by an attack of adv-lib inside the same ball, on the logits and labels of `loss_of`.

    adv-lib gives an image that it cannot fool back as it was, unless `apgd` is told `best_loss=True` (it then takes 100
    steps). Attacks without a radius look for the nearest adversarial image; those too far away are brought back.

    Args:
        loss_of: its `labels` and `logits_of` are used.
        images: (N,C,H,W) in [0,1].
        threat: gives the radius and the norm to those attacks that take them.
        generator: gives the seed of the global states while the attack runs.
        name: the function in `adv_lib.attacks`, such as "ddn"; "apgd", on the cross-entropy, unless given.
        settings: the function's own arguments; `steps` is its n_iter, num_steps or the like.

    Raises:
        ImportError: adv-lib is not installed.
        ValueError: the loss is not one of labels (a joint attack), no such function or setting, or one for another norm.
    """
    library = _imported()
    model, labels = _adapters.problem(loss_of, images, "adv-lib")
    settings = {"loss_function": "ce"} | settings if name is None else settings
    known = [key for key, one in vars(library).items() if inspect.isfunction(one)]
    name = _adapters.known_name(name or "apgd", known, "adv-lib")
    attack = getattr(library, name)
    given = _adapters.arguments(attack, settings, f"adv-lib's {name}")
    given = _offered(attack, name, threat, given) | given
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    with differentiable(), own_randomness(seed):
        found = attack(model, _adapters.copied(images), labels, **given)
    return _adapters.brought_back(found, images, threat)


def _offered(attack: Any, name: str, threat: ThreatModel, given: dict[str, Any]) -> dict[str, Any]:
    """The radius and the norm, by the names that the function has for them.

    Raises:
        ValueError: it is made for another norm.
    """
    taken = inspect.signature(attack).parameters
    # What has a default is something else: a first guess, or the size of a trust region.
    offered = {key: threat.eps for key in RADIUS if key in taken and taken[key].default is inspect.Parameter.empty}
    norms = [key for key in NORM if key in taken]
    if norms and threat.norm in POWER:
        return offered | dict.fromkeys(norms, POWER[threat.norm])
    if (norms and given.keys() & set(norms)) or MADE_FOR.get(name) == threat.norm:
        return offered
    made = f"for {MADE_FOR[name]}" if name in MADE_FOR else "for other norms"
    raise ValueError(
        f"adv-lib's {name} is made {made}, but the adversary's norm is {threat.norm}: pass name=… of another"
    )
