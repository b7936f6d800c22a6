"""The heads of pretext tasks: what they are asked, and their losses."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robusttune import plugins
from robusttune.model.devices import device_of, dtype_of
from robusttune.model.input_shapes import patch_size_of
from robusttune.run import files
from robusttune.tasks import Task, View

TASKS = {"rotation": 0.5, "jigsaw": 0.5}
PATIENCE = 10


class Part(NamedTuple):
    """The images of a batch that drew one task: which they are, their view, and the weight of its loss."""

    task: str
    rows: Tensor
    view: View
    weight: float


class Heads(nn.Module):
    """One linear head for each pretext task, by name, with weights that follow from the seed.

    Args:
        tasks: {name or object: weight}; None for none.
        views: how many distinct tasks each image draws, or "all"; weights keep the expectation.
        width: of the features that the heads read.
        patch_size: of a vision transformer, in pixels; None for other models.
        seed: of the initial weights.

    Raises:
        ValueError: unknown tasks, weights that are no numbers of at least 0, or more views than tasks.
    """

    def __init__(
        self, tasks: Mapping[Any, float] | None, views: int | str, width: int, *, patch_size: int | None, seed: int
    ) -> None:
        super().__init__()
        self.weights, self.tasks = _tasks(tasks)
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would also seed the accelerators, which are not forked here.
            torch.default_generator.manual_seed(seed)
            self.layers = nn.ModuleDict({name: nn.Linear(width, task.classes) for name, task in self.tasks.items()})
        self.drawn = [name for name, task in self.tasks.items() if not task.shares_forward]
        self.views = _views(views, len(self.drawn))
        self.patch_size = patch_size

    def __getitem__(self, name: str) -> nn.Module:
        return self.layers[name]

    @torch.no_grad()
    def go_on_with(self, others: Mapping[str, Tensor] | None) -> None:
        """Take the weights of other heads, as `state_dict` names them, for the tasks that they share.

        Raises:
            ValueError: they share none, or features of another width.
        """
        if others is None:
            return
        own = self.state_dict()
        common = [name for name in own if name in others]
        if not common:
            raise ValueError(
                f"heads= has {', '.join(others) or 'no weights'}, but the tasks are {', '.join(self.tasks)}"
            )
        for name in common:
            if own[name].shape != others[name].shape:
                raise ValueError(
                    f"heads= has {name} of shape {tuple(others[name].shape)}, but {tuple(own[name].shape)} is needed: "
                    "they belong to another backbone"
                )
            own[name].copy_(others[name])

    def draw(self, images: Tensor, chance: torch.Generator) -> list[Part]:
        """Each image (N,C,H,W) draws `views` distinct tasks, with weights such that the expectation is weight times loss."""
        tasks = len(self.drawn)
        if not tasks:
            return []
        # A permutation keeps the parts' sizes equal; the random offset keeps every image's draw uniform.
        offset = int(torch.randint(tasks, (1,), generator=chance))
        first = (torch.randperm(len(images), generator=chance) + offset) % tasks
        parts = []
        for number, name in enumerate(self.drawn):
            rows = torch.nonzero((number - first) % tasks < self.views).flatten()
            rows = rows.to(images.device, non_blocking=True)
            view = self.tasks[name].draw(images[rows], chance, patch_size=self.patch_size)
            parts.append(Part(name, rows, view, self.weights[name] * tasks / self.views))
        return parts

    def shared(self, images: Tensor, chance: torch.Generator) -> tuple[Tensor, list[Part]]:
        """The images after the tasks whose view takes the image's place, and those tasks' parts."""
        parts = []
        for name, task in self.tasks.items():
            if task.shares_forward:
                part = self.whole(name, images, chance)
                images = part.view.of(images)
                parts.append(part)
        return images, parts

    def whole(self, name: str, images: Tensor, chance: torch.Generator) -> Part:
        """The part of one task in which all images take part."""
        view = self.tasks[name].draw(images, chance, patch_size=self.patch_size)
        return Part(name, torch.arange(len(images), device=images.device), view, self.weights[name])

    def answers(self, part: Part, features: Tensor) -> Tensor:
        """What the part's head says (M,classes) of features (M,D)."""
        answers: Tensor = self[part.task](features)[:, : part.view.classes]
        return answers

    def losses(self, parts: list[Part], features: Tensor) -> list[Tensor]:
        """The loss (M,) of each part, whose views' features lie one part after the other (or are shared by all)."""
        losses, start = [], 0
        for part in parts:
            count = len(part.rows)
            own = features if self.tasks[part.task].shares_forward else features[start : start + count]
            losses.append(F.cross_entropy(self.answers(part, own), part.view.targets, reduction="none"))
            start += count
        return losses


def views_of(images: Tensor, parts: list[Part]) -> Tensor:
    """The views (M,C,H,W) of all parts, one part after the other."""
    return torch.cat([part.view.of(images[part.rows]) for part in parts]) if parts else images[:0]


class Watch:
    """Warns when ten training forwards, after which the model has changed, have left the heads as they were."""

    def __init__(self, model: nn.Module, heads: Heads) -> None:
        self.model, self.heads = model, heads
        self.calls, self.writes = 0, 0
        self.before: list[Tensor] | None = None

    def look(self) -> None:
        """Count one training forward."""
        if self.calls and self.before is None:
            return
        self.calls += 1
        if self.calls == 1:
            self.before = [parameter.detach().clone() for parameter in self.heads.parameters()]
            self.writes = self._writes()
        # Where gradients are accumulated, many forwards come before the first step.
        if self.calls >= PATIENCE and self._writes() != self.writes:
            pairs = zip(self.before or [], self.heads.parameters(), strict=True)
            same = [torch.equal(before, now.to(before.device)) for before, now in pairs]
            self.before = None
            if same and all(same):
                warnings.warn(
                    f"the pretext heads have not changed in {PATIENCE} training steps: give the optimizer "
                    "robust_loss.parameters(), which hold the model's and the heads', instead of model.parameters()",
                    stacklevel=4,
                )

    def _writes(self) -> int:
        """How often the model's parameters have been written, as an optimizer does."""
        return sum(parameter._version for parameter in self.model.parameters())


def _tasks(tasks: Mapping[Any, float] | None) -> tuple[dict[str, float], dict[str, Task]]:
    if tasks is not None and not isinstance(tasks, Mapping):
        raise ValueError(
            f"tasks is {tasks!r}, but a dict of weights is needed, such as {TASKS}; None for no pretext task"
        )
    weights: dict[str, float] = {}
    made: dict[str, Task] = {}
    for key, weight in (tasks or {}).items():
        task = plugins.instance("tasks", key)
        if not (isinstance(weight, int | float) and 0 <= weight < float("inf")):
            raise ValueError(f"the weight of task {task.name!r} is {weight!r}, but a number of at least 0 is needed")
        if task.name in made:
            raise ValueError(f"two tasks are named {task.name!r}: give each its own name")
        made[task.name], weights[task.name] = task, float(weight)
    return weights, made


def _views(views: int | str, tasks: int) -> int:
    if views == "all":
        return tasks
    if not isinstance(views, int) or views < 1 or (tasks and views > tasks):
        raise ValueError(f"views is {views!r}, but it is the number of tasks an image draws: 1 to {tasks}, or 'all'")
    return views


def load_heads(source: str | Path | nn.Module, model: nn.Module, *, tasks: Mapping[Any, float] | None = None) -> Heads:
    """The pretext heads that a run left in its folder, on the model's device, to go on with: `harden(…, heads=…)`.

    Args:
        source: the folder of a run, or its `heads.safetensors`.
        model: the model that they were trained with, as that run left it.
        tasks: needed for tasks that were given as objects: those objects, {object: weight}.

    Raises:
        ValueError: there are no heads, or they belong to other tasks.

    Example:
        >>> import tempfile, torch, robusttune
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> batches = [(torch.rand(8, 1, 8, 8), torch.arange(8))]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = robusttune.harden(model, batches, epochs=1, tasks={"rotation": 0.5}, out=folder, progress=False)
        ...     heads = load_heads(folder, model)
        >>> list(heads.tasks), heads["rotation"].out_features
        (['rotation'], 4)
    """
    weights = files.heads_of(source) or {}
    names = list(dict.fromkeys(name.split(".")[1] for name in weights if name.startswith("layers.")))
    if not names:
        raise ValueError(f"{str(source)!r} holds no pretext heads: was that run made with tasks?")
    strange = [name for name in names if name not in plugins.names("tasks")]
    if tasks is None and strange:
        raise ValueError(
            f"{str(source)!r} holds heads of {', '.join(strange)}, which is no task of robusttune: pass it, tasks={{object: 1.0}}"
        )
    wanted = dict.fromkeys(names, 1.0) if tasks is None else tasks
    width = next(weight.shape[1] for weight in weights.values() if weight.dim() == 2)
    heads = Heads(wanted, "all", width, patch_size=patch_size_of(model), seed=0)
    heads.go_on_with(weights)
    return heads.to(device_of(model), dtype_of(model)).eval()
