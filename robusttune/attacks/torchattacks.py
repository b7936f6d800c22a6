"""Any attack of the torchattacks package (an extra)."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from robusttune.modes import differentiable, own_randomness
from robusttune.threat import LossOf, ThreatModel

__all__ = ["torchattacks"]

SLACK = 1e-3
PGD = {"linf": "PGD", "l2": "PGDL2"}


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

    Args:
        loss_of: its `labels` and `logits_of` are used.
        images: (N,C,H,W) in [0,1].
        threat: gives the radius, and the norm of those attacks that take one.
        generator: gives the seed of those attacks that take one, and of the global states while the attack runs.
        name: the class, such as "APGD"; "PGD" or "PGDL2", by the norm, unless given.
        settings: the class's own arguments, such as `steps=100`.

    Raises:
        ImportError: torchattacks is not installed.
        ValueError: the loss is not one of labels (a joint attack), no such class, or one that leaves the ball.
    """
    library = _imported()
    if loss_of.labels is None or loss_of.logits_of is None:
        raise ValueError(
            "torchattacks needs one set of labels, and attack_tasks='joint' attacks the class and the pretext loss "
            "together: use attack_tasks='none' or 'separate', or a built-in attack such as 'pgd'"
        )
    if name is None and threat.norm not in PGD:
        raise ValueError(f"torchattacks has no PGD for {threat.norm!r}: pass name=… of a class made for this norm")
    name = name or PGD[threat.norm]
    if not isinstance(getattr(library, name, None), type):
        raise ValueError(f"torchattacks has no attack {name!r}")
    seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
    with differentiable(), own_randomness(seed):
        arguments = _arguments(library, name, threat, seed) | settings
        attack = getattr(library, name)(_Logits(loss_of.logits_of, images), **arguments)
        found: Tensor = attack(images.detach().clone(), loss_of.labels.clone())
    if bool((threat.size(found, images) > threat.eps * (1 + SLACK) + 1e-6).any()):
        raise ValueError(
            f"{name} left the {threat.norm} ball of radius eps: it is made for another norm, or has no eps"
        )
    return found.detach()


class _Logits(nn.Module):
    """A function in the shape that torchattacks expects: a module in eval mode with a parameter on the device."""

    def __init__(self, logits_of: Any, images: Tensor) -> None:
        super().__init__()
        self.logits_of = logits_of
        self.place = nn.Parameter(images.new_zeros(()), requires_grad=False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.logits_of(images)
        return logits


def _arguments(library: Any, name: str, threat: ThreatModel, seed: int) -> dict[str, Any]:
    """Those of eps, norm and seed that the class takes."""
    offered = {"eps": threat.eps, "norm": {"linf": "Linf", "l2": "L2"}.get(threat.norm, threat.norm), "seed": seed}
    taken = inspect.signature(getattr(library, name)).parameters
    return {key: value for key, value in offered.items() if key in taken}


def _imported() -> Any:
    try:
        import torchattacks as library
    except ImportError as error:
        raise ImportError("this attack needs torchattacks: pip install 'robusttune[torchattacks]'") from error
    return library
