"""What the adapters to attacks of other packages have in common."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from robusttune.attacks import LossOf, ThreatModel
from robusttune.norms import per_image

# Our names of what most attacks have, and those of other packages.
SPELLINGS = {
    "steps": ("n_iter", "num_steps", "max_iterations", "iter"),
    "step_size": ("alpha", "abs_stepsize", "absolute_step_size"),
    "random_start": ("random_init",),
}


@contextmanager
def needing(package: str, install: str) -> Iterator[None]:
    """Import a package that may be missing or out of date inside: its warnings are kept, its absence is told.

    Raises:
        ImportError: what was imported is not here; how to install it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImportError as error:
        raise ImportError(f"this attack needs {package} ({error}): {install}") from error


def problem(loss_of: LossOf, images: Tensor, package: str) -> tuple[nn.Module, Tensor]:
    """What attacks written elsewhere ask for: a module in eval mode from images to logits (N,K), and labels (N,).

    Whatever they call `backward` on, gradients are computed toward images alone.

    Raises:
        ValueError: the loss is not one of labels, as in a joint attack.
    """
    if loss_of.labels is None or loss_of.logits_of is None:
        raise ValueError(
            f"{package} needs one set of labels, and attack_tasks='joint' attacks the class and the pretext loss "
            "together: use attack_tasks='none' or 'separate', or a built-in attack such as 'pgd'"
        )
    with torch.inference_mode(False):  # a tensor made in inference mode could not take part in a loss
        return _Logits(loss_of.logits_of, images), loss_of.labels.clone()


def copied(images: Tensor) -> Tensor:
    """A copy of the images (N,C,H,W), contiguous in memory, as some attacks call `view` on them."""
    return images.detach().clone(memory_format=torch.contiguous_format)


def known_name(name: str, known: Sequence[str], package: str) -> str:
    """The name, where the package has an attack of it.

    Raises:
        ValueError: it has none; the message lists the closest ones.
    """
    if name in known:
        return name
    lower = {one.lower(): one for one in known}
    close = [lower[one] for one in get_close_matches(name.lower(), lower, n=3, cutoff=0.5)]
    told = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(sorted(known))}"
    raise ValueError(f"{package} has no attack {name!r}: {told}")


def arguments(made: Callable[..., Any], settings: Mapping[str, Any], title: str) -> dict[str, Any]:
    """The settings, by the names that a class or function of another package has for them.

    Raises:
        ValueError: it takes no such setting.
    """
    taken = inspect.signature(made).parameters
    found = {}
    for key, value in settings.items():
        own = next((one for one in (key, *SPELLINGS.get(key, ())) if one in taken), None)
        if own is None:
            raise ValueError(
                f"{title} takes no {key}: leave it out (steps=None for an evaluation); it takes "
                f"{', '.join(one for one in taken if one not in ('model', 'inputs', 'labels'))}"
            )
        found[own] = value
    return found


def brought_back(found: Tensor, images: Tensor, threat: ThreatModel) -> Tensor:
    """What an attack found (N,C,H,W), in the images' memory format, those too far away brought back into the ball."""
    found = as_laid_out(found, images)
    far = threat.size(found, images) > threat.eps
    return torch.where(per_image(far, images), threat.project(found, images), found).detach()


def as_laid_out(found: Tensor, images: Tensor) -> Tensor:
    """What an attack found (N,C,H,W), in the memory format of the images that it was given."""
    return torch.empty_like(images).copy_(found.detach())


class _Logits(nn.Module):
    """A function in the shape that other packages expect: a module in eval mode with a parameter on the device."""

    def __init__(self, logits_of: Callable[[Tensor], Tensor], images: Tensor) -> None:
        super().__init__()
        self.logits_of = logits_of
        self.place = nn.Parameter(images.new_zeros(()), requires_grad=False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        if not (images.requires_grad and torch.is_grad_enabled()):
            return self.logits_of(images)
        logits: Tensor = _TowardImages.apply(images, self.logits_of)
        return logits


class _TowardImages(torch.autograd.Function):
    """A function of images whose gradient reaches them, and no parameters that it depends on."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, logits_of: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.enable_grad():
            ctx.images = images.detach().requires_grad_()
            ctx.logits = logits_of(ctx.images)
        logits: Tensor = ctx.logits.detach()
        return logits

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        # Some attacks go backward through one forward once for each class.
        (gradient,) = torch.autograd.grad(ctx.logits, ctx.images, slope, retain_graph=True)
        return gradient.contiguous(), None
