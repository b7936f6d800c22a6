"""Checks that a model can be trained."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from robusttune.model.devices import check_module


def has_batch_norm(model: nn.Module) -> bool:
    """Return True if a batch norm in train mode would normalise by the batch."""
    return any(isinstance(module, _BatchNorm) and module.training for module in model.modules())


def check_batch_norm(model: nn.Module, images: int) -> None:
    """Raise a ValueError if batch norm in train mode would have to normalise a batch of one image."""
    if images == 1 and has_batch_norm(model):
        raise ValueError("a batch of one image cannot be normalised by batch norm: use a batch size of at least 2")


def check_model(model: nn.Module) -> None:
    """Raise a ValueError unless the model is a plain module with weights that can be trained, neither wrapped nor compiled."""
    check_module(model)
    check_whole(model)
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        raise ValueError(
            f"the model is wrapped in {type(model).__name__}: pass model.module, and wrap RobustLoss instead"
        )
    if hasattr(model, "_orig_mod"):
        raise ValueError("the model is compiled by torch.compile: pass model._orig_mod, the module that was compiled")
    if getattr(model, "_compiled_call_impl", None) is not None:
        raise ValueError(
            "the model was compiled in place by model.compile(), which hides its layers: pass a fresh module"
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError(
            "the model is TorchScript, whose layers cannot be read: pass the Python module that was scripted or traced"
        )
    scripted = next(_scripted_norms(model), None)
    if scripted is not None:
        raise ValueError(
            f"the scripted part {scripted!r} records running statistics, which cannot be held still while its model is "
            "attacked: put the Python module in its place, or freeze it: .eval() on it, with the model in train mode"
        )
    packed = next(_packed(model), None)
    if packed is not None:
        raise ValueError(f"{packed}, and quantised weights cannot be trained: harden the float model, then quantise it")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            "no parameter of the model requires grad, so there is nothing to train: call model.requires_grad_()"
        )


def check_whole(model: nn.Module) -> None:
    """Raise a ValueError for a model whose weights FSDP or DeepSpeed shares out among processes.

    They gather the weights for one forward and its backward; an attack takes many, toward the images.
    """
    sharded = next(_sharded(model), None)
    if sharded is not None:
        raise ValueError(
            f"the model is wrapped by {sharded}, which splits the weights among processes, and an attack needs all of them in each process: "
            "pass the plain module, and wrap RobustLoss in DistributedDataParallel for several processes (harden does so "
            "itself); to evaluate, load the full state_dict into a plain module"
        )


def _sharded(model: nn.Module) -> Iterator[str]:
    """Name the wrappers that share out the weights of the model."""
    for module in model.modules():
        # By name, as DeepSpeed need not be installed; FSDP2 adds FSDPModule to the classes of the module itself.
        kinds = {kind.__name__ for kind in type(module).__mro__}
        weights = list(module.parameters(recurse=False))
        # Inside a forward of FSDP, weights are views of the gathered ones, or no parameters of their modules at all.
        managed = getattr(module, "_is_fsdp_managed_module", False) or not all(each.is_leaf for each in weights)
        if managed or kinds & {"FullyShardedDataParallel", "FSDPModule"}:
            yield "FSDP"
        elif "DeepSpeedEngine" in kinds or any(hasattr(each, "ds_id") for each in weights):
            yield "DeepSpeed"


def _scripted_norms(model: nn.Module) -> Iterator[str]:
    """Name the TorchScript modules with running statistics that training would record."""
    for name, module in model.named_modules():
        trains = module.training or not model.training
        if isinstance(module, torch.jit.ScriptModule) and trains and "running_mean" in dict(module._buffers.items()):
            yield name


def _packed(model: nn.Module) -> Iterator[str]:
    """Describe the layers and weights that hold one byte or less per weight."""
    for name, module in model.named_modules():
        # Static and dynamic quantisation hide packed weights from `parameters()`.
        if ".quantized." in f"{type(module).__module__}.":
            yield f"the layer {name!r} is a quantised {type(module).__name__}"
    for name, parameter in model.named_parameters():
        if parameter.dtype.itemsize == 1 and parameter.dtype != torch.bool:
            yield f"the weight {name!r} is {parameter.dtype}"
