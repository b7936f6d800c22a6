"""Whether measured robustness should be believed: signs of masked gradients and of models that cannot be measured."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robusttune import plugins
from robusttune.measuring.intervals import wilson
from robusttune.measuring.record import Record
from robusttune.measuring.subject import LOSSES, Subject
from robusttune.model.borrowing import differentiable
from robusttune.run.provenance import fingerprint
from robusttune.threat import LossOf, ThreatModel, default_eps, radii

__all__ = ["sanity"]

SLACK = 0.03
UNBOUNDED = 0.5
QUERIES = 500
TRIALS = 100
SURROGATE_STEPS = 150


def sanity(subject: Subject, *, images: int = 200, steps: int = 20) -> list[Record]:
    """What speaks against believing the model's robustness: a Record and a sentence for each check.

    A Record's value is the number that the check looks at, its setting says whether all is well (`ok`) and what it means
    (`says`). The checks look for signs; that they find none proves nothing.

    Args:
        subject: the model and its images.
        images: how many of them to use.
        steps: of the attacks; some checks take several times as many.

    Source: Carlini et al., arXiv:1902.06705; Athalye et al., arXiv:1802.00420.
    """
    look = _Look(subject, images, steps)
    records = []
    for check in CHECKS:
        finding = check(look)
        count = len(look.pixels)
        share = min(1.0, max(0.0, finding.value))
        setting = {"ok": finding.ok, "says": finding.says}
        name = check.__name__.strip("_").replace("_", " ")
        records.append(Record("sanity", name, finding.value, count, wilson(share * count, count), setting))
        if not finding.ok:
            subject.tell(f"sanity, {name}: {finding.says}")
    return records


@dataclass(frozen=True)
class _Finding:
    value: float
    ok: bool
    says: str


class _Look:
    """Some images, and what attacks do to them."""

    def __init__(self, subject: Subject, images: int, steps: int) -> None:
        self.subject, self.steps = subject, steps
        threat = subject.threat
        self.threat = threat if threat.eps > 0 else ThreatModel(threat.norm, default_eps(threat.norm, subject.shape))
        parts = []
        for batch in subject.batches():
            parts.append(batch)
            if sum(len(labels) for _, labels in parts) >= images:
                break
        if not parts:
            raise ValueError("sanity saw no images: the loader is empty")
        self.pixels = torch.cat([pixels for pixels, _ in parts])[:images]
        self.labels = torch.cat([labels for _, labels in parts])[:images]
        # Fewer images leave more to chance.
        self.slack = max(SLACK, 1 / math.sqrt(len(self.pixels)))

    def right(self, pixels: Tensor) -> Tensor:
        return self.subject.predicted(pixels) == self.labels

    def after(
        self, attack: Any, threat: ThreatModel | None = None, *, loss: str = "cross_entropy", start: int = 0
    ) -> Tensor:
        """Which images (N,) are right before and after an attack, from one or another random start."""
        generator = self.subject.generator()
        generator.manual_seed(generator.initial_seed() + start)
        found = self.subject.attacked(
            self.pixels, self.labels, attack, threat or self.threat, loss=loss, generator=generator
        )
        return self.clean & self.right(found)

    @cached_property
    def clean(self) -> Tensor:
        return self.right(self.pixels)

    @cached_property
    def by_cross_entropy(self) -> Tensor:
        return self.after(plugins.configured("attacks", "apgd", steps=self.steps))

    @cached_property
    def by_gradients(self) -> Tensor:
        """The worst case over both losses."""
        return self.by_cross_entropy & self.after(
            plugins.configured("attacks", "apgd", steps=self.steps), loss="margin"
        )


def _share(flags: Tensor) -> float:
    return float(flags.float().mean())


def _eval_mode(look: _Look) -> _Finding:
    modules = list(look.subject.model.named_modules())
    awake = [name or "the model" for name, module in modules if module.training]
    says = f"{len(awake)} modules stay in train mode although .eval() was called ({', '.join(awake[:3])})"
    return _Finding(len(awake) / len(modules), not awake, says if awake else "all modules are in eval mode")


def _random_outputs(look: _Look) -> _Finding:
    with torch.no_grad():
        first, again = (look.subject.logits(look.pixels) for _ in range(2))
    differ = _share((first != again).any(1))
    says = "the same images get other answers each time: attacks must average over them, and accuracies are of one draw"
    return _Finding(differ, differ == 0, says if differ else "the same images get the same answers")


def _batch_dependent_outputs(look: _Look) -> _Finding:
    pixels = look.pixels[:32]
    with torch.no_grad():
        together, alone = look.subject.logits(pixels), torch.cat([look.subject.logits(each[None]) for each in pixels])
    scale = together.abs().mean().clamp_min(1e-6)
    differ = _share(((together - alone).abs() > 1e-2 * scale).any(1))
    says = "an image's answer depends on the other images of its batch: attacks on a batch then attack them together"
    return _Finding(differ, differ == 0, says if differ else "answers do not depend on the other images of a batch")


def _softmax_outputs(look: _Look) -> _Finding:
    with torch.no_grad():
        logits = look.subject.logits(look.pixels)
    alike = (logits >= 0).all(1) & ((logits.sum(1) - 1).abs() < 1e-3)
    share = _share(alike)
    says = "the model returns probabilities: give it without its softmax, as their gradients vanish where it is sure"
    return _Finding(share, share < 0.5, says if share >= 0.5 else "the model returns logits, not probabilities")


def _zero_gradients(look: _Look) -> _Finding:
    shares = {}
    for name, loss in LOSSES.items():
        with differentiable():
            pixels = look.pixels.clone().requires_grad_()
            total = loss(look.subject.logits(pixels), look.labels).sum()
            gradient = torch.autograd.grad(total, pixels, allow_unused=True)[0] if total.requires_grad else None
        flat = torch.zeros_like(look.pixels) if gradient is None else gradient
        shares[name] = _share(~flat.flatten(1).any(1) | ~flat.flatten(1).isfinite().all(1))
    worst = max(shares, key=lambda name: shares[name])
    says = f"the gradient of the {worst.replace('_', '-')} is zero on {100 * shares[worst]:.0f}% of images: such attacks are blind"
    return _Finding(shares[worst], shares[worst] <= SLACK, says if shares[worst] > SLACK else "gradients are not zero")


def _optimisation_at_inference(look: _Look) -> _Finding:
    before = fingerprint(look.subject.model)
    with _counted_gradients() as calls, torch.no_grad():
        look.subject.logits(look.pixels[:8])
    changed = fingerprint(look.subject.model) != before
    found = bool(calls) or changed
    what = "changes its weights or buffers" if changed else "computes gradients"
    says = f"the model {what} while it answers: attacks do not see through that, and measure something else"
    return _Finding(float(found), not found, says if found else "the model only computes when it answers")


@contextmanager
def _counted_gradients() -> Iterator[list[str]]:
    """What is called of autograd meanwhile."""
    calls: list[str] = []
    plain = {name: getattr(torch.autograd, name) for name in ("grad", "backward")}

    def counted(name: str) -> Callable[..., Any]:
        def call(*args: Any, **settings: Any) -> Any:
            calls.append(name)
            return plain[name](*args, **settings)

        return call

    try:
        for name in plain:
            setattr(torch.autograd, name, counted(name))
        yield calls
    finally:
        for name, function in plain.items():
            setattr(torch.autograd, name, function)


def _iterative_beats_single_step(look: _Look) -> _Finding:
    single = plugins.configured("attacks", "pgd", steps=1, step_size=look.threat.eps, random_start=False)
    gap = _share(look.by_cross_entropy) - _share(look.after(single))
    says = f"a single step finds more than {look.steps} do (by {100 * gap:.0f} points): gradients mislead"
    return _Finding(gap, gap <= look.slack, says if gap > look.slack else "many steps find at least what one does")


def _more_steps_change_little(look: _Look) -> _Finding:
    more = look.by_gradients
    for loss in LOSSES:
        more = more & look.after(plugins.configured("attacks", "apgd", steps=4 * look.steps), loss=loss, start=1)
    gap = _share(look.by_gradients) - _share(more)
    says = f"four times as many steps from another start take {100 * gap:.0f} points more: the attacks are too weak yet"
    return _Finding(gap, gap <= look.slack, says if gap > look.slack else "more steps and starts change little")


def _success_grows_with_eps(look: _Look) -> _Finding:
    attack = plugins.configured("attacks", "apgd", steps=look.steps)
    accuracies = [_share(look.by_cross_entropy)]
    norm = look.threat.norm
    larger = radii(norm, look.threat.eps, (1, 2, 4))[1:]
    accuracies += [_share(look.after(attack, ThreatModel(norm, eps))) for eps in larger]
    rise = max((more - less for less, more in pairwise(accuracies)), default=0.0)
    says = f"a larger radius leaves more images right (by {100 * rise:.0f} points): attacks fail for another reason"
    return _Finding(
        rise, rise <= look.slack, says if rise > look.slack else "attacks succeed more often at larger radii"
    )


def _unbounded_attack_succeeds(look: _Look) -> _Finding:
    threat = ThreatModel("linf", UNBOUNDED)
    left = look.clean
    for loss in LOSSES:
        left = left & look.after(plugins.configured("attacks", "apgd", steps=2 * look.steps), threat, loss=loss)
    allowed = 1 / look.subject.classes + look.slack
    says = (
        f"{100 * _share(left):.0f}% are still right at linf {UNBOUNDED}, where any image can become grey: attacks fail"
    )
    good = "at a radius at which any image can become grey, attacks leave no more than guessing"
    return _Finding(_share(left), _share(left) <= allowed, says if _share(left) > allowed else good)


def _gradient_free_attacks_find_no_more(look: _Look) -> _Finding:
    if find_spec("torchattacks") is not None and look.threat.norm in ("l2", "linf"):
        left, name = (
            look.after(plugins.configured("attacks", "torchattacks", name="Square", n_queries=QUERIES)),
            "Square",
        )
    else:
        left, name = look.clean, "random noise"
        generator = look.subject.generator()
        for _ in range(TRIALS):
            left = left & look.right(look.threat.start(look.pixels, generator))
    more = _share(look.by_gradients & ~left)
    says = (
        f"{name}, which sees no gradient, breaks {100 * more:.0f}% of images that withstand gradients: they are masked"
    )
    return _Finding(more, more <= SLACK, says if more > SLACK else f"{name} finds nothing that gradients do not")


def _transfer_finds_no_more(look: _Look) -> _Finding:
    surrogate = _surrogate(look)
    goal = LossOf(lambda images: F.cross_entropy(surrogate(images), look.labels, reduction="none"), labels=look.labels)
    attack = plugins.configured("attacks", "apgd", steps=look.steps)
    found = attack(goal, look.pixels, look.threat, generator=look.subject.generator())
    more = _share(look.by_gradients & ~look.right(found))
    says = (
        f"images made for a small net that imitates the model break {100 * more:.0f}% that withstand its own gradients"
    )
    return _Finding(more, more <= SLACK, says if more > SLACK else "images made for an imitation find nothing more")


def _surrogate(look: _Look) -> nn.Module:
    """A small convolutional net that gives these images, and noisy ones, the classes that the model gives them."""
    channels, classes, place = look.pixels.shape[1], look.subject.classes, look.pixels.device
    layers = [nn.Conv2d(channels, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(1024, classes)).to(place)
    generator = look.subject.generator()
    with differentiable():
        optimizer = torch.optim.Adam(net.parameters(), 2e-3)
        for _ in range(SURROGATE_STEPS):
            rows = torch.randint(len(look.pixels), (64,), generator=generator, device=place)
            pixels = look.threat.start(look.pixels[rows], generator)
            loss = F.cross_entropy(net(pixels), look.subject.predicted(pixels))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return net.requires_grad_(False)


CHECKS: tuple[Callable[[_Look], _Finding], ...] = (
    _eval_mode,
    _random_outputs,
    _batch_dependent_outputs,
    _softmax_outputs,
    _zero_gradients,
    _optimisation_at_inference,
    _iterative_beats_single_step,
    _more_steps_change_little,
    _success_grows_with_eps,
    _unbounded_attack_succeeds,
    _gradient_free_attacks_find_no_more,
    _transfer_finds_no_more,
)
