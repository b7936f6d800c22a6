"""The loss of one step of adversarial training with pretext tasks."""

import random
from contextlib import nullcontext
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robusttune import plugins
from robusttune.attacks import Attack, AttackLike, attacked, differentiates_once
from robusttune.augmentations import AugmentLike, _augment
from robusttune.data.batches import hard_labels
from robusttune.model.borrowing import attacking, statistics_untouched
from robusttune.model.checks import check_model
from robusttune.model.devices import device_of, dtype_of
from robusttune.model.folding import Folded
from robusttune.model.forward import ForwardRunner
from robusttune.model.input_shapes import patch_size_of
from robusttune.model.probe import probe
from robusttune.objectives import ObjectiveLike
from robusttune.run import distributed
from robusttune.run.settings import check_settings
from robusttune.tasks import HEADS_ALONE, TasksLike
from robusttune.tasks._heads import Heads, HeadsWatch, Part, views_of
from robusttune.threat import LossOf, ThreatModel
from robusttune.training.awp import perturbed_weights
from robusttune.training.batch import PreparedBatch, images_by_keyword, prepared_batch, summed_losses
from robusttune.training.heads_alone import losses_alone
from robusttune.training.settings import AttackTasks, TeacherLike
from robusttune.training.teacher import Labeller
from robusttune.types import Channels

Weights: TypeAlias = dict[str, Tensor]  # of the model, by name


class RobustLoss(nn.Module):
    """The loss of one step of adversarial training, for any training loop; it owns the heads of the pretext tasks.

    A call returns {"loss", "output", "robust", …}: the scalar to call `backward` on, the logits (N,K) of the adversarial images, and
    each term, unweighted and detached. Give the optimiser `robust_loss.parameters()`: the model's parameters and those of the heads. Nothing
    is attached to the model. In eval mode it still attacks, but updates no running statistics, and no task changes the images to classify.

    Args:
        model: images -> logits (N,K), any module; wrap RobustLoss in DDP, not the model.
        threat: norm and radius of the adversary.
        tasks: pretext tasks, {name or object: weight}, or names, with weight 0.5; None for none. With weight 0, the default, only the head learns.
        attack_tasks: "none" (pretext losses on views of the images attacked for the class), "separate" (a second attack, on
            the views), or "joint" (one attack against class and pretext loss together).
        views: number of distinct tasks that each image draws, or "all"; the expected loss is the same.
        objective: the robust classification loss, by name or as an object; None for the pretext losses alone.
        attack: by name, or any `(loss_of, images, threat, *, generator) -> images`.
        steps: number of steps of the attack; None for the attack's own default.
        step_size: length of a step of the attack, in pixel units; None for the attack's own default.
        awp: adversarial weight perturbation, as a share of each weight's norm; 0 for none, usually 0.005 to 0.01.
        augment: in train mode: "none", a name such as "standard" or "augmix", a corruption, or a callable on images (N,C,H,W) in [0,1].
        mean, std, normalized: mean and std of the Normalize before the model; normalized: True if images are normalised; None detects it.
        classifier: name of the layer that yields the logits, if it cannot be detected.
        teacher: labels the images of `unlabeled=`: "self" (a copy of the model, made at the first such call), a run's folder, a module in
            eval mode or a function, from the model's input to logits (N,K) of the same classes; None: they are for pretext losses alone.
        images: a batch (N,C,H,W) as the loader yields it, to check the model and the pixels; None for random images.
        seed: seed of random starts, views and augmentations.

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
        tasks: TasksLike = HEADS_ALONE,
        attack_tasks: AttackTasks = "joint",
        views: int | Literal["all"] = 1,
        objective: ObjectiveLike | None = "adversarial",
        attack: AttackLike = "pgd",
        steps: int | None = None,
        step_size: float | None = None,
        awp: float = 0.0,
        augment: AugmentLike = "none",
        mean: Channels | None = None,
        std: Channels | None = None,
        normalized: bool | None = None,
        classifier: str | None = None,
        teacher: TeacherLike | None = "self",
        images: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_settings({"steps": steps, "step_size": step_size, "seed": seed, "awp": awp, "threat": threat})
        check_model(model)
        self.model, self.threat, self.awp, self.seed, self.calls = model, threat, float(awp), int(seed), 0
        self.attack_tasks = plugins.one_of("attack_tasks", attack_tasks, get_args(AttackTasks))
        self.objective: Any = None if objective is None else plugins.instance("objectives", objective)
        self.attack: Attack = plugins.configured("attacks", attack, steps=steps, step_size=step_size)
        self.pixels, self.classifier = probe(
            model, images, mean, std, normalized, classifier, labelled=self.objective is not None
        )
        self.heads = Heads(tasks, views, self.classifier.width, patch_size=patch_size_of(model), seed=self.seed)
        self.heads.to(device_of(model), dtype_of(model))
        self.pixels.to(device_of(model))
        self.augment = _augment.chosen_augment(augment, images) if images is not None else augment
        self.watch, self.labeller = HeadsWatch(model, self.heads), Labeller(teacher, self)
        self.passes = ForwardRunner(model, self.classifier)
        self.register_forward_pre_hook(images_by_keyword, with_kwargs=True)

    def forward(
        self, images: Tensor, labels: Tensor | None = None, *, unlabeled: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute the losses of one batch.

        Args:
            images: (N,C,H,W) as the loader yields them; also accepted as `pixel_values=`, their name in batches of transformers.
            labels: (N,) or soft (N,K); None only if there is no objective.
            unlabeled: more images (U,C,H,W). The teacher labels them, and they are added to the batch. Without a teacher they count in
                the pretext losses alone, which are then means over N + U images.
        """
        if self.objective is not None and labels is None:
            raise ValueError("labels are missing: pass them, or take objective=None for the pretext losses alone")
        # Tensors created in inference mode cannot be differentiated, and the attack needs gradients there, too.
        with torch.inference_mode(False), torch.no_grad():
            choices, noise = self._generators(device_of(self.model))
            if self.training:
                self.watch.count_forward()
            images, labels, unlabeled = self.labeller.joined(self, images, labels, unlabeled)
            batches = [prepared_batch(self, images, labels, choices)]
            batches += [] if unlabeled is None else [prepared_batch(self, unlabeled, None, choices)]
        attacked = [self._attacked(batch, noise) for batch in batches]
        losses = losses_alone(self, attacked[0][0], choices)  # draws last: the attack's noise does not depend on it
        weights = self._weights_under_attack(batches[0], attacked[0][0])

        robust: Tensor | None = None
        terms: dict[str, Tensor] = {}
        for batch, (adversarial, views) in zip(batches, attacked, strict=True):
            if batch.labels is not None:
                robust, logits, pretext = self._classified(batch, adversarial, views, weights)
                terms = {"output": logits, "robust": robust.detach()}
            else:
                pretext = self._pretext(batch, adversarial, views, weights, first=batch is batches[0])
            losses += zip(batch.shared + batch.parts, pretext, strict=True)
        loss, means = summed_losses(robust, losses, sum(len(batch.images) for batch in batches))
        return {"loss": loss, **terms, **means}

    def fold(self, images: Tensor | None) -> Folded | None:
        """Attack a copy of the model with folded batch norms, tested on images (N,C,H,W) of the loader; None to stop."""
        if images is None:
            return self.passes.fold(None)
        pixels = self.pixels.pixels(images[:2].to(device_of(self.model)))
        return self.passes.fold(self.pixels.inputs(pixels).to(dtype_of(self.model)))

    def answers(self, pixels: Tensor, generator: torch.Generator) -> list[tuple[Part, Tensor]]:
        """Draw a view of each image in pixels (N,C,H,W) on [0,1] for each trained head; return parts and logits (N,classes)."""
        parts = [self.heads.whole(name, pixels, generator) for name in self.heads.learnt]
        return [(part, self.heads.answers(part, self._forward(part.view.of(pixels))[1])) for part in parts]

    def _classified(
        self, batch: PreparedBatch, adversarial: Tensor, views: Tensor, weights: Weights | None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the mean robust loss, the logits (N,K) of the adversarial images, and the losses of the batch's parts."""
        logits, features = self._forward(adversarial, weights)
        with statistics_untouched(self.model):
            clean = self._forward(batch.images, weights)[0] if self.objective.needs_clean else None
            losses = self.heads.losses(batch.shared, features, shared=True)
            losses += self.heads.losses(batch.parts, self._forward(views, weights)[1]) if batch.parts else []
        return self.objective.loss(logits, batch.labels, clean).mean(), logits, losses

    def _pretext(
        self, batch: PreparedBatch, adversarial: Tensor, views: Tensor, weights: Weights | None, *, first: bool
    ) -> list[Tensor]:
        """Return the losses of the parts of an unlabelled batch; only one forward, of the first batch, updates running statistics."""
        losses = []
        if batch.shared:
            with nullcontext() if first else statistics_untouched(self.model):
                losses += self.heads.losses(batch.shared, self._forward(adversarial, weights)[1], shared=True)
        if batch.parts:
            with nullcontext() if first and not batch.shared else statistics_untouched(self.model):
                losses += self.heads.losses(batch.parts, self._forward(views, weights)[1])
        return losses

    def _weights_under_attack(self, batch: PreparedBatch, adversarial: Tensor) -> Weights | None:
        """Return adversarially perturbed weights by name; None if weights are not attacked."""
        if not self.awp or batch.labels is None or not self.training:
            return None

        def robust() -> Tensor:
            clean = self._forward(batch.images)[0] if self.objective.needs_clean else None
            loss: Tensor = self.objective.loss(self._forward(adversarial)[0], batch.labels, clean).mean()
            return loss

        with torch.inference_mode(False), torch.enable_grad(), statistics_untouched(self.model):
            return perturbed_weights(self.model, robust, self.awp)

    def _attacked(self, batch: PreparedBatch, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the adversarial images (N,C,H,W) and the views of the pretext tasks (M,C,H,W)."""
        images, labels, shared, parts = batch
        joint, adversarial, clean = self.attack_tasks == "joint", images, None
        once = differentiates_once(self.attack)
        with (
            attacking(self.model, self.parameters(), images.device),
            self.passes.under_attack(differentiated_once=once),
        ):
            if labels is not None and self.objective.needs_clean:
                clean = self._forward(images)[0].detach()
            if joint or labels is not None:
                loss_of = self._loss_of(labels, clean, shared if joint else [], parts if joint else [])
                adversarial = attacked(self.attack, loss_of, images, self.threat, generator=noise)
            if self.attack_tasks == "separate":
                views = [self._attacked_view(images, part, noise) for part in parts]
                return adversarial, torch.cat(views) if views else images[:0]
            return adversarial, views_of(adversarial, parts)

    def _attacked_view(self, images: Tensor, part: Part, noise: torch.Generator) -> Tensor:
        """Attack each view of a part with a perturbation against its pretext loss."""
        views, targets = part.view.of(images[part.rows]), part.view.targets
        if len(views) == 0:
            return views

        def logits(candidates: Tensor) -> Tensor:
            return self.heads.answers(part, self._forward(candidates)[1])

        def per_image(candidates: Tensor) -> Tensor:
            return F.cross_entropy(logits(candidates), targets, reduction="none")

        pretext = LossOf(per_image, labels=targets, logits_of=logits)
        return attacked(self.attack, pretext, views, self.threat, generator=noise)

    def _loss_of(self, labels: Tensor | None, clean: Tensor | None, shared: list[Part], parts: list[Part]) -> LossOf:
        """Return the loss that the attack maximises; classes and views go through the model in one batch."""

        def per_image(candidates: Tensor) -> Tensor:
            count = len(candidates) if labels is not None or shared else 0
            together = torch.cat([candidates[:count], views_of(candidates, parts)]) if parts else candidates
            logits, features = self._forward(together)
            loss = features.new_zeros(len(candidates))
            if labels is not None:
                loss = self.objective.attack_loss(logits[:count], labels, clean)
            losses = self.heads.losses(shared, features[:count], shared=True)
            losses += self.heads.losses(parts, features[count:])
            for part, pretext in zip(shared + parts, losses, strict=True):
                loss = loss.index_add(0, part.rows, part.weight * pretext.to(loss.dtype))
            return loss

        if shared or parts or labels is None:
            return LossOf(per_image)
        return LossOf(per_image, labels=hard_labels(labels), logits_of=lambda candidates: self._forward(candidates)[0])

    def _forward(self, pixels: Tensor, weights: Weights | None = None) -> tuple[Tensor, Tensor]:
        return self.passes(self.pixels.inputs(pixels).to(dtype_of(self.model)), weights)

    def _generators(self, device: torch.device) -> tuple[torch.Generator, torch.Generator]:
        """Return two generators seeded for this call: on the CPU, for choices without waiting for the device, and on the device."""
        self.calls += self.training
        call = self.calls if self.training else "eval"
        seed = random.Random(f"{self.seed} {call} {distributed.rank()}").getrandbits(62)
        choices = torch.Generator().manual_seed(seed)
        return choices, choices if device.type == "cpu" else torch.Generator(device).manual_seed(seed)
