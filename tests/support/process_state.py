"""The state of this process that a library could change behind its user's back, and the check that it is as before."""

import locale
import os
import random
import signal
import sys
import warnings
from contextlib import contextmanager

import numpy as np
import torch


def process_state():
    """Every global setting by its name, in values that can be compared."""
    _, keys, *position = np.random.get_state()
    return {
        "random state of Python": random.getstate(),
        "random state of numpy": (keys.tobytes(), *position),
        "random state of torch": torch.get_rng_state().numpy().tobytes(),
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "default dtype and device": (torch.get_default_dtype(), torch.get_default_device()),
        "threads": torch.get_num_threads(),
        "deterministic algorithms": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.benchmark,
        ),
        "precision": (
            torch.get_float32_matmul_precision(),
            torch.backends.cudnn.allow_tf32,
            torch.is_autocast_enabled("cpu"),
            torch.get_autocast_dtype("cpu"),
            torch.is_autocast_cache_enabled(),
        ),
        "floating-point errors of numpy": np.geterr(),
        "filters of warnings": list(warnings.filters),
        "working folder": os.getcwd(),
        "environment": dict(os.environ),
        "import path": list(sys.path),
        "signal handlers": [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)],
        "locale": locale.setlocale(locale.LC_ALL),
        "excepthook and streams": (sys.excepthook, sys.stdout, sys.stderr),
    }


def changed(before):
    """The names of what is not as in an earlier `process_state()`."""
    now = process_state()
    return [name for name, value in before.items() if now[name] != value]


@contextmanager
def same_process():
    """Check at the end, whatever was raised, that this process is as it was."""
    before = process_state()
    try:
        yield
    finally:
        assert changed(before) == []
