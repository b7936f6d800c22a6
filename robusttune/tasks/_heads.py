"""Heads of pretext tasks: the views that they classify, and their losses."""

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robusttune import plugins
from robusttune.model.devices import check_module, device_of, dtype_of
from robusttune.model.input_shapes import patch_size_of
from robusttune.run import files
from robusttune.tasks import HEADS_ALONE, Task, TasksLike, View
from robusttune.tasks._as_trained import check_as_trained
from robusttune.tasks._weights import checked_weight, task_weights
from robusttune.types import PathLike

PATIENCE = 10
SHARE_ALONE, LEAST_ALONE = 0.25, 2  # of the images of a batch, for the tasks of weight 0


class Part(NamedTuple):
    """The images of a batch that drew one task.

    Attributes:
        task: name of the task.
        rows: the images' rows in the batch: (M,).
        view: their view.
        weight: the weight of the loss; 0 if the head learns alone.
    """

    task: str
    rows: Tensor
    view: View
    weight: float


class Heads(nn.Module):
    """One linear head per pretext task, by the task's name, whose initial weights follow from the seed.

    Attributes:
        drawn: names of the tasks whose views the backbone learns from in a forward pass of their own.
        sharing: names of the tasks that alter the image in the forward pass of the classification.
        alone: names of the tasks of weight 0, whose heads learn without the backbone.
        waiting: names of the tasks of weight 0 whose heads are fitted only at the end of a run.

    Args:
        tasks: {name or object: weight}, or as `task_weights` takes them; None for no tasks.
        views: number of distinct tasks that each image draws, or "all". The losses are weighted so that their expectation
            stays the same.
        width: the width of the features that the heads read.
        patch_size: side of a vision transformer's patches in pixels; None for other models.
        seed: the seed of the initial weights.

    Raises:
        ValueError: a task is unknown, a weight is not a number of at least 0, or there are more views than tasks.
    """

    def __init__(self, tasks: TasksLike, views: int | str, width: int, *, patch_size: int | None, seed: int) -> None:
        super().__init__()
        self.weights, self.tasks = _tasks(tasks)
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would also seed the accelerators, which are not forked here.
            torch.default_generator.manual_seed(seed)
            self.layers = nn.ModuleDict({name: nn.Linear(width, task.classes) for name, task in self.tasks.items()})
        felt = {name: task for name, task in self.tasks.items() if self.weights[name]}
        self.drawn = [name for name, task in felt.items() if not task.shares_forward]
        self.sharing = [name for name, task in felt.items() if task.shares_forward]
        self.alone = [name for name in self.tasks if name not in felt]
        self.waiting: list[str] = []
        self.views = _views(views, len(self.drawn))
        self.patch_size = patch_size

    def __getitem__(self, name: str) -> nn.Module:
        return self.layers[name]

    @property
    def learnt(self) -> list[str]:
        """Names of the tasks whose heads are trained now, and not at the end of the run."""
        return [name for name in self.tasks if name not in self.waiting]

    def wait(self) -> None:
        """Freeze the heads of the tasks of weight 0, which are fitted at the end of a run."""
        self.waiting = self.alone
        for name in self.waiting:
            self[name].requires_grad_(False)

    def without_waiting(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of a RobustLoss without those of the heads that wait."""
        left_out = tuple(f"heads.layers.{name}." for name in self.waiting)
        return {name: tensor for name, tensor in weights.items() if not name.startswith(left_out)}

    @torch.no_grad()
    def go_on_with(self, others: Mapping[str, Tensor] | None, source: object = None) -> None:
        """Copy the weights of other heads for the tasks that both have.

        Args:
            others: weights by name, as in `state_dict`; None to copy nothing.
            source: the folder of the run that trained them, or the file, where they come from there.

        Raises:
            ValueError: there is no common task, it had other settings, or the width of the features differs.
        """
        if others is None:
            return
        check_as_trained(source, self.tasks)
        weights = self.state_dict()
        common = [name for name in weights if name in others]
        if not common:
            raise ValueError(
                f"heads= has {', '.join(others) or 'no weights'}, but the tasks are {', '.join(self.tasks)}: pass the same tasks="
            )
        for name in common:
            if weights[name].shape != others[name].shape:
                raise ValueError(
                    f"heads= has {name} of shape {tuple(others[name].shape)}, but {tuple(weights[name].shape)} is needed: "
                    "they belong to another backbone, so pass heads of this model"
                )
            weights[name].copy_(others[name])

    def draw(self, images: Tensor, generator: torch.Generator) -> list[Part]:
        """Draw `views` distinct tasks for each image (N,C,H,W), weighted so that each loss has the expectation weight·loss."""
        tasks = len(self.drawn)
        if not tasks:
            return []
        first = _shared_out(len(images), tasks, generator)
        parts = []
        for number, name in enumerate(self.drawn):
            rows = torch.nonzero((number - first) % tasks < self.views).flatten()
            rows = rows.to(images.device, non_blocking=True)
            view = self.tasks[name].draw(images[rows], generator, patch_size=self.patch_size)
            parts.append(Part(name, rows, view, self.weights[name] * tasks / self.views))
        return parts

    def draw_alone(self, images: Tensor, generator: torch.Generator) -> list[Part]:
        """Draw one task of weight 0 for each of a quarter of the images (N,C,H,W), spread evenly over the batch."""
        if not self.alone or self.waiting:
            return []
        count = min(len(images), max(LEAST_ALONE, round(SHARE_ALONE * len(images))))
        offset = torch.randint(len(images), (1,), generator=generator)
        rows = (torch.arange(count) * len(images) // count + offset) % len(images)
        task_of = _shared_out(count, len(self.alone), generator)
        parts = []
        for number, name in enumerate(self.alone):
            mine = rows[task_of == number].to(images.device, non_blocking=True)
            view = self.tasks[name].draw(images[mine], generator, patch_size=self.patch_size)
            parts.append(Part(name, mine, view, 0.0))
        return parts

    def shared(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, list[Part]]:
        """Apply the tasks whose view replaces the image, and return the images (N,C,H,W) and the parts of those tasks."""
        parts = []
        for name in self.sharing:
            part = self.whole(name, images, generator)
            images = part.view.of(images)
            parts.append(part)
        return images, parts

    def whole(self, name: str, images: Tensor, generator: torch.Generator) -> Part:
        """Draw a view of one task for all images (N,C,H,W)."""
        view = self.tasks[name].draw(images, generator, patch_size=self.patch_size)
        return Part(name, torch.arange(len(images), device=images.device), view, self.weights[name])

    def answers(self, part: Part, features: Tensor) -> Tensor:
        """Return the head's logits (M,classes) for features (M,D) of the part's views."""
        answers: Tensor = self[part.task](features)[:, : part.view.classes]
        return answers

    def losses(self, parts: list[Part], features: Tensor, *, shared: bool = False) -> list[Tensor]:
        """Return the loss per view (M,) of each part.

        Args:
            parts: the parts of one batch.
            features: the features of the views of all parts, concatenated.
            shared: the parts share the forward of the classification, and each reads all features, those of the images.
        """
        losses, start = [], 0
        for part in parts:
            count = len(part.rows)
            logits = self.answers(part, features if shared else features[start : start + count])
            losses.append(F.cross_entropy(logits, part.view.targets, reduction="none"))
            start += count
        return losses


def _shared_out(images: int, tasks: int, generator: torch.Generator) -> Tensor:
    """Draw the number of a task for each image: (N,)."""
    # The permutation makes parts of equal sizes; the random offset makes each image's draw uniform.
    offset = int(torch.randint(tasks, (1,), generator=generator))
    return (torch.randperm(images, generator=generator) + offset) % tasks


def views_of(images: Tensor, parts: list[Part]) -> Tensor:
    """Return the views (M,C,H,W) of all parts, concatenated."""
    return torch.cat([part.view.of(images[part.rows]) for part in parts]) if parts else images[:0]


class HeadsWatch:
    """A watch that warns if the model has changed over ten training forwards, but the heads have not."""

    def __init__(self, model: nn.Module, heads: Heads) -> None:
        self.model, self.heads = model, heads
        self.begin()

    def begin(self) -> None:
        """Count from 0, as where a run has gone back to its start."""
        self.calls, self.writes = 0, 0
        self.before: list[tuple[nn.Parameter, Tensor]] | None = None

    def count_forward(self) -> None:
        """Count one training forward, and warn at the tenth if the heads have not changed."""
        if self.calls and self.before is None:
            return
        self.calls += 1
        if self.calls == 1:
            self.before = [(each, each.detach().clone()) for each in self.heads.parameters() if each.requires_grad]
            self.writes = self._writes()
        # With accumulated gradients, many forwards come before the first optimizer step.
        if self.calls >= PATIENCE and self._writes() != self.writes:
            same = [torch.equal(before, now.to(before.device)) for now, before in self.before or []]
            self.before = None
            if same and all(same):
                warnings.warn(
                    f"the pretext heads have not changed in {PATIENCE} training steps: give the optimizer "
                    "robust_loss.parameters(), which hold the model's and the heads', instead of model.parameters()",
                    stacklevel=4,
                )

    def _writes(self) -> int:
        """Return how often the model's parameters have been written in place."""
        return sum(parameter._version for parameter in self.model.parameters())


def _tasks(tasks: TasksLike) -> tuple[dict[str, float], dict[str, Task]]:
    """Return the weights and the tasks by their names."""
    weights: dict[str, float] = {}
    by_name: dict[str, Task] = {}
    for key, weight in (task_weights(tasks, HEADS_ALONE) or {}).items():
        task = plugins.instance("tasks", key)
        if task.name in by_name:
            raise ValueError(f"two tasks are named {task.name!r}: give them different names")
        by_name[task.name], weights[task.name] = task, checked_weight(task.name, weight)
    return weights, by_name


def _views(views: int | str, tasks: int) -> int:
    """Return the number of distinct tasks that an image draws."""
    if isinstance(views, str) and views == "all":
        return tasks
    if not isinstance(views, int) or views < 1 or (tasks and views > tasks):
        raise ValueError(f"views is {views!r}, but it is the number of tasks an image draws: 1 to {tasks}, or 'all'")
    return views


def load_heads(source: PathLike | nn.Module, model: nn.Module, *, tasks: TasksLike = None) -> Heads:
    """Load the pretext heads that a run saved in its folder, on the model's device, to continue with `harden(…, heads=…)`.

    Args:
        source: the folder of a run, or its `heads.safetensors`.
        model: the model that the run trained.
        tasks: {object: weight}, or as for `harden`, needed if the run's tasks were objects; None if they were names.

    Raises:
        ValueError: the run saved no heads, or those of other tasks, or of tasks with other settings.

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
    check_module(model)
    weights = files.heads_of(source) or {}
    names = list(dict.fromkeys(name.split(".")[1] for name in weights if name.startswith("layers.")))
    if not names:
        raise ValueError(f"{str(source)!r} holds no pretext heads: pass the folder of a run with tasks")
    unknown = [name for name in names if name not in plugins.names("tasks")]
    if tasks is None and unknown:
        raise ValueError(
            f"{str(source)!r} holds heads of {', '.join(unknown)}, which is no task of robusttune: pass tasks={{object: 1.0}}"
        )
    weighted: TasksLike = dict.fromkeys(names, 1.0) if tasks is None else tasks
    width = next(weight.shape[1] for weight in weights.values() if weight.dim() == 2)
    heads = Heads(weighted, "all", width, patch_size=patch_size_of(model), seed=0)
    heads.go_on_with(weights, source)
    return heads.to(device_of(model), dtype_of(model)).eval()
