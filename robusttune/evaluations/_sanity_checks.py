"""Checks for masked gradients and for models that attacks cannot measure, each (Sample) -> Finding."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn import functional as F

from robusttune import plugins
from robusttune.evaluations import LOSSES, LossName, Passes
from robusttune.evaluations._sanity_sample import SLACK, Finding, Sample, apgd, share
from robusttune.model.borrowing import differentiable
from robusttune.norms import radii
from robusttune.run.provenance import fingerprint
from robusttune.threat import LossOf, ThreatModel

UNBOUNDED = 0.5
QUERIES = 500
TRIALS = 100
SURROGATE_STEPS, SURROGATE_BATCH = 150, 64

Check: TypeAlias = Callable[[Sample], Finding]


def eval_mode(sample: Sample) -> Finding:
    """Look for modules in train mode."""
    modules = list(sample.subject.model.named_modules())
    training = [name or "the model" for name, module in modules if module.training]
    if not training:
        return Finding(0.0, True, "all modules are in eval mode")
    says = f"{len(training)} modules stay in train mode although .eval() was called ({', '.join(training[:3])})"
    return Finding(len(training) / len(modules), False, says)


def random_outputs(sample: Sample) -> Finding:
    """Look for images that get other logits the second time."""
    with torch.no_grad():
        first, again = (sample.subject.logits(sample.pixels) for _ in range(2))
    differ = share((first != again).any(1))
    says = "the same images get other answers each time: attacks must average over them, and accuracies are of one draw"
    return Finding(differ, differ == 0, says if differ else "the same images get the same answers")


def batch_dependent_outputs(sample: Sample) -> Finding:
    """Look for images that get other logits alone than in a batch."""
    logits, pixels = sample.subject.logits, sample.pixels[:32]
    with torch.no_grad():
        together, alone = logits(pixels), torch.cat([logits(image[None]) for image in pixels])
    scale = together.abs().mean().clamp_min(1e-6)
    differ = share(((together - alone).abs() > 1e-2 * scale).any(1))
    says = "an image's answer depends on the other images of its batch: attacks on a batch then attack them together"
    return Finding(differ, differ == 0, says if differ else "answers do not depend on the other images of a batch")


def softmax_outputs(sample: Sample) -> Finding:
    """Look for outputs that are probabilities."""
    with torch.no_grad():
        logits = sample.subject.logits(sample.pixels)
    value = share((logits >= 0).all(1) & ((logits.sum(1) - 1).abs() < 1e-3))
    says = "the model returns probabilities: give it without its softmax, as their gradients vanish where it is sure"
    return Finding(value, value < 0.5, says if value >= 0.5 else "the model returns logits, not probabilities")


def zero_gradients(sample: Sample) -> Finding:
    """Look for images whose gradient is zero or not finite, under the loss that has more such images."""
    shares: dict[LossName, float] = {}
    for name, loss in LOSSES.items():
        with differentiable():
            pixels = sample.pixels.clone().requires_grad_()
            total = loss(sample.subject.logits(pixels), sample.labels).sum()
            gradient = torch.autograd.grad(total, pixels, allow_unused=True)[0] if total.requires_grad else None
        flat = torch.zeros_like(sample.pixels).flatten(1) if gradient is None else gradient.flatten(1)
        shares[name] = share(~flat.any(1) | ~flat.isfinite().all(1))
    worst = max(shares, key=lambda name: shares[name])
    value, loss_name = shares[worst], worst.replace("_", "-")
    says = f"the gradient of the {loss_name} is zero on {100 * value:.0f}% of images: such attacks are blind"
    if gradient is None:
        says = "no gradient reaches the images, as under torch.no_grad() or after .detach(): attacks by gradients are blind"
    return Finding(value, value <= SLACK, says if value > SLACK else "gradients are not zero")


def optimisation_at_inference(sample: Sample) -> Finding:
    """Look for a model that computes gradients, or changes its state, while it answers."""
    before = fingerprint(sample.subject.model)
    with _recorded_gradients() as calls, torch.no_grad():
        sample.subject.logits(sample.pixels[:8])
    changed = fingerprint(sample.subject.model) != before
    failed = bool(calls) or changed
    what = "changes its weights or buffers" if changed else "computes gradients"
    says = f"the model {what} while it answers: attacks do not see through that, and measure something else"
    return Finding(float(failed), not failed, says if failed else "the model only computes when it answers")


@contextmanager
def _recorded_gradients() -> Iterator[list[str]]:
    """Record the calls of torch.autograd.grad and backward, by name."""
    calls: list[str] = []
    originals = {name: getattr(torch.autograd, name) for name in ("grad", "backward")}

    def recorded(name: str) -> Callable[..., Any]:
        def call(*args: Any, **settings: Any) -> Any:
            calls.append(name)
            return originals[name](*args, **settings)

        return call

    try:
        for name in originals:
            setattr(torch.autograd, name, recorded(name))
        yield calls
    finally:
        for name, function in originals.items():
            setattr(torch.autograd, name, function)


def iterative_beats_single_step(sample: Sample) -> Finding:
    """Compare many steps with a single one."""
    single = plugins.configured("attacks", "pgd", steps=1, step_size=sample.threat.eps, random_start=False)
    gap = share(sample.by_cross_entropy) - share(sample.after(single))
    says = f"a single step finds more than {sample.steps} do (by {100 * gap:.0f} points): gradients mislead"
    return Finding(gap, gap <= sample.slack, says if gap > sample.slack else "many steps find at least what one does")


def more_steps_change_little(sample: Sample) -> Finding:
    """Compare with four times as many steps from another start."""
    after_more = sample.by_gradients
    for loss in LOSSES:
        after_more = after_more & sample.after(apgd(4 * sample.steps), loss=loss, start=1)
    gap = share(sample.by_gradients) - share(after_more)
    says = f"four times as many steps from another start take {100 * gap:.0f} points more: the attacks are too weak yet"
    return Finding(gap, gap <= sample.slack, says if gap > sample.slack else "more steps and starts change little")


def success_grows_with_eps(sample: Sample) -> Finding:
    """Look for accuracy that rises with the radius."""
    norm = sample.threat.norm
    larger = radii(norm, sample.threat.eps, (1, 2, 4))[1:]
    accuracies = [share(sample.by_cross_entropy)]
    accuracies += [share(sample.after(apgd(sample.steps), ThreatModel(norm, eps))) for eps in larger]
    rise = max((after - before for before, after in pairwise(accuracies)), default=0.0)
    says = f"a larger radius leaves more images right (by {100 * rise:.0f} points): attacks fail for another reason"
    good = "attacks succeed more often at larger radii"
    return Finding(rise, rise <= sample.slack, says if rise > sample.slack else good)


def unbounded_attack_succeeds(sample: Sample) -> Finding:
    """Attack at a radius at which any image can become grey."""
    threat = ThreatModel("linf", UNBOUNDED)
    left = sample.clean
    for loss in LOSSES:
        left = left & sample.after(apgd(2 * sample.steps), threat, loss=loss)
    value, allowed = share(left), 1 / sample.subject.classes + sample.slack
    says = f"{100 * value:.0f}% are still right at linf {UNBOUNDED}, where any image can become grey: attacks fail"
    good = "at a radius at which any image can become grey, attacks leave no more than guessing"
    return Finding(value, value <= allowed, says if value > allowed else good)


def gradient_free_attacks_find_no_more(sample: Sample) -> Finding:
    """Look for images that withstand gradients, but not Square, or not random noise without torchattacks."""
    left, name = sample.clean, "random noise"
    if _has_square(sample.threat):
        square = plugins.configured("attacks", "torchattacks", name="Square", n_queries=QUERIES)
        left, name = sample.after(square), "Square"
    else:
        generator = sample.subject.generator()
        for _ in range(TRIALS):
            left = left & sample.right(sample.threat.start(sample.pixels, generator))
    value = share(sample.by_gradients & ~left)
    says = (
        f"{name}, which sees no gradient, breaks {100 * value:.0f}% of images that withstand gradients: they are masked"
    )
    return Finding(value, value <= SLACK, says if value > SLACK else f"{name} finds nothing that gradients do not")


def _has_square(threat: ThreatModel) -> bool:
    return find_spec("torchattacks") is not None and threat.norm in ("l2", "linf")


def transfer_finds_no_more(sample: Sample) -> Finding:
    """Look for images that withstand the model's gradients, but not those of an imitation."""
    surrogate = _surrogate(sample)
    labels = sample.labels
    loss_of = LossOf(lambda images: F.cross_entropy(surrogate(images), labels, reduction="none"), labels=labels)
    attack, generator = apgd(sample.steps), sample.subject.generator()
    adversarial = attack(loss_of, sample.pixels, sample.threat, generator=generator)
    value = share(sample.by_gradients & ~sample.right(adversarial))
    says = (
        f"images made for a small net that imitates the model break {100 * value:.0f}% that withstand its own gradients"
    )
    return Finding(value, value <= SLACK, says if value > SLACK else "images made for an imitation find nothing more")


def _surrogate(sample: Sample) -> nn.Module:
    """Train a small convolutional net to classify these images and noisy ones as the model does."""
    channels, classes, place = sample.pixels.shape[1], sample.subject.classes, sample.pixels.device
    layers = [nn.Conv2d(channels, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(1024, classes)).to(place)
    generator = sample.subject.generator()
    with differentiable():
        optimizer = torch.optim.Adam(net.parameters(), 2e-3)
        for _ in range(SURROGATE_STEPS):
            rows = torch.randint(len(sample.pixels), (SURROGATE_BATCH,), generator=generator, device=place)
            pixels = sample.threat.start(sample.pixels[rows], generator)
            loss = F.cross_entropy(net(pixels), sample.subject.predicted(pixels))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return net.requires_grad_(False)


CHECKS: tuple[Check, ...] = (
    eval_mode,
    random_outputs,
    batch_dependent_outputs,
    softmax_outputs,
    zero_gradients,
    optimisation_at_inference,
    iterative_beats_single_step,
    more_steps_change_little,
    success_grows_with_eps,
    unbounded_attack_succeeds,
    gradient_free_attacks_find_no_more,
    transfer_finds_no_more,
)


def expected(threat: ThreatModel, images: int, steps: int) -> Passes:
    """Count the passes of all checks on this number of images, with attacks of this number of steps."""
    # APGD: a forward more than steps, and a look at what it found. Runs: one on each loss, two of larger radii, two of twice
    # and two of four times as many steps.
    runs = (steps, steps, steps, steps, 2 * steps, 2 * steps, 4 * steps, 4 * steps)
    attacks = Passes(sum(each + 2 for each in runs) + 2, sum(runs) + 1)  # and a single step of PGD
    looks = 2 + 1 + len(LOSSES) + 1 + 1  # two for random outputs, softmax, gradients, as they are, after the imitation
    without_gradients = QUERIES + 4 if _has_square(threat) else TRIALS
    total = attacks.plus(Passes(looks + without_gradients, len(LOSSES)))
    return total._replace(images=images, once=2 * 32 + 8 + SURROGATE_STEPS * SURROGATE_BATCH)
