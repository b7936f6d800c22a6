"""The loss of one step of adversarial training with pretext tasks."""

import random
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robusttune import augment as augmentation
from robusttune import lookup
from robusttune.batches import check_classes, check_images, checked_labels
from robusttune.features import Classifier, find_classifier, forward, patch_size_of, sample_inputs
from robusttune.modes import attacking, check_model, device_of, dtype_of, has_batch_norm, statistics_untouched
from robusttune.pixels import Pixels, find_pixels
from robusttune.threat import Attack, LossOf, ThreatModel
from robusttune.views import Task, View

TASKS = {"rotation": 0.5, "jigsaw": 0.5}
ATTACK_TASKS = ("none", "separate", "joint")


class Part(NamedTuple):
    """The images of a batch that drew one task: which they are, their view, and the weight of its loss."""

    task: str
    rows: Tensor
    view: View
    weight: float


class RobustLoss(nn.Module):
    """The loss of one step of adversarial training, for any training loop; it owns the heads of the pretext tasks.

    Calling it gives {"loss", "output", "robust", …}: the scalar to call `backward` on, the logits (N,K) of the
    adversarial images, and each term, unweighted and detached. The model is borrowed: its parameters are trained
    through `robust_loss.parameters()`, which also holds the heads', and nothing is attached to it. In eval mode it
    attacks all the same, and leaves running statistics alone.

    Args:
        model: images -> logits (N,K), any module; DDP goes around RobustLoss, not around the model.
        threat: what the adversary may do.
        tasks: pretext tasks and their weights, {name or object: weight}; None for plain adversarial training.
        attack_tasks: "none" (the pretext loss trains weights, on views of the adversarial images), "separate" (views get
            an attack of their own), or "joint" (one perturbation against class and pretext loss together).
        views: views per image: how many distinct tasks each image draws, or "all". Weights keep the expectation.
        objective: the robust classification loss, by name or as an object.
        attack: by name, or any `(loss_of, images, threat, *, generator) -> images`.
        steps, step_size: of the attack, in pixel units; by image size unless given.
        augment: "none", "standard", or a callable on images (N,C,H,W) in [0,1]; in train mode only.
        mean, std, normalized: of the model's input; see `robusttune.pixels.find_pixels`.
        classifier: name of the layer that yields the logits, where it cannot be found.
        images: a batch (N,C,H,W) as the loader gives it, to look at model and pixels with; made up unless given.
        seed: of the random starts, views and augmentations.

    Raises:
        ValueError: arguments that do not fit, naming what is allowed.

    Source: modelled on Kucer et al., arXiv:2112.04367, and Hendrycks et al., arXiv:1906.12340.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> robust_loss = RobustLoss(model, ThreatModel("l2", eps=0.5), images=torch.rand(4, 1, 8, 8))
        >>> out = robust_loss(torch.rand(4, 1, 8, 8), torch.tensor([1, 2, 3, 4]))
        >>> sorted(out)
        ['jigsaw', 'loss', 'output', 'robust', 'rotation']
        >>> out["loss"].backward()
    """

    def __init__(
        self,
        model: nn.Module,
        threat: ThreatModel,
        *,
        tasks: Mapping[Any, float] | None = TASKS,
        attack_tasks: str = "joint",
        views: int | str = 1,
        objective: Any = "adversarial",
        attack: Any = "pgd",
        steps: int | None = None,
        step_size: float | None = None,
        augment: Any = "none",
        mean: Any = None,
        std: Any = None,
        normalized: bool | None = None,
        classifier: str | None = None,
        images: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_model(model)
        self.model = model
        self.threat = threat
        self.weights, self.tasks = _tasks(tasks)
        self.attack_tasks = _one_of("attack_tasks", attack_tasks, ATTACK_TASKS)
        self.objective = lookup.made("objectives", objective)
        self.attack = _with_settings(attack, {"steps": steps, "step_size": step_size})
        self.pixels, self.classifier = _look(model, images, mean, std, normalized, classifier)
        self.patch_size = patch_size_of(model)
        self.heads = _heads(self.tasks, self.classifier.width, seed).to(device_of(model), dtype_of(model))
        self.pixels.to(device_of(model))
        self.augment = augmentation.chosen_augment(augment, images) if images is not None else augment
        self.drawn = [name for name, task in self.tasks.items() if not task.shares_forward]
        self.views = _views(views, len(self.drawn))
        self.seed = seed
        self.calls = 0
        self._heads_at_start: list[Tensor] = []
        self._writes_at_start = 0

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The losses of one batch: images (N,C,H,W) as the loader gives them, labels (N,) or soft (N,K)."""
        # What is made in inference mode could not be differentiated, and the attack needs gradients there too.
        with torch.inference_mode(False), torch.no_grad():
            images, labels = self._checked(images, labels)
            chance, noise = self._generators(images.device)
            if self.training:
                self._watch_heads()
                images = augmentation.applied(augmentation.chosen_augment(self.augment, images), images, chance)
            images, shared = self._shared(images, chance)
            parts = self._draw(images, chance)
        adversarial, views = self._attacked(images, labels, shared, parts, noise)

        logits, features = self._forward(adversarial)
        with statistics_untouched(self.model):
            clean = self._forward(images)[0] if self.objective.needs_clean else None
            losses = self._pretext_losses(shared, features)
            losses += self._pretext_losses(parts, self._forward(views)[1]) if parts else []
        robust = self.objective.loss(logits, labels, clean).mean()
        return self._terms(robust, logits, shared + parts, losses)

    def answers(self, pixels: Tensor, chance: torch.Generator) -> list[tuple[Part, Tensor]]:
        """For each task, one view of every image in pixels (N,C,H,W) on [0,1], and its head's answers (N,classes)."""
        found = []
        for name, task in self.tasks.items():
            view = task.draw(pixels, chance, patch_size=self.patch_size)
            part = Part(name, torch.arange(len(pixels), device=pixels.device), view, self.weights[name])
            found.append((part, self._answers(part, self._forward(view.of(pixels))[1])))
        return found

    def _terms(self, robust: Tensor, logits: Tensor, parts: list[Part], losses: list[Tensor]) -> dict[str, Tensor]:
        total, terms = robust, {"robust": robust.detach()}
        for part, loss in zip(parts, losses, strict=True):
            # An empty part has loss 0 and still reaches its head: DDP counts a parameter without gradient as an error.
            total = total + part.weight * loss.sum() / len(logits)
            terms[part.task] = loss.detach().mean() if len(loss) else loss.detach().sum()
        return {"loss": total, "output": logits, **terms}

    def _attacked(
        self, images: Tensor, labels: Tensor, shared: list[Part], parts: list[Part], noise: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The adversarial images (N,C,H,W) and the views of the pretext tasks (M,C,H,W)."""
        with attacking(self.model, self.parameters(), images.device):
            clean = self._forward(images)[0].detach() if self.objective.needs_clean else None
            joint = self.attack_tasks == "joint"
            goal = self._loss_of(labels, clean, shared if joint else [], parts if joint else [])
            adversarial = self.attack(goal, images, self.threat, generator=noise)
            if self.attack_tasks == "separate":
                found = [self._attacked_view(images, part, noise) for part in parts]
                return adversarial, torch.cat(found) if found else images[:0]
            return adversarial, self._views_of(adversarial, parts)

    def _attacked_view(self, images: Tensor, part: Part, noise: torch.Generator) -> Tensor:
        views = part.view.of(images[part.rows])
        if len(views) == 0:
            return views

        def answers(candidates: Tensor) -> Tensor:
            return self._answers(part, self._forward(candidates)[1])

        targets = part.view.targets
        goal = LossOf(
            lambda c: F.cross_entropy(answers(c), targets, reduction="none"), labels=targets, logits_of=answers
        )
        return self.attack(goal, views, self.threat, generator=noise)

    def _loss_of(self, labels: Tensor, clean: Tensor | None, shared: list[Part], parts: list[Part]) -> LossOf:
        """What the adversary maximises; classes and views go through the model in one batch."""

        def per_image(candidates: Tensor) -> Tensor:
            batch = torch.cat([candidates, self._views_of(candidates, parts)]) if parts else candidates
            logits, features = self._forward(batch)
            count = len(candidates)
            loss: Tensor = self.objective.attack_loss(logits[:count], labels, clean)
            losses = self._pretext_losses(shared, features[:count]) + self._pretext_losses(parts, features[count:])
            for part, pretext in zip(shared + parts, losses, strict=True):
                loss = loss.index_add(0, part.rows, part.weight * pretext.to(loss.dtype))
            return loss

        if shared or parts:
            return LossOf(per_image)
        hard = labels.argmax(1) if labels.dim() == 2 else labels
        return LossOf(per_image, labels=hard, logits_of=lambda candidates: self._forward(candidates)[0])

    def _forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return forward(self.model, self.classifier, self.pixels.inputs(pixels).to(dtype_of(self.model)))

    def _answers(self, part: Part, features: Tensor) -> Tensor:
        answers: Tensor = self.heads[part.task](features)[:, : part.view.classes]
        return answers

    def _pretext_losses(self, parts: list[Part], features: Tensor) -> list[Tensor]:
        """The loss (M,) of each part, whose views' features lie one part after the other (or are shared by all)."""
        losses, start = [], 0
        for part in parts:
            count = len(part.rows)
            own = features if self.tasks[part.task].shares_forward else features[start : start + count]
            losses.append(F.cross_entropy(self._answers(part, own), part.view.targets, reduction="none"))
            start += count
        return losses

    def _views_of(self, images: Tensor, parts: list[Part]) -> Tensor:
        return torch.cat([part.view.of(images[part.rows]) for part in parts]) if parts else images[:0]

    def _shared(self, images: Tensor, chance: torch.Generator) -> tuple[Tensor, list[Part]]:
        """The images after the tasks whose view takes the image's place, and those tasks' parts."""
        parts = []
        rows = torch.arange(len(images), device=images.device)
        for name in self.tasks:
            if self.tasks[name].shares_forward:
                view = self.tasks[name].draw(images, chance, patch_size=self.patch_size)
                images = view.of(images)
                parts.append(Part(name, rows, view, self.weights[name]))
        return images, parts

    def _draw(self, images: Tensor, chance: torch.Generator) -> list[Part]:
        """Each image draws `views` distinct tasks; a loss is weighted so that the expectation is weight times loss."""
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

    def _checked(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        check_images(images)
        labels = checked_labels(labels, len(images))
        if labels.device.type == "cpu":
            check_classes(labels, self.classifier.classes)
        if self.training and len(images) == 1 and has_batch_norm(self.model):
            raise ValueError("a batch of one image cannot be normalised by batch norm: use a batch size of at least 2")
        if not self.pixels.normalized and images.is_floating_point() and images.device.type == "cpu":
            find_pixels(images, mean=None, std=None)
        device = device_of(self.model)
        return self.pixels.pixels(images.to(device)).clone(), labels.to(device).clone()

    def _generators(self, device: torch.device) -> tuple[torch.Generator, torch.Generator]:
        """For this call: one on the CPU for choices, so that no device has to be waited for, and one on the device."""
        rank = (
            torch.distributed.get_rank()
            if torch.distributed.is_available() and torch.distributed.is_initialized()
            else 0
        )
        self.calls += self.training
        call = self.calls if self.training else "eval"
        seed = random.Random(f"{self.seed} {call} {rank}").getrandbits(62)
        chance = torch.Generator().manual_seed(seed)
        return chance, chance if device.type == "cpu" else torch.Generator(device).manual_seed(seed)

    def _watch_heads(self) -> None:
        """Warn when ten training forwards, after which the model has changed, have left the heads as they were."""
        if self.calls == 1:
            self._heads_at_start = [parameter.detach().clone() for parameter in self.heads.parameters()]
            self._writes_at_start = _writes(self.model)
        # Where gradients are accumulated, many forwards come before the first step.
        if self.calls >= 10 and self._heads_at_start and _writes(self.model) != self._writes_at_start:
            now = self.heads.parameters()
            if all(torch.equal(a, b.to(a.device)) for a, b in zip(self._heads_at_start, now, strict=True)):
                warnings.warn(
                    "the pretext heads have not changed in 10 training steps: give the optimizer "
                    "robust_loss.parameters(), which hold the model's and the heads', instead of model.parameters()",
                    stacklevel=3,
                )
            self._heads_at_start = []


def _writes(model: nn.Module) -> int:
    """How often the model's parameters have been written, as an optimizer does."""
    return sum(parameter._version for parameter in model.parameters())


def _look(
    model: nn.Module, images: Tensor | None, mean: Any, std: Any, normalized: bool | None, classifier: str | None
) -> tuple[Pixels, Classifier]:
    """The space of the images and the model's classifier, from the user's images or from made-up ones."""
    if images is not None:
        check_images(images)
        pixels = find_pixels(images, mean=mean, std=std, normalized=normalized, model=model)
        inputs = pixels.inputs(pixels.pixels(images[:2].cpu())).to(device_of(model), dtype_of(model))
        return pixels, find_classifier(model, inputs, classifier)
    pixels = Pixels(mean, std, normalized=normalized is not False)
    for inputs in sample_inputs(model):
        try:
            return pixels, find_classifier(model, inputs, classifier)
        except (RuntimeError, AssertionError):
            continue  # made-up images of a size that the model does not take
    raise ValueError("no made-up image fits the model: pass images=, a batch as your loader gives it")


def _tasks(tasks: Mapping[Any, float] | None) -> tuple[dict[str, float], dict[str, Task]]:
    if tasks is not None and not isinstance(tasks, Mapping):
        raise ValueError(
            f"tasks is {tasks!r}, but a dict of weights is needed, such as {TASKS}; None for no pretext task"
        )
    weights: dict[str, float] = {}
    made: dict[str, Task] = {}
    for key, weight in (tasks or {}).items():
        task = lookup.made("tasks", key)
        if not (isinstance(weight, int | float) and 0 <= weight < float("inf")):
            raise ValueError(f"the weight of task {task.name!r} is {weight!r}, but a number of at least 0 is needed")
        if task.name in made:
            raise ValueError(f"two tasks are named {task.name!r}: give each its own name")
        made[task.name], weights[task.name] = task, float(weight)
    return weights, made


def _heads(tasks: dict[str, Task], width: int, seed: int) -> nn.ModuleDict:
    """One linear head a task, with weights that follow from the seed; the global random state stays."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed the accelerators, which are not forked here.
        torch.default_generator.manual_seed(seed)
        return nn.ModuleDict({name: nn.Linear(width, task.classes) for name, task in tasks.items()})


def _views(views: int | str, tasks: int) -> int:
    if views == "all":
        return tasks
    if not isinstance(views, int) or views < 1 or (tasks and views > tasks):
        raise ValueError(f"views is {views!r}, but it is the number of tasks an image draws: 1 to {tasks}, or 'all'")
    return views


def _with_settings(attack: Any, settings: dict[str, Any]) -> Attack:
    given = {key: value for key, value in settings.items() if value is not None}
    found: Attack = partial(lookup.find("attacks", attack), **given) if given else lookup.find("attacks", attack)
    return found


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, but it must be one of {', '.join(map(repr, allowed))}")
    return str(value)
