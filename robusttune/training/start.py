"""The start of a run in words: all that was chosen, by the user or for them."""

import inspect
import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import nn
from torch.utils.data import Subset

from robusttune.data.class_names import class_names
from robusttune.data.loaders import length_of
from robusttune.data.splits import HELD_BACK, LEAST_HELD
from robusttune.data.unlabeled import Labelled, Mixture
from robusttune.model.teacher import SELF
from robusttune.run import distributed
from robusttune.run.settings import duration, epochs_in_words, shown_radius
from robusttune.training.loop import Training
from robusttune.training.presets import augment_for
from robusttune.training.settings import RunSettings
from robusttune.training.stage_folders import done_before
from robusttune.types import Loader, says

SHOWN = 6  # names of classes


def start_of(training: Training, settings: RunSettings) -> list[tuple[str, str]]:
    """Return what was chosen for a run as names and values; the value is empty if there is nothing to say.

    Args:
        training: the run, before its first step.
        settings: as the user gave them.
    """
    robust_loss, stepper = training.robust_loss, training.stepper
    learning, adversary, command = settings.learning, settings.adversary, _command(settings)
    first, length = settings.length.finetune, settings.length
    return [
        ("data", _data(settings.loaders.loader, command)),
        ("split", str(command.get("split", ""))),
        ("classes", _classes(training, settings)),
        ("images", _images(training)),
        ("held out", _held_out(training, settings, command)),
        ("without labels", _without_labels(training, settings)),
        ("teacher", _teacher(training, settings)),
        ("model", model_in_words(robust_loss.model, command)),
        ("weights", _weights(training, settings, command)),
        ("head", _head(training)),
        ("pixels", str(robust_loss.pixels).removeprefix("images are ")),
        ("preset", "" if adversary.preset == "standard" or robust_loss.threat.eps == 0 else adversary.preset),
        ("threat", _threat(training, settings)),
        ("attack", _attack(training, settings)),
        ("objective", _objective(training, settings)),
        ("tasks", _tasks(training, settings)),
        ("augmentation", _augmentation(training, settings)),
        ("optimiser", _optimiser(training, settings)),
        (
            "pre-training",
            f"{epochs_in_words(length.pretrain_epochs)} before, on all images" if length.pretrain_epochs else "",
        ),
        ("fine-tuning", f"{epochs_in_words(first)} before, of all weights" if first else ""),
        ("length", _length(training)),
        ("precision", stepper.precision.name),
        ("device", device_in_words(stepper.device)),
        ("seed", str(settings.output.seed)),
        ("folder", "" if settings.output.out is None else str(settings.output.out)),
        (
            "clean accuracy",
            "" if learning.min_clean is None else f"at least {learning.min_clean:.1%} on held-out images",
        ),
    ]


def model_in_words(model: nn.Module, command: Mapping[str, object]) -> str:
    """Name a model, with its size.

    Args:
        model: any module.
        command: the options of the command line, which may name it; empty for none.

    Example:
        >>> model_in_words(nn.Sequential(nn.Linear(999, 1000), nn.Linear(1000, 1000)), {})
        'Sequential, 2 million parameters'
    """
    config = getattr(model, "pretrained_cfg", None)
    known = config.get("architecture") if isinstance(config, Mapping) else None
    count = sum(parameter.numel() for parameter in model.parameters())
    fixed = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    frozen = f", of which {_millions(fixed)} are frozen" if fixed else ""
    return f"{command.get('model') or known or type(model).__name__}, {_millions(count)} parameters{frozen}"


def classes_in_words(names: list[str] | None, count: int) -> str:
    """Count classes, with the first of their names.

    Example:
        >>> classes_in_words(["cat", "dog"], 2), classes_in_words(None, 10)
        ('2: cat, dog', '10, without names')
    """
    if names is None:
        return f"{count}, without names"
    return f"{len(names)}: {', '.join(names[:SHOWN])}{' …' if len(names) > SHOWN else ''}"


def name_of(part: object) -> str:
    """Name a plug-in or a user's object in words, with the settings of a `partial`.

    Example:
        >>> name_of("pgd"), name_of(partial(print, end="")), name_of(nn.Identity())
        ('pgd', "print (end='')", 'Identity')
    """
    if isinstance(part, str):
        return part
    if isinstance(part, partial):
        settings = ", ".join(
            f"{name}={name_of(value) if callable(value) else repr(value)}" for name, value in part.keywords.items()
        )
        return f"{name_of(part.func)} ({settings})" if settings else name_of(part.func)
    return str(getattr(part, "__name__", None) or getattr(part, "name", None) or type(part).__name__)


def _command(settings: RunSettings) -> Mapping[str, object]:
    """Return the options of the command line; none for a run begun from Python."""
    command = (settings.output.notes or {}).get("command")
    return command if isinstance(command, Mapping) else {}


def _data(loader: Loader, command: Mapping[str, object]) -> str:
    if "data" in command:
        place = command.get("data_dir")
        return f"{command['data']}{'' if place is None else f' in {place}'}"
    dataset: object = getattr(loader, "dataset", None)
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    root = getattr(dataset, "root", None)
    return f"{type(loader if dataset is None else dataset).__name__}{'' if root is None else f' in {root}'}"


def _without_labels(training: Training, settings: RunSettings) -> str:
    loader, labelling = settings.loaders.unlabeled_loader, training.labelling
    if labelling is not None:
        foreign = f", {labelling.foreign:,} of them unlike the labelled ones" if labelling.foreign else ""
        left_out = " and left out" if settings.loaders.drop_foreign and labelling.foreign else ""
        return f"{labelling.images:,} images{foreign}{left_out}"
    if loader is None:
        return ""
    images = length_of(getattr(loader, "dataset", None))
    count = "images, their number is not known" if images is None else f"{images:,} images"
    return f"{count}, for the pretext tasks alone"


def _teacher(training: Training, settings: RunSettings) -> str:
    if training.teacher is None:
        return ""
    name = "the model as it is now" if training.teacher.name == SELF else training.teacher.name
    return f"{name}; {training.labelling}"


def _classes(training: Training, settings: RunSettings) -> str:
    if settings.function == "pretrain":
        return ""
    return classes_in_words(class_names(settings.loaders.loader), training.robust_loss.classifier.classes)


def _images(training: Training) -> str:
    shape = training.batches.peeked[0].shape
    loader = training.batches.loader
    batches = length_of(loader)
    images = loader.images if isinstance(loader, Mixture) else length_of(getattr(loader, "dataset", None))
    count = (
        f"{images:,}"
        if images is not None
        else "their number is not known"
        if batches is None
        else f"{batches:,} batch{'es' * (batches != 1)}"
    )
    return f"{count}, {shape[0]} in a batch, {'x'.join(map(str, shape[1:]))}"


def _held_out(training: Training, settings: RunSettings, command: Mapping[str, object]) -> str:
    if settings.function == "pretrain":
        return ""
    loader = training.validation.loader
    if loader is None:
        few = f"{HELD_BACK:.0%} are held back of a plain DataLoader with at least {math.ceil(LEAST_HELD / HELD_BACK)} images"
        if command:
            return f"none, so the last epoch will be kept: --val_split names a split to choose the best one by ({few})"
        return f"none, so the last epoch will be kept: pass val_loader= to choose the best one ({few})"
    split, images = command.get("val_split"), length_of(getattr(loader, "dataset", None))
    by = "to choose the epoch by"
    if isinstance(loader, Labelled):
        by += " agreement with the teacher, as they have no labels"
    if settings.loaders.val_loader is None:
        return f"{images:,} of the training images, {by}"
    source = "val_loader" if split is None else f"the split {split!r}"
    return f"{'images' if images is None else f'{images:,} images'} of {source}, {by}"


def _weights(training: Training, settings: RunSettings, command: Mapping[str, object]) -> str:
    taken, source = training.progress.taken, settings.learning.init_from or command.get("checkpoint")
    if taken:
        return f"of step {taken:,} of the run that is resumed"
    published = str(command.get("model", "")).partition(":")[0] in ("timm", "torchvision")
    before = f"of {source}" if source is not None else "published ones" if command.get("pretrained") else "random"
    return ", then ".join([*([before] if source is not None or published else []), *done_before(settings)])


def _head(training: Training) -> str:
    found = training.robust_loss.classifier
    if not found.names:
        return ""
    outputs = f", {found.classes:,} outputs" if found.classes else ""
    return f"{', '.join(found.names)}{outputs}"


def _threat(training: Training, settings: RunSettings) -> str:
    if settings.function == "pretrain" and settings.adversary.norm is None:
        return "none"
    threat, purpose = training.stepper.threat, settings.adversary.purpose
    if not threat.eps:
        return "none, as eps is 0: ordinary training"
    growing = " (growing)" if training.stepper.ramp else ""
    return f"{threat.norm}, eps {shown_radius(threat.eps)}{growing}{', for corruptions' if purpose == 'corruptions' else ''}"


def _attack(training: Training, settings: RunSettings) -> str:
    if (settings.function == "pretrain" and settings.adversary.norm is None) or not training.stepper.threat.eps:
        return ""
    late = "" if training.late is None else f", late in the run {_steps_of(training.late)}"
    weights = f", awp {settings.adversary.awp:g}" if settings.adversary.awp else ""
    return _steps_of(training.robust_loss.attack) + late + weights


def _steps_of(attack: object) -> str:
    """Name an attack, with its number of steps where it says so."""
    inner, settings = (attack.func, dict(attack.keywords)) if isinstance(attack, partial) else (attack, {})
    usual = inspect.signature(inner).parameters.get("steps") if inspect.isfunction(inner) else None
    steps = settings.pop("steps", None if usual is None else usual.default)
    name = name_of(partial(inner, **settings)) if callable(inner) else name_of(inner)
    return f"{name} with {steps} step{'s' if steps != 1 else ''}" if isinstance(steps, int) else name


def _objective(training: Training, settings: RunSettings) -> str:
    learning = settings.learning
    if learning.objective is None or (says(learning.objective, "adversarial") and not training.stepper.threat.eps):
        return ""
    return name_of(learning.objective) + ("" if learning.criterion is None else f" of {name_of(learning.criterion)}")


def _tasks(training: Training, settings: RunSettings) -> str:
    heads, adversary = training.robust_loss.heads, settings.adversary
    weights = [f"{name} {weight:g}" for name, weight in heads.weights.items() if weight]
    if weights and (settings.function == "harden" or adversary.norm is not None):
        weights.append(f"attack_tasks {adversary.attack_tasks}")
    weights += [f"views {settings.learning.views}"] if weights else []
    when = "at the end" if training.checkpoints.folder is not None else "only with out="
    alone = [f"{', '.join(heads.alone)} (heads alone, fitted {when})"] if heads.alone else []
    return "; ".join([*([", ".join(weights)] if weights else []), *alone]) or "none"


def _augmentation(training: Training, settings: RunSettings) -> str:
    augment = augment_for(settings.adversary.purpose, settings.learning.augment)
    if augment is None or training.robust_loss.augment is None:
        return "none"
    return "standard" if says(augment, "auto") else name_of(augment)


def _optimiser(training: Training, settings: RunSettings) -> str:
    scheduler, most = settings.updates.scheduler, settings.speed.micro_batch
    parts = [str(training.stepper.recipe)]
    parts += [] if scheduler is None else [f"scheduler {name_of(scheduler)}"]
    parts += [] if most is None else [f"{most} images at once"]
    return ", ".join(parts)


def _length(training: Training) -> str:
    length, steps, most = training.progress.length, training.progress.steps, training.batches.most
    ended = length.max_steps is not None or length.time_budget is not None
    parts = [f"{'at most ' * ended}{epochs_in_words(length.epochs)}"]
    parts += ["steps not known" if steps is None else f"{steps:,} step{'s' * (steps != 1)}"]
    parts += [f"of {length.accumulate} batches each"] if length.accumulate > 1 else []
    parts += [f"of at most {most} images each"] if most is not None else []
    parts += [] if length.time_budget is None else [duration(length.time_budget)]
    return ", ".join(parts)


def device_in_words(device: torch.device) -> str:
    """Name a device, with the threads of a CPU or the kind of a GPU, and the number of processes."""
    processes = f", in {distributed.world()} processes" if distributed.world() > 1 else ""
    name = str(device)
    if device.type == "cpu":
        threads = torch.get_num_threads()
        name += f", {threads} thread{'s' * (threads != 1)}"
    elif device.type == "cuda":
        name += f" ({torch.cuda.get_device_name(device)})"
    return name + processes


def _millions(count: int) -> str:
    return f"{count:,}" if count < 100_000 else f"{count / 1e6:.3g} million"
