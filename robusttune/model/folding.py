"""Batch-norm folding: a copy of a model, for attacks, in which batch norms are part of the convolutions before them."""

import copy
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from robusttune.model.borrowing import evaluating
from robusttune.model.features import Classifier, forward
from robusttune.model.snapshot import own_modules, plain_values

logger = logging.getLogger("robusttune")
CONVOLUTIONS = (nn.Conv2d, Conv2dSame)  # no subclasses, which may change their weights in the forward
NORMS = (nn.BatchNorm2d, BatchNormAct2d)
CLOSE = 1e-6  # share of the largest logit, in double precision


class _Pair(NamedTuple):
    """The names of a convolution and of the batch norm that reads its output."""

    convolution: str
    norm: str


class Folded:
    """A model's forward in eval mode without its batch norms; call `refresh` after each change of the model's weights.

    The copy shares all weights with the model, except those of the folded convolutions.

    Args:
        model: a model in whose forward some batch norms directly follow convolutions.
        classifier: the layers that read the features.
        pairs: the convolutions and batch norms that `pairs_of` returned.
    """

    def __init__(self, model: nn.Module, classifier: Classifier, pairs: list[_Pair]) -> None:
        self.model, self.classifier, self.pairs = model, classifier, pairs
        alike: dict[object, list[_Pair]] = {}
        for pair in pairs:
            formats = _formats(model.get_submodule(pair.norm), model.get_submodule(pair.convolution))
            alike.setdefault(formats, []).append(pair)
        self.alike, self.twins = list(alike.values()), list[tuple[nn.Module, nn.Module]]()
        shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
        # In eval mode already, the copy's own `eval` does not change shared weights a second time.
        with evaluating(model):
            self.copy = copy.deepcopy(model, shared).eval()
        for pair in pairs:
            convolution: Any = self.copy.get_submodule(pair.convolution)
            convolution.weight = nn.Parameter(torch.empty_like(convolution.weight), requires_grad=False)
            convolution.bias = nn.Parameter(convolution.weight.new_empty(len(convolution.weight)), requires_grad=False)
            path, _, name = pair.norm.rpartition(".")
            setattr(self.copy.get_submodule(path), name, _after_normalising(self.copy.get_submodule(pair.norm)))
        self.refresh()
        copies = dict(self.copy.named_modules())
        own = own_modules(model)
        self.twins = [(one, copies[name]) for name, one in own.items() if type(one) is type(copies.get(name))]

    @torch.no_grad()
    def refresh(self) -> None:
        """Fold the model's present weights and statistics into the copy, and give its layers their present attributes."""
        for pairs in self.alike:
            self._fold(pairs)
        for one, other in self.twins:
            vars(other).update(plain_values(one))

    def _fold(self, pairs: list[_Pair]) -> None:
        """Fold layers of one device and number format together, since each launch takes time on a GPU."""
        layers: Any = [
            (
                self.model.get_submodule(pair.norm),
                self.model.get_submodule(pair.convolution),
                self.copy.get_submodule(pair.convolution),
            )
            for pair in pairs
        ]
        norms, convolutions, copies = zip(*layers, strict=True)
        epsilons = [float(norm.eps) for norm in norms]
        means = [norm.running_mean for norm in norms]
        sizes = [len(mean) for mean in means]
        scale = torch.rsqrt(torch.cat(torch._foreach_add([norm.running_var for norm in norms], epsilons)))
        scale = scale * _joined([norm.weight for norm in norms], means, 1.0)
        shift = _joined([convolution.bias for convolution in convolutions], means, 0.0) - torch.cat(means)
        shift = shift * scale + _joined([norm.bias for norm in norms], means, 0.0)
        for convolution, folded, factor in zip(convolutions, copies, torch.split(scale, sizes), strict=True):
            folded.weight.copy_(convolution.weight * factor.view(-1, 1, 1, 1))
        torch._foreach_copy_([folded.bias for folded in copies], list(torch.split(shift, sizes)))

    def __call__(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (N,K) and the features (N,D) of inputs (N,C,H,W)."""
        return forward(self.copy, self.classifier, inputs)


def _formats(*layers: nn.Module) -> tuple[object, ...]:
    """Return names, devices and number formats of the layers' tensors."""
    return tuple((name, each.device, each.dtype) for layer in layers for name, each in layer.state_dict().items())


def _joined(values: list[Tensor | None], like: list[Tensor], default: float) -> Tensor:
    """Concatenate vectors; the default replaces each that is None."""
    pairs = zip(values, like, strict=True)
    return torch.cat([torch.full_like(other, default) if value is None else value for value, other in pairs])


def folded(model: nn.Module, classifier: Classifier, inputs: Tensor) -> Folded | None:
    """Return a folded copy of the model with the same outputs; None if the model has no such copy.

    The outputs are compared in double precision, on a copy with random numbers in its norms: the norms of a fresh model
    change so little that a convolution which another layer reads as well would go unnoticed.

    Args:
        inputs: (N,C,H,W), a few images as the model takes them, to compare the outputs.
    """
    try:
        pairs = pairs_of(model, inputs)
        if not pairs or any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
            return None
        changed = _with_random_norms(copy.deepcopy(model).double().eval().requires_grad_(False))
        with torch.no_grad():
            expected = forward(changed, classifier, inputs.double().clone())
            outputs = Folded(changed, classifier, pairs)(inputs.double().clone())
        for one, other in zip(expected, outputs, strict=True):
            if not bool(((one - other).abs() <= CLOSE * one.abs().max()).all()):
                return None
        return Folded(model, classifier, pairs)
    except Exception as error:  # a model that cannot be copied or folded is attacked itself
        logger.debug("batch norms are not folded: %s", error)
        return None


def pairs_of(model: nn.Module, inputs: Tensor) -> list[_Pair]:
    """List each batch norm that reads the output of a convolution, where both run once in a forward."""
    outputs: list[tuple[Tensor, str]] = []
    read: list[_Pair] = []
    runs: Counter[str] = Counter()
    with ExitStack() as stack, evaluating(model), torch.no_grad():
        for name, module in model.named_modules():
            if type(module) in CONVOLUTIONS and "weight" in module._parameters:
                stack.callback(module.register_forward_hook(_keeps(name, outputs, runs)).remove)
            elif type(module) in NORMS and isinstance(module.running_mean, Tensor):
                stack.callback(module.register_forward_pre_hook(_reads(name, outputs, read, runs)).remove)
        model(inputs.clone())  # which some models write into
    return [pair for pair in read if runs[pair.convolution] == runs[pair.norm] == 1]


def _keeps(name: str, outputs: list[tuple[Tensor, str]], runs: Counter[str]) -> Callable[..., None]:
    """Return a hook that records the outputs of a convolution."""

    def keep(module: nn.Module, arguments: tuple[object, ...], output: Tensor) -> None:
        runs[name] += 1
        outputs.append((output, name))

    return keep


def _reads(name: str, outputs: list[tuple[Tensor, str]], read: list[_Pair], runs: Counter[str]) -> Callable[..., None]:
    """Return a hook that records which convolution's output a batch norm reads."""

    def record(module: nn.Module, arguments: tuple[object, ...]) -> None:
        runs[name] += 1
        read.extend(_Pair(source, name) for output, source in outputs if output is arguments[0])

    return record


def _after_normalising(norm: nn.Module) -> nn.Module:
    """Return the layers inside a batch norm that run after the normalisation: none, or dropout and activation."""
    return nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()


@torch.no_grad()
def _with_random_norms(model: nn.Module) -> nn.Module:
    """Write random numbers into all tensors of the model's batch norms, and return the model."""
    generator = torch.Generator().manual_seed(0)
    for norm in (module for module in model.modules() if isinstance(module, NORMS)):
        tensors = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        for tensor in filter(torch.is_tensor, tensors):
            random = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.5
            tensor.copy_(random.to(tensor.device))
    return model
