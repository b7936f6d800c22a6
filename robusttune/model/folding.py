"""A copy of a model for the attack alone, in which batch norms are part of the convolutions before them."""

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

logger = logging.getLogger("robusttune")
CONVOLUTIONS = (nn.Conv2d, Conv2dSame)  # these very types: others may change their weights in the forward
NORMS = (nn.BatchNorm2d, BatchNormAct2d)
CLOSE = 1e-6  # of the largest logit, in double precision


class _Pair(NamedTuple):
    """The names of a convolution and of the batch norm that alone reads it."""

    convolution: str
    norm: str


class Folded:
    """A model's forward in eval mode without its batch norms; `refresh` after each change of the model's weights.

    All weights but those of the convolutions concerned are the model's own.

    Args:
        model: a model in whose forward some batch norms directly follow convolutions.
        classifier: where its features are.
        pairs: what `pairs_of` found.
    """

    def __init__(self, model: nn.Module, classifier: Classifier, pairs: list[_Pair]) -> None:
        self.model, self.classifier, self.pairs = model, classifier, pairs
        own = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
        self.copy = copy.deepcopy(model, own).eval()
        for pair in pairs:
            convolution: Any = self.copy.get_submodule(pair.convolution)
            convolution.weight = nn.Parameter(torch.empty_like(convolution.weight), requires_grad=False)
            convolution.bias = nn.Parameter(convolution.weight.new_empty(len(convolution.weight)), requires_grad=False)
            path, _, name = pair.norm.rpartition(".")
            setattr(self.copy.get_submodule(path), name, _what_follows(self.copy.get_submodule(pair.norm)))
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Take on the model's weights and statistics as they are now."""
        for pair in self.pairs:
            convolution: Any = self.model.get_submodule(pair.convolution)
            norm: Any = self.model.get_submodule(pair.norm)
            folded: Any = self.copy.get_submodule(pair.convolution)
            scale = torch.rsqrt(norm.running_var + norm.eps)
            scale = scale if norm.weight is None else scale * norm.weight
            shift = -norm.running_mean if convolution.bias is None else convolution.bias - norm.running_mean
            folded.weight.copy_(convolution.weight * scale.view(-1, 1, 1, 1))
            folded.bias.copy_(shift * scale if norm.bias is None else shift * scale + norm.bias)

    def __call__(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The logits (N,K) and the features (N,D) of inputs (N,C,H,W)."""
        return forward(self.copy, self.classifier, inputs)


def folded(model: nn.Module, classifier: Classifier, inputs: Tensor) -> Folded | None:
    """A folded copy of the model that gives its very answers; None where there is none.

    It is tried in double precision on a copy whose norms have been given other numbers, as those of a fresh model hide
    a convolution that something else reads, too.

    Args:
        inputs: (N,C,H,W), a few images as the model takes them.
    """
    try:
        pairs = pairs_of(model, inputs)
        if not pairs or any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
            return None
        trial = _unlike(copy.deepcopy(model).double().eval().requires_grad_(False))
        with torch.no_grad():
            expected = forward(trial, classifier, inputs.double())
            found = Folded(trial, classifier, pairs)(inputs.double())
        for one, other in zip(expected, found, strict=True):
            if not bool(((one - other).abs() <= CLOSE * one.abs().max()).all()):
                return None
        return Folded(model, classifier, pairs)
    except Exception as error:  # whatever cannot be copied or taken apart is attacked as it is
        logger.debug("batch norms are not folded: %s", error)
        return None


def pairs_of(model: nn.Module, inputs: Tensor) -> list[_Pair]:
    """Each batch norm that reads the output of a convolution, where both run once in a forward."""
    outputs: list[tuple[Tensor, str]] = []
    read: list[_Pair] = []
    runs: Counter[str] = Counter()
    with ExitStack() as stack, evaluating(model), torch.no_grad():
        for name, module in model.named_modules():
            if type(module) in CONVOLUTIONS and "weight" in module._parameters:
                stack.callback(module.register_forward_hook(_keeps(name, outputs, runs)).remove)
            elif type(module) in NORMS and isinstance(module.running_mean, Tensor):
                stack.callback(module.register_forward_pre_hook(_reads(name, outputs, read, runs)).remove)
        model(inputs)
    return [pair for pair in read if runs[pair.convolution] == runs[pair.norm] == 1]


def _keeps(name: str, outputs: list[tuple[Tensor, str]], runs: Counter[str]) -> Callable[..., None]:
    def keep(module: nn.Module, arguments: Any, output: Tensor) -> None:
        runs[name] += 1
        outputs.append((output, name))

    return keep


def _reads(name: str, outputs: list[tuple[Tensor, str]], read: list[_Pair], runs: Counter[str]) -> Callable[..., None]:
    def look(module: nn.Module, arguments: Any) -> None:
        runs[name] += 1
        read.extend(_Pair(source, name) for output, source in outputs if output is arguments[0])

    return look


def _what_follows(norm: Any) -> nn.Module:
    """What a batch norm does after normalising: nothing, or its activation."""
    return nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()


@torch.no_grad()
def _unlike(model: nn.Module) -> nn.Module:
    """The model with other numbers in its batch norms."""
    chance = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, NORMS):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                if isinstance(tensor, Tensor):
                    drawn = torch.rand(tensor.shape, generator=chance, dtype=torch.float64) + 0.5
                    tensor.copy_(drawn.to(tensor.device))
    return model
