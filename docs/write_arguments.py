"""Writes docs/arguments.md, the arguments of `harden` by group with their defaults as values: `python docs/write_arguments.py`.

Defaults come from the signature, and where that says None or "auto", from the presets and the recipe. The words are here.
"""

import inspect
from pathlib import Path

from robusttune.norms import default_eps
from robusttune.training.harden import harden
from robusttune.training.presets import EARLIER, PRESETS
from robusttune.training.range_test import WIDER
from robusttune.training.recipe import RATES

PAGE = Path(__file__).parent / "arguments.md"
HEAD = """# Arguments of harden

All arguments of `harden(model, loader, …)` by group, with their defaults for `preset="standard"`. "Small" images are below 160 px on the shorter
side, "large" images 160 px and more. You need none of these arguments to begin. Look first at `norm`, `eps`, `epochs` and `out`.

- The other presets are in [what is chosen for you](training.md#what-is-chosen-for-you), types and errors in the [reference](api/training.md),
  terms in the [glossary](glossary.md).
- `robusttune harden` has the same options in the shell ([spelling](command-line.md#how-python-arguments-are-spelt)).
- `python docs/write_arguments.py` writes this page from the signature and the presets.
"""
STANDARD = PRESETS["standard"]
PACE = STANDARD.pace


def radii() -> str:
    """The radius of each norm for a small and a large image."""
    parts = []
    for norm, sizes in {"linf": (32, 224), "l2": (32, 224)}.items():
        small, large = (default_eps(norm, (3, side, side)) for side in sizes)
        shown = [f"{255 * each:g}/255" if norm == "linf" else f"{each:.2g}" for each in (small, large)]
        parts.append(f"{norm}: {shown[0]} at 32 px, {shown[1]} at 224 px")
    return "; ".join(parts)


def late() -> str:
    """The attack of the last quarter."""
    name, steps = STANDARD.late or ("", 0)
    return f"{name} with {steps} steps"


def values() -> dict[str, str]:
    """The defaults that the signature does not state."""
    return {
        "norm": '"linf" (with `purpose="corruptions"`: "l2")',
        "eps": radii(),
        "attack": f"small: {STANDARD.attack}, in the last quarter {late()}; large: apgd in linf, pgd in l2",
        "steps": "small: 1 (nfgsm), 2 in the last quarter; large: 2 in linf, 7 in l2",
        "step_size": "the attack's",
        "eps_ramp": "yes, unless the model is robust already",
        "tasks": ", ".join(f"{name} {weight:g}" for name, weight in (STANDARD.tasks or {}).items()) + " (heads alone)",
        "augment": '"standard" if the loader\'s transform is visible and not random, else "none"',
        "mean": "from the loader's transform",
        "std": "from the loader's transform",
        "normalized": "measured",
        "classifier": "detected by a forward pass",
        "criterion": "the objective's cross-entropy",
        "heads": "new ones",
        "val_loader": "5% of a plain DataLoader's images, if these are 32 or more",
        "unlabeled_loader": "none",
        "unlabeled_share": "the share that they have of all images",
        "max_steps": "no limit",
        "time_budget": "no limit",
        "optimizer": "AdamW for models with patches, SGD for others",
        "scheduler": "a short rise, then half a cosine",
        "lr": f"SGD: {PACE * RATES['sgd']:g} small, {RATES['sgd']:g} large; AdamW: {PACE * RATES['adamw']:g} small, "
        f"{RATES['adamw']:g} large",
        "weight_decay": "SGD: 0.0005 small, 0.0001 large; AdamW: 0.05",
        "clip_grad": f"{STANDARD.clip_grad:g} small, or {WIDER * STANDARD.clip_grad:g} if a [range test](how-it-works.md#small-steps) "
        "shows that it is better; large: 1 for models with patches, none for others",
        "update_batch": f"{STANDARD.update_batch} small; the loader's batch large",
        "micro_batch": "the whole step",
        "ema": "0.995 small, 0.9998 large",
        "min_clean": "no floor",
        "precision": "bf16 on a GPU that has it, else fp32",
        "compile": "the attack, in long runs, if it is faster",
        "channels_last": "for convolutional models",
        "tune": "in runs of 200 steps or more, if a measurement shows that it is faster",
        "device": "the accelerator, if there is one",
        "sharded": "a plain DataLoader is divided among processes",
        "out": "no folder",
        "init_from": "the model's weights",
        "checkpoint_every": "only at the end of each epoch",
        "log": "none",
        "on_epoch": "none",
        "notes": "none",
    }


GROUPS: dict[str, dict[str, str]] = {
    "The adversary": {
        "norm": "The size of a perturbation: `linf` limits each pixel, `l2` all pixels together; or a norm of yours.",
        "eps": "Radius in pixel units on [0,1] (defaults: for images with three channels).",
        "purpose": 'Aim of the run: "attacks", or "corruptions" (noise, blur, weather: AugMix and a small l2 radius).',
        "preset": "A named set of defaults: "
        + ", ".join(f'"{name}"' for name in PRESETS)
        + ". Other arguments override it.",
        "attack": "Attack that makes the adversarial training images: a name or a callable.",
        "steps": "Number of steps of the attack. Without `attack`, it means PGD (large images in linf: APGD) for the whole run.",
        "step_size": "Length of a step, in pixel units.",
        "eps_ramp": "Let eps grow from 0 in the first quarter of the run.",
        "awp": "Adversarial weight perturbation, as a share of each weight's norm; usually 0.005 to 0.01; 0 for none.",
    },
    "The loss": {
        "objective": 'Robust loss: "adversarial", "trades", "mart" or an object.',
        "criterion": "A loss in place of the cross-entropy, such as one with class weights.",
        "tasks": "Pretext tasks and their weights; weight 0 fits a head at the end; `None` for none.",
        "attack_tasks": 'How tasks with a weight meet the adversary: "none", "separate" or "joint".',
        "views": 'Number of tasks that each image takes in a step, drawn at random; or "all".',
        "heads": "Heads of pretext tasks to start from: a RobustLoss or a run folder.",
    },
    "Images and model": {
        "augment": 'Augmentation: "none", "standard", "augmix", "prime", "noise", a corruption, a callable or Kornia module.',
        "mean": "Mean of the `Normalize` before the model.",
        "std": "Standard deviation of the `Normalize` before the model.",
        "normalized": "True if the loader's images are already normalised.",
        "classifier": "Name of the layer that yields the logits.",
        "init_from": "Weights to start from: a file or a run folder.",
    },
    "Held-out and unlabelled images": {
        "val_loader": "Held-out images, on which the best epoch is chosen.",
        "min_clean": "Lowest clean accuracy, from 0 to 1, that the chosen epoch may have.",
        "unlabeled_loader": "Images without labels, which the teacher labels.",
        "teacher": 'Labels the unlabelled images: "self" (the model before hardening), a run folder, a module or function; `None`: '
        "these images are for pretext tasks only.",
        "unlabeled_share": "Share of unlabelled images in each batch, from 0 to 1.",
        "drop_foreign": "Leave out unlabelled images that are unlike the labelled ones.",
    },
    "Length": {
        "pretrain_epochs": "Epochs of training on pretext tasks, before `finetune`.",
        "finetune": "Epochs of ordinary training before hardening.",
        "epochs": "Epochs of hardening.",
        "max_steps": "Largest number of optimiser steps.",
        "time_budget": 'Longest time of hardening: seconds, or a text such as "90min" or "2h". The limit that is reached first ends the run.',
    },
    "Updates of the weights": {
        "optimizer": "A name that timm knows, a torch optimiser, or a function (parameters) -> optimiser.",
        "scheduler": "A name that timm knows, a torch scheduler, or a function (optimizer) -> scheduler.",
        "lr": "Peak learning rate.",
        "weight_decay": "Weight decay of a named optimiser.",
        "clip_grad": "Largest norm of the gradient; a larger gradient is scaled down to it.",
        "ema": "Decay of the exponential moving average of the weights, per step; 0 for none.",
        "update_batch": "Largest number of images in an optimiser step; larger batches are cut. `None` for whole batches.",
        "accumulate": "Number of batches that are joined into one optimiser step.",
    },
    "Speed and memory": {
        "precision": '"fp32", "bf16" or "fp16".',
        "compile": "Run the forward pass through `torch.compile`.",
        "channels_last": "Use the memory format channels_last during the run.",
        "tune": "Make the attack faster: fold batch norms into convolutions, and on CUDA replay the attack as CUDA graphs.",
        "micro_batch": "Number of images that go through the model at once; smaller needs less memory.",
        "checkpointing": "Activation checkpointing of the model's blocks: less memory, more time.",
        "device": "Device of the run; the model returns to its previous one.",
        "sharded": "With several processes: True if the loader yields only the share of its process.",
    },
    "Files and messages": {
        "out": "Folder for checkpoints, heads and logs.",
        "resume": "Continue the run in `out`; if there is none, start one.",
        "checkpoint_every": "Number of optimiser steps from one further checkpoint to the next.",
        "seed": "Seed of all random numbers.",
        "log": 'Tracker: "mlflow", "wandb", "tensorboard", another of accelerate\'s, or an object.',
        "progress": "Print the block of settings and progress bars.",
        "on_epoch": "Callable that gets a dict with the numbers of each epoch ([example](logging.md#after-each-epoch)).",
        "notes": "More entries of `run.json`, such as the commit of your code.",
    },
}


def shown(name: str) -> str:
    """The default of an argument, as a value."""
    default = inspect.signature(harden).parameters[name].default
    stated = values().get(name)
    if stated is not None:
        return stated
    return f'"{default}"' if isinstance(default, str) else f"{default}"


def arguments() -> str:
    """Return the page."""
    parts = [HEAD]
    for group, entries in GROUPS.items():
        parts.append(f"\n## {group}\n\n| argument | default | what it does |\n|---|---|---|\n")
        parts += [f"| `{name}` | {shown(name)} | {words} |\n" for name, words in entries.items()]
    parts.append(f'\n`preset="{EARLIER}"` was the default of earlier versions.\n')
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(arguments(), encoding="utf-8")
