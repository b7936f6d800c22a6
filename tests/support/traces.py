"""What a run could leave behind: in a model beside its weights, and in this process."""

import hashlib
import random

import numpy as np
import torch


def everything_but_weights(model):
    """Every attribute of every module, by identity where it is an object of the user's, parameters' values left out."""
    found = {}
    for path, module in model.named_modules():
        for key, value in vars(module).items():
            if key in ("_buffers",):
                shown = {
                    name: None if b is None else (b.shape, b.dtype, b.device, b.stride()) for name, b in value.items()
                }
            elif key in ("_parameters", "_modules"):
                shown = {name: id(each) for name, each in value.items()}
            elif isinstance(value, dict | set | list):
                shown = (id(value), repr(value))
            else:
                shown = value if isinstance(value, int | float | str | bool | tuple | None) else id(value)
            found[path, key] = shown
    for name, parameter in model.named_parameters():
        kept = parameter.grad
        found[name] = (id(parameter), parameter.shape, parameter.dtype, parameter.stride(), parameter.device)
        found[name] += (parameter.requires_grad, None if kept is None else (id(kept), float(kept.sum())))
    return found


def world():
    """The global state that belongs to the user."""
    threads = (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
    )
    flags = (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        torch.get_float32_matmul_precision(),
        torch.is_autocast_enabled("cpu"),
    )
    chance = hashlib.sha256(torch.get_rng_state().numpy().tobytes() + np.random.get_state()[1].tobytes()).hexdigest()
    return threads, flags, chance, random.getstate()
