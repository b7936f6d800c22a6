"""The state of a RobustLoss beside its model, for the checkpoints of any framework."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypedDict

import torch
from torch import Tensor, nn

from robusttune.run import distributed
from robusttune.training.robust_loss import RobustLoss


class LossState(TypedDict):
    """State of a RobustLoss for an exact resume: weights of the heads, number of training calls, fingerprint of the teacher."""

    heads: dict[str, Tensor]
    calls: int
    teacher: str | None  # states of earlier versions lack it


class Resumable:
    """A RobustLoss with `state_dict` and `load_state_dict` over all that its model's weights do not hold.

    The heads' weights and the number of training calls, from which random numbers follow, are its state; the model is not. Save
    it beside the model and the optimizer, such as with accelerate's `register_for_checkpointing`. Of the teacher it holds a
    fingerprint alone, by which another one is refused: with `teacher="self"`, make the RobustLoss of the model as it came in, and
    load this state before the model gets its trained weights.

    Args:
        robust_loss: keeps its identity; loading writes into it.

    Example:
        >>> from robusttune import RobustLoss, ThreatModel
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        >>> robust_loss = RobustLoss(model, ThreatModel("l2", 0.5), tasks=["rotation"], images=torch.rand(2, 1, 8, 8))
        >>> state = Resumable(robust_loss).state_dict()
        >>> sorted(state["heads"]), state["calls"]
        (['layers.rotation.bias', 'layers.rotation.weight'], 0)
    """

    def __init__(self, robust_loss: RobustLoss) -> None:
        self.robust_loss = robust_loss

    def state_dict(self) -> LossState:
        """Return a copy of the state."""
        heads = {name: tensor.detach().clone() for name, tensor in self.robust_loss.heads.state_dict().items()}
        return {"heads": heads, "calls": self.robust_loss.calls, "teacher": self.robust_loss.labeller.fingerprint}

    def load_state_dict(self, state: LossState) -> None:
        """Copy a state into the RobustLoss.

        Raises:
            ValueError: it is the state of a RobustLoss with other tasks, or with another teacher.
        """
        tasks = {name.split(".")[1] for name in state["heads"]}
        if tasks != set(self.robust_loss.heads.tasks):
            raise ValueError(
                f"the checkpoint has heads of {_listed(tasks)}, but the tasks are {_listed(self.robust_loss.heads.tasks)}: "
                "pass the tasks= with which the run began"
            )
        self.robust_loss.labeller.expect(self.robust_loss, state.get("teacher"))
        self.robust_loss.heads.load_state_dict(state["heads"])
        self.robust_loss.calls = state["calls"]


def add_heads(optimizer: torch.optim.Optimizer, robust_loss: RobustLoss) -> None:
    """Let an optimizer train the heads, too, with the settings of its first group; heads that it has already stay where they are.

    No group is added, so that schedulers, which keep one learning rate for each group, go on working.

    Raises:
        ValueError: the optimizer has no parameter of the model.
    """
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not known & {id(parameter) for parameter in robust_loss.model.parameters()}:
        raise ValueError(
            f"the optimizer, {type(optimizer).__name__}, has no parameter of the model in RobustLoss: make both of the same module"
        )
    heads = [parameter for parameter in robust_loss.heads.parameters() if parameter.requires_grad]
    optimizer.param_groups[0]["params"].extend(parameter for parameter in heads if id(parameter) not in known)


def heads_beside(robust_loss: RobustLoss) -> list[nn.Parameter]:
    """Return the parameters of the heads that learn beside the model, those of tasks of weight 0.

    Their gradients do not belong to the norm by which gradients are clipped: the model would then learn otherwise than without them.
    """
    heads = robust_loss.heads
    return [parameter for name in heads.alone for parameter in heads[name].parameters()]


@contextmanager
def without_gradients(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Hide the gradients of parameters inside this context."""
    kept = [(parameter, parameter.grad) for parameter in parameters]
    for parameter, _ in kept:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in kept:
            parameter.grad = gradient


def average_gradients(module: nn.Module) -> None:
    """Average the gradients of a module over the processes, in place, where no DistributedDataParallel does so."""
    distributed.average(parameter.grad for parameter in module.parameters() if parameter.grad is not None)


def _listed(names: object) -> str:
    return ", ".join(sorted(names)) or "no tasks"  # type: ignore[call-overload]
