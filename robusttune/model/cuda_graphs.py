"""CUDA graphs of an attack's forward and backward passes, replayed without launching each kernel from the host."""

import gc
import inspect
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robusttune.model.devices import tensors_of
from robusttune.model.snapshot import own_modules, plain_values

logger = logging.getLogger("robusttune")

Run = Callable[[Tensor], tuple[Tensor, ...]]
Capture = Callable[[Run, tuple[Tensor]], Run]

CLOSE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.01}
MODE = "capture_error_mode"
MOST = 4  # graphs, each of which keeps its activations in memory
CHANGES = 3  # of attributes, after which nothing is captured any more


def captured(run: Run, sample: tuple[Tensor]) -> Run:
    """Capture a function as CUDA graphs on the sample's device, for inputs of its shape; the sample becomes their input buffer."""
    # Other threads, such as one that pins memory for a loader, may allocate during the capture.
    make: Any = torch.cuda.make_graphed_callables
    asked = {MODE: "thread_local"} if MODE in inspect.signature(make).parameters else {}
    # torch captures on the current device, which need not be the sample's.
    there = torch.cuda.device_of(sample[0])  # type: ignore[no-untyped-call]
    with warnings.catch_warnings(), there, nullcontext() if asked else _others_may_allocate():
        # The gradient of the sample belongs to another stream than the capture's, which is as it should be.
        warnings.filterwarnings("ignore", "The AccumulateGrad node's stream", UserWarning)
        replayed: Run = make(run, sample, **asked)
    return replayed


@contextmanager
def _others_may_allocate() -> Iterator[None]:
    """Let other threads allocate during captures inside this context, for `make_graphed_callables` of torch before 2.12."""
    module: Any = torch.cuda
    graph = module.graph
    module.graph = partial(graph, **{MODE: "thread_local"})
    try:
        yield
    finally:
        module.graph = graph


class _Key(NamedTuple):
    """The properties of inputs that one graph is captured for."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    autocast: torch.dtype | None


class Graphs:
    """Replays of a function as CUDA graphs: one graph per input shape, captured when a shape recurs.

    All other calls run eagerly. The function is the forward of a model in eval mode, without gradients of weights. Weights
    are read in place, so a graph stays valid while an optimizer writes into them; inputs, and gradients of the outputs,
    may change from call to call; attributes of layers are part of a graph, which ends when one changes. Each graph is
    compared with the function before it is used. The first graph that differs, or cannot be captured, ends the use of all
    graphs, with a warning in the log.

    Args:
        capture: (function, (sample,)) -> a function of inputs with the sample's shape, differentiable once.
        level: the level of the line in the log if no graph can be used.

    Attributes:
        works: False once a graph differed or could not be captured, or attributes of layers have changed three times.
        bytes: the number of bytes that the graphs keep on the device.
    """

    def __init__(self, capture: Capture = captured, *, level: int = logging.WARNING) -> None:
        self.capture, self.level = capture, level
        self.works, self.bytes = True, 0
        self._calls: Counter[_Key] = Counter()
        self._graphs: dict[_Key, _Graph] = {}
        self._weights: tuple[int, ...] = ()
        self._attributes: tuple[object, ...] = ()
        self._changes = 0

    def expect(self, model: nn.Module) -> None:
        """Drop all graphs if the model's tensors have moved in memory or were replaced, or attributes of its layers changed."""
        dense = [tensor for tensor in tensors_of(model) if tensor.layout == torch.strided]
        weights = tuple(tensor.data_ptr() for tensor in dense)
        attributes = _attributes(model)
        if weights != self._weights or attributes != self._attributes:
            self._changes += bool(self._graphs) and attributes != self._attributes
            self.clear()
        self._weights, self._attributes = weights, attributes
        if self.works and self._changes == CHANGES:
            logger.log(
                self.level,
                "the attack is not replayed as a CUDA graph any more, as training changes attributes of the model's layers",
            )
            self.works = False

    def clear(self) -> None:
        """Drop all graphs, and give their memory back."""
        self._calls.clear()
        if self._graphs:
            self._graphs.clear()
            gc.collect()  # torch keeps a graph in a circle of references
        self.bytes = 0

    def __call__(self, run: Run, inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of `run` for inputs (N,C,H,W)."""
        if not (self.works and inputs.requires_grad and torch.is_grad_enabled()):
            return run(inputs)
        kind = inputs.device.type
        autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        key = _Key(inputs.shape, inputs.stride(), inputs.dtype, autocast)
        self._calls[key] += 1
        if key not in self._graphs and self._calls[key] > 1 and len(self._graphs) < MOST:
            self._add(key, run, inputs)
        if key not in self._graphs:
            return run(inputs)
        outputs: tuple[Tensor, ...] = _Replay.apply(self._graphs[key], run, inputs)
        return outputs

    def _add(self, key: _Key, run: Run, inputs: Tensor) -> None:
        try:
            sample = inputs.detach().clone(memory_format=torch.preserve_format).requires_grad_()
            before = _reserved(inputs.device)
            graph = _Graph(self.capture(run, (sample,)))
            self.bytes += _reserved(inputs.device) - before
            # With the sample's values, a graph that never reads its input again would seem right.
            difference = _difference(graph.run, run, inputs.detach().flip(0) * 0.9 + 0.05)
            if not difference <= CLOSE.get(key.autocast or key.dtype, 1e-3):
                raise RuntimeError(f"its gradient is {difference:.2g} away from the model's own")
        except Exception as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            logger.log(
                self.level, "the attack cannot be replayed as a CUDA graph here, so it goes on without: %s", reason
            )
            self.works = False
        if not self.works:  # the error, which holds what was captured, is gone by now
            self.clear()
            return
        if not self._graphs:
            logger.info("the attack's passes are replayed as CUDA graphs")
        self._graphs[key] = graph


def _attributes(model: nn.Module) -> tuple[object, ...]:
    """Return the attributes of layers that a graph captures: numbers (but no ints, as they count), and places of tensors in memory."""
    plain = [value for one in own_modules(model).values() for value in plain_values(one).values()]
    return tuple(_place_of(each) if isinstance(each, Tensor) else each for each in plain if type(each) is not int)


def _place_of(tensor: Tensor) -> int:
    return tensor.data_ptr() if tensor.layout == torch.strided else id(tensor)


def _reserved(device: torch.device) -> int:
    """Return the bytes that torch holds on a CUDA device, without freed blocks, which a capture gives back; 0 for others."""
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved(device)


class _Graph:
    """A graphed function with the number of its latest forward pass, the only one whose activations it holds."""

    def __init__(self, run: Run) -> None:
        self.run, self.latest = run, 0


class _Replay(torch.autograd.Function):
    """A replayed forward pass with its backward pass: replayed, or recomputed after another forward pass."""

    @staticmethod
    def forward(ctx: Any, graph: _Graph, run: Run, inputs: Tensor) -> tuple[Tensor, ...]:
        graph.latest += 1
        ctx.graph, ctx.run, ctx.number = graph, run, graph.latest
        ctx.save_for_backward(inputs)
        with torch.enable_grad():
            ctx.images = inputs.detach().requires_grad_()
            ctx.outputs = graph.run(ctx.images)
        # The next replay writes over these.
        return tuple(output.detach().clone() for output in ctx.outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, Tensor]:
        images, outputs = ctx.images, ctx.outputs
        if ctx.number != ctx.graph.latest:
            (inputs,) = ctx.saved_tensors
            with torch.enable_grad():
                images = inputs.detach().requires_grad_()
                outputs = ctx.run(images)
        (gradient,) = torch.autograd.grad(outputs, images, gradients)
        return None, None, gradient.clone()


def _difference(one: Run, other: Run, inputs: Tensor) -> float:
    """Return the largest relative difference of two functions' outputs and of their gradients toward the inputs."""
    results = []
    for run in (one, other):
        images = inputs.clone().requires_grad_()
        outputs = run(images)
        weights = [torch.linspace(-1, 1, output.numel(), device=output.device).view_as(output) for output in outputs]
        total = sum((output * weight).sum() for output, weight in zip(outputs, weights, strict=True))
        (gradient,) = torch.autograd.grad(torch.as_tensor(total), images)
        results.append([tensor.detach().clone().double() for tensor in (*outputs, gradient)])
    return max(
        float((a - b).norm() / b.norm().clamp(min=torch.finfo(torch.float64).tiny))
        for a, b in zip(*results, strict=True)
    )
