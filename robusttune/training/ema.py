"""The exponential moving average of weights.

torch's AveragedModel and timm's ModelEmaV3 copy the whole module, a second user's model; this keeps tensors alone.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robusttune.model.snapshot import is_dense_float, overwrite
from robusttune.model.undoing import undone
from robusttune.run.files import copied


class Average:
    """The moving average of the tensors that training changes: parameters that require grad, and buffers.

    Args:
        model: the model to average.
        decay: share of the old average that a step keeps; early in a run (1 + step) / (10 + step) where that is less,
            so that in short runs the average forgets the start.

    Source: Izmailov et al., arXiv:1803.05407; for robust models Gowal et al., arXiv:2010.03593.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay, self.steps = model, decay, 0
        changing = {name: t for name, t in _named(model).items() if t.requires_grad or not isinstance(t, nn.Parameter)}
        self.shadow = {name: tensor.detach().clone() for name, tensor in changing.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the model's present weights."""
        self.steps += 1
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        means, present = [], []
        for name, tensor in self._followed().items():
            average = self.shadow[name]
            if is_dense_float(average):
                means.append(average)
                present.append(tensor.detach())
            else:  # such as a sparse tensor, or one of float8
                overwrite(average, tensor)
        if means:
            torch._foreach_lerp_(means, present, share)  # one launch on a GPU

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Load the averaged weights into the model inside this context."""
        present = {name: tensor.detach().clone() for name, tensor in self._followed().items()}
        with undone(lambda: self.write(present)):
            self.write(self.shadow)
            yield

    @torch.no_grad()
    def write(self, weights: Mapping[str, Tensor]) -> None:
        """Copy these weights into the model, in place."""
        for name, tensor in self._followed().items():
            overwrite(tensor, weights[name])

    def _followed(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in _named(self.model).items() if name in self.shadow}

    def weights(self) -> dict[str, Tensor]:
        """Return the model's state_dict with the averages in it."""
        with self.applied():
            return copied(self.model.state_dict())

    def state_dict(self) -> dict[str, object]:
        """Return the state, for `load_state_dict`."""
        return {"steps": self.steps, "shadow": dict(self.shadow)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restore the state that `state_dict` returned."""
        self.steps = int(state["steps"])  # type: ignore[call-overload]
        weights: Mapping[str, Tensor] = state["shadow"]  # type: ignore[assignment]
        for name, average in self.shadow.items():
            overwrite(average, weights[name])


def _named(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
