"""Forward and backward passes of an attack as CUDA graphs, which are replayed without the host launching each kernel."""

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger("robusttune")

Run = Callable[[Tensor], tuple[Tensor, ...]]
Capture = Callable[[Run, tuple[Tensor]], Run]

CLOSE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.01}
MOST = 4  # shapes, each of which holds its activations


def captured(run: Run, sample: tuple[Tensor]) -> Run:
    """The run as CUDA graphs at the shape of the sample, which becomes the graphs' own input."""
    # Other threads, such as one that pins memory for a loader, may go on allocating meanwhile.
    made: Any = torch.cuda.make_graphed_callables(run, sample, capture_error_mode="thread_local")
    replayed: Run = made
    return replayed


class Graphs:
    """Runs a function of inputs through graphs, one for each shape that comes twice; anything else as it is.

    The function is a model's in eval mode, whose weights get no gradient: they are read in place, so that a graph stays
    valid while an optimiser writes into them. What varies from call to call are the inputs, and the gradients of the
    outputs. Each graph is compared with the function itself before it is trusted; the first that differs, or cannot be
    made, ends the use of all of them, which is told.

    Args:
        capture: (function, (sample,)) -> a function of inputs of the sample's shape, differentiable once.
    """

    def __init__(self, capture: Capture = captured) -> None:
        self.capture = capture
        self.works = True
        self._seen: Counter[Any] = Counter()
        self._made: dict[Any, _Graph] = {}
        self._weights: tuple[int, ...] = ()

    def expect(self, model: nn.Module) -> None:
        """Forget all graphs if the model's tensors have moved in memory, or other ones have taken their place."""
        weights = tuple(tensor.data_ptr() for tensor in [*model.parameters(), *model.buffers()])
        if weights != self._weights:
            self._made.clear()
            self._seen.clear()
        self._weights = weights

    def __call__(self, run: Run, inputs: Tensor) -> Any:
        """What `run` gives of inputs (N,C,H,W)."""
        if not (self.works and inputs.requires_grad and torch.is_grad_enabled()):
            return run(inputs)
        kind = inputs.device.type
        autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        key = (inputs.shape, inputs.stride(), inputs.dtype, autocast)
        self._seen[key] += 1
        if key not in self._made and self._seen[key] > 1 and len(self._made) < MOST:
            self._make(key, run, inputs)
        if key not in self._made:
            return run(inputs)
        return _Replay.apply(self._made[key], run, inputs)

    def _make(self, key: Any, run: Run, inputs: Tensor) -> None:
        try:
            sample = inputs.detach().clone(memory_format=torch.preserve_format).requires_grad_()
            graph = _Graph(self.capture(run, (sample,)))
            # Not the sample's values: these would come out right even if the graph never read its input again.
            apart = _difference(graph.run, run, inputs.detach().flip(0) * 0.9 + 0.05)
            if not apart <= CLOSE.get(key[-1] or key[-2], 1e-3):
                raise RuntimeError(f"its gradient is {apart:.2g} away from the model's own")
        except Exception as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            logger.warning("the attack cannot be replayed as a CUDA graph here, so it goes on without: %s", reason)
            self.works = False
            self._made.clear()
            return
        if not self._made:
            logger.info("the attack's passes are replayed as CUDA graphs")
        self._made[key] = graph


class _Graph:
    """A graphed function, and the number of its latest forward pass, whose activations alone it holds."""

    def __init__(self, run: Run) -> None:
        self.run, self.latest = run, 0


class _Replay(torch.autograd.Function):
    """A replayed forward pass, and its backward pass: replayed, or, after another forward pass, computed anew."""

    @staticmethod
    def forward(ctx: Any, graph: _Graph, run: Run, inputs: Tensor) -> tuple[Tensor, ...]:
        graph.latest += 1
        ctx.graph, ctx.run, ctx.number = graph, run, graph.latest
        ctx.save_for_backward(inputs)
        with torch.enable_grad():
            ctx.given = inputs.detach().requires_grad_()
            ctx.outputs = graph.run(ctx.given)
        # The next replay writes over these.
        return tuple(output.detach().clone() for output in ctx.outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, Tensor]:
        given, outputs = ctx.given, ctx.outputs
        if ctx.number != ctx.graph.latest:
            (inputs,) = ctx.saved_tensors
            with torch.enable_grad():
                given = inputs.detach().requires_grad_()
                outputs = ctx.run(given)
        (found,) = torch.autograd.grad(outputs, given, gradients)
        return None, None, found.clone()


def _difference(one: Run, other: Run, inputs: Tensor) -> float:
    """How far two functions' outputs and gradients toward the inputs are apart, relative to the second's."""
    found = []
    for run in (one, other):
        given = inputs.clone().requires_grad_()
        outputs = run(given)
        weights = [torch.linspace(-1, 1, each.numel(), device=each.device).view_as(each) for each in outputs]
        total = sum((output * weight).sum() for output, weight in zip(outputs, weights, strict=True))
        (gradient,) = torch.autograd.grad(torch.as_tensor(total), given)
        found.append([each.detach().clone().double() for each in (*outputs, gradient)])
    return max(
        float((a - b).norm() / b.norm().clamp(min=torch.finfo(torch.float64).tiny)) for a, b in zip(*found, strict=True)
    )
