"""The commands `robusttune advise`, which chooses settings, and `robusttune draw_eps`, which shows radii on one's own images."""

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from robusttune.cli import look
from robusttune.cli.image_sizes import with_size
from robusttune.cli.labels import Images
from robusttune.cli.next_command import command_of
from robusttune.cli.options import Arguments, Sources
from robusttune.cli.prepared import prepared
from robusttune.cli.sources import loader_of
from robusttune.cli.splits import say_unread
from robusttune.cli.unlabeled import loader_of_images, more_images
from robusttune.measuring.eps_picture import draw_eps
from robusttune.run.settings import with_fractions
from robusttune.training.advice.advise import NONE_HELD_BACK, advise
from robusttune.training.advice.chosen import Settings
from robusttune.training.presets import PRESETS


def run_advise(
    sources: Sources,
    arguments: Arguments,
    *,
    model: str = "",
    size: int | None = None,
    channels: int | None = None,
    unlabeled: str | None = None,
    unlabeled_split: str = "train",
) -> int:
    """Advise settings of harden for your images and your model, with reasons, sources and what to expect; nothing is trained.

    Examples:
      robusttune advise --data images --model timm:resnet18 --pretrained --norm linf --budget 2h
      robusttune advise --data images                                  # without a model: no time and memory
      robusttune advise --data few --unlabeled many --model timm:resnet18 --purpose monitoring

    Args:
        model: 'timm:NAME', 'torchvision:NAME' or 'package.module:function'; left out, time and memory stay unknown.
        size: side of the images in pixels; by default that of the files, and 224 for larger ones.
        channels: 3 for colour, 1 for grey; by default as the files are.
        unlabeled: more images, without labels; named as in --data.
        unlabeled_split: the split of these images.
    """
    sources = with_size(sources, size, channels)
    net, loader, arguments = model_and_images(sources, arguments)
    more = more_images(sources, unlabeled, unlabeled_split)
    advice = advise(net, loader, unlabeled_loader=more, **arguments)
    if look.validation_beside(sources) is not None:  # by which harden will choose the epoch
        advice = replace(advice, todo=[line for line in advice.todo if line != NONE_HELD_BACK])
    print(advice)
    say_unread(loader, more)
    others = {} if unlabeled is None else {"unlabeled": unlabeled, "unlabeled_split": unlabeled_split}
    print(f"next: {_following(sources, arguments, advice.settings, others)}")
    return 0


def _following(sources: Sources, arguments: Arguments, settings: Settings, others: Mapping[str, object]) -> str:
    """Write the command that takes the advice: poc for the unsure, else harden."""
    known = {**vars(sources), **others, "model": sources.model or "timm:resnet18"}
    if arguments["purpose"] == "unsure":
        threats = with_fractions({str(settings["norm"]): settings["eps"]})
        return command_of(
            "poc", {**known, "threats": threats, "finetune": settings.get("finetune", 0), "out": "runs/poc"}
        )
    chosen = dict(settings)
    preset = PRESETS[chosen.get("preset", "standard")]
    if chosen.get("eps") and chosen.get("tasks") == preset.tasks:
        del chosen["tasks"]  # the preset's own
    return command_of("harden", {**known, **chosen, "out": "runs/hardened"})


def run_draw_eps(
    sources: Sources, arguments: Arguments, *, model: str = "", size: int | None = None, channels: int | None = None
) -> int:
    """Draw what each eps looks like on your images: by random noise, and with a model by an attack on it.

    Examples:
      robusttune draw_eps --data images --out eps.png
      robusttune draw_eps --data images --model timm:resnet18 --checkpoint runs/a --norm linf --eps 4/255 8/255 16/255 --out eps.png

    Args:
        model: the model to attack, 'timm:NAME', 'torchvision:NAME' or 'package.module:function'; left out, noise alone is drawn.
        size: side of the images in pixels; by default that of the files, and 224 for larger ones.
        channels: 3 for colour, 1 for grey; by default as the files are.
    """
    sources = with_size(sources, size, channels)
    net, loader, arguments = model_and_images(sources, arguments)
    print(draw_eps(loader, model=net, **arguments))
    return 0


def model_and_images(sources: Sources, arguments: Arguments) -> tuple[nn.Module | None, Images, Arguments]:
    """Make the model, if one is named, and the loader, with labels where the folder has them."""
    if sources.model:
        return prepared(sources, arguments, shuffle=True, alone=True)
    if look.has_no_classes(sources):
        return None, loader_of_images(sources, None, shuffle=True), arguments
    return None, loader_of(sources, shuffle=True), arguments
