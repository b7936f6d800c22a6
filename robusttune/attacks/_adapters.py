"""Shared functions of the adapters to attacks of other packages."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from robusttune.attacks import LossOf, ThreatModel, gradient_toward
from robusttune.norms import per_image

# This library's names of common settings, and their names in other packages.
SPELLINGS = {
    "steps": ("n_iter", "num_steps", "max_iterations", "iter"),
    "step_size": ("alpha", "abs_stepsize", "absolute_step_size"),
    "random_start": ("random_init",),
}


@contextmanager
def needing(package: str, install: str) -> Iterator[None]:
    """Ignore warnings while a package is imported, and explain how to install it if it is missing.

    Args:
        package: its name, for the message.
        install: the command that installs it.

    Raises:
        ImportError: the package, or one that it needs, is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImportError as error:
        raise ImportError(f"this attack needs {package} ({error}): {install}") from error


def problem(loss_of: LossOf, images: Tensor, package: str) -> tuple[nn.Module, Tensor]:
    """Return the arguments of other packages' attacks: a module from images to logits (N,K), and labels (N,).

    The module is in eval mode. Gradients through it reach the images alone, even if an attack calls `backward`.

    Args:
        loss_of: with labels and logits.
        images: (N,C,H,W), for their device and type.
        package: its name, for the message.

    Raises:
        ValueError: the loss has no labels, as in a joint attack.
    """
    if loss_of.labels is None or loss_of.logits_of is None:
        raise ValueError(
            f"{package} needs one set of labels, and attack_tasks='joint' attacks the class and the pretext loss "
            "together: use attack_tasks='none' or 'separate', or a built-in attack such as 'pgd'"
        )
    with torch.inference_mode(False):  # a tensor created in inference mode cannot take part in a loss
        return _Logits(loss_of.logits_of, images), loss_of.labels.clone()


def copied(images: Tensor) -> Tensor:
    """Copy images (N,C,H,W) to contiguous memory, as some attacks call `view` on them."""
    return images.detach().clone(memory_format=torch.contiguous_format)


def known_name(name: str, known: Sequence[str], package: str) -> str:
    """Return the name if the package has an attack of this name.

    Raises:
        ValueError: it has none; the message lists the closest names.
    """
    if name in known:
        return name
    lower = {attack.lower(): attack for attack in known}
    close = [lower[match] for match in get_close_matches(name.lower(), lower, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(sorted(known))}"
    raise ValueError(f"{package} has no attack {name!r}: {hint}")


def arguments(attack: Callable[..., object], settings: Mapping[str, object], title: str) -> dict[str, object]:
    """Return settings under the names that a class or function of another package has for them.

    Args:
        attack: the class or function.
        settings: under this library's names or the package's.
        title: the title of the attack, for the message.

    Raises:
        ValueError: the attack has no such setting.
    """
    parameters = inspect.signature(attack).parameters
    renamed = {}
    for key, value in settings.items():
        name = next((spelling for spelling in (key, *SPELLINGS.get(key, ())) if spelling in parameters), None)
        if name is None:
            raise ValueError(
                f"{title} takes no {key}: leave it out (steps=None for an evaluation); it takes "
                f"{', '.join(known for known in parameters if known not in ('model', 'inputs', 'labels'))}"
            )
        renamed[name] = value
    return renamed


def check_threat(given: Mapping[str, object], of_threat: Mapping[str, object], title: str) -> None:
    """Raise a ValueError for settings that give an attack another radius or norm than the adversary's, which Records would name.

    Args:
        given: settings of the user, under the package's names.
        of_threat: the radius and the norm of the adversary, under the same names.
        title: the title of the attack, for the message.
    """
    for key, value in of_threat.items():
        if key in given and given[key] != value:
            raise ValueError(
                f"{title} is told {key}={given[key]}, but the adversary's is {value}: leave {key} out, as the attack gets it from "
                "the adversary"
            )


def projected(results: Tensor, images: Tensor, threat: ThreatModel) -> Tensor:
    """Project those results (N,C,H,W) of an attack that lie outside of the ball, in the images' memory format."""
    results = as_laid_out(results, images)
    outside = threat.size(results, images) > threat.eps
    return torch.where(per_image(outside, images), threat.project(results, images), results).detach()


def as_laid_out(results: Tensor, images: Tensor) -> Tensor:
    """Copy the results (N,C,H,W) of an attack to the memory format of the original images."""
    return torch.empty_like(images).copy_(results.detach())


class _Logits(nn.Module):
    """A function as other packages expect a model: a module in eval mode, with a parameter that shows the device."""

    def __init__(self, logits_of: Callable[[Tensor], Tensor], images: Tensor) -> None:
        super().__init__()
        self.logits_of = logits_of
        self.device_marker = nn.Parameter(images.new_zeros(()), requires_grad=False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        if not (images.requires_grad and torch.is_grad_enabled()):
            return self.logits_of(images)
        logits: Tensor = _TowardImages.apply(images, self.logits_of)
        return logits


class _TowardImages(torch.autograd.Function):
    """A function of images whose gradient reaches the images, but not the parameters of the function."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, logits_of: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.enable_grad():
            ctx.images = images.detach().requires_grad_()
            ctx.logits = logits_of(ctx.images)
        logits: Tensor = ctx.logits.detach()
        return logits

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        # Some attacks call backward once per class on the same forward.
        logits, images = ctx.logits, ctx.images
        return gradient_toward(images, logits, slope, retain_graph=True).contiguous(), None
