"""Commands: their parameters are options, and `--help` shows their docstrings."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

from robusttune.cli.classifiers import as_before
from robusttune.cli.evaluations import estimate_evaluations, evaluations_of, list_of
from robusttune.cli.labels import BY_TEXT, Labels, names_of
from robusttune.cli.next_command import after_estimate, after_harden, after_plan, after_pretrain
from robusttune.cli.options import Arguments, Listed, Sources
from robusttune.cli.prepared import other_split, prepared
from robusttune.cli.runs import check_additions, labels_of
from robusttune.cli.sources import loader_of
from robusttune.cli.splits import judging_split, look_at, say_unread, say_unused, warn_if_trained_on
from robusttune.cli.start import tell_start
from robusttune.measuring.compare import compare
from robusttune.measuring.evaluate import evaluate
from robusttune.measuring.records import name_of
from robusttune.measuring.report import report
from robusttune.measuring.run_defaults import RunDefaults
from robusttune.model.saved import hardened_run, run_of_checkpoint
from robusttune.run.about import About, read_run
from robusttune.training.estimate import estimate
from robusttune.training.harden import harden
from robusttune.training.pretrain import pretrain
from robusttune.training.replay import replay, run_facts_of
from robusttune.trial.decision import decide
from robusttune.trial.plan import TrialPlan
from robusttune.trial.poc import poc
from robusttune.trial.results import START, Trial


def run_harden(sources: Sources, arguments: Arguments, *, val_split: str | None = "auto") -> int:
    """Train a model against an adversary.

    Examples:
      robusttune harden --model timm:resnet18 --pretrained --data images --norm linf --eps 4/255 --finetune 5 --out runs/a
      robusttune harden --config runs/a.yaml --resume            # --print_config shows what such a file holds

    Args:
        val_split: the split of the data to judge epochs on; "auto" for validation or val where it lies beside train, else, and
            with none, 5% of the training images are held back for that.
    """
    labels = _labels_before(arguments)
    if arguments["resume"]:
        sources = as_before(sources, read_run(arguments["out"]))
    model, loader, arguments = prepared(sources, arguments, labels=labels, shuffle=True)
    show, resumed = arguments["progress"], arguments["out"] if arguments["resume"] else None
    look_at(sources, loader, progress=show)
    judging, held_out = judging_split(sources, val_split, loader, resumed=resumed, progress=show)
    notes = {"command": {**asdict(sources), "val_split": judging}}
    harden(model, loader, **arguments, val_loader=held_out, notes=notes)
    say_unread(loader, held_out)
    print(
        f"hardened: {Path(arguments['out']) / 'model.safetensors'}\nnext: {after_harden(sources, arguments, judging)}"
    )
    return 0


def run_estimate(
    sources: Sources,
    arguments: Arguments,
    *,
    val_split: str | None = "auto",
    which: Listed = None,
    subset: int | None = None,
    devices: Mapping[str, float] | None = None,
) -> int:
    """Estimate time, memory and cost of harden with the same options, and train nothing; with --which those of evaluate.

    Examples:
      robusttune estimate --model timm:resnet18 --data images --epochs 20 --devices '{spot: 0.9, office: 0.4}'
      robusttune estimate --model timm:resnet18 --data images --split validation --which clean sweep autoattack

    Args:
        val_split: the split of the data to judge epochs on; "auto" for validation or val where it lies beside train, else, and
            with none, 5% of the training images are held back for that.
        which: evaluations, to estimate their cost instead of that of harden; as for evaluate.
        subset: the number of images to evaluate on.
        devices: prices per hour by the name of a machine, such as {spot: 0.9, office: 0.4}.
    """
    if which is not None:
        if val_split != "auto":
            raise ValueError("which= asks for the cost of evaluations, which take no val_split: leave it out")
        print(estimate_evaluations(sources, arguments, which, subset=subset, devices=devices))
        return 0
    following = after_estimate(sources, arguments, val_split)
    model, loader, arguments = prepared(sources, arguments, shuffle=True)
    tell_start(sources, model, loader, arguments)
    _, held_out = judging_split(sources, val_split, loader, progress=arguments["progress"])
    print(estimate(model, loader, subset=subset, devices=devices, **arguments, val_loader=held_out))
    say_unread(loader, held_out)
    print(f"next: {following}")
    return 0


def run_pretrain(sources: Sources, arguments: Arguments) -> int:
    """Train a backbone on pretext tasks, without labels.

    Examples:
      robusttune pretrain --model timm:resnet18 --data images --out runs/p
      robusttune pretrain --model timm:resnet18 --data images --tasks rotation --epochs 20 --out runs/p
    """
    following = after_pretrain(sources, arguments)
    model, loader, arguments = prepared(sources, arguments, labels=None, shuffle=True)
    look_at(sources, loader, progress=arguments["progress"])
    pretrain(model, loader, **arguments, notes={"command": asdict(sources)})
    say_unread(loader)
    print(f"pre-trained: {Path(arguments['out']) / 'model.safetensors'}\nnext: {following}")
    return 0


def run_evaluate(
    sources: Sources,
    arguments: Arguments,
    run: str | None = None,
    *,
    which: Listed = ("clean", "sweep"),
    untrained: bool = False,
) -> int:
    """Measure how robust a model is.

    Examples:
      robusttune evaluate runs/a --data images         # model, classes, size, pixels, norm and eps are those of the run
      robusttune evaluate --model timm:resnet18 --checkpoint runs/a --data images --norm l2 --eps 0.5 --out runs/a/evaluation
      robusttune evaluate --config evaluate.yaml --which clean sanity strong

    Args:
        run: the folder of a run of harden, which knows its model, its classes, its images and its adversary.
        which: evaluations by name, or {name: {setting: value}} to change their settings.
        untrained: measure a model with random weights or a new classifier, too.
    """
    evaluations = evaluations_of(which)
    earlier = None if run is None else hardened_run(run)
    if earlier is not None:
        check_additions(earlier, sources)
    model, loader, arguments = prepared(sources, arguments, run=earlier, shuffle=False, untrained=untrained)
    known = earlier or run_of_checkpoint(sources.checkpoint)
    norm, eps = RunDefaults(earlier).adversary(arguments["norm"], arguments["eps"])
    arguments |= {"norm": norm, "eps": eps}
    tell_start(sources, model, loader, arguments, evaluations=evaluations, run=known)
    print(evaluate(model, loader, evaluations, run=run, **arguments))
    say_unread(loader)
    return 0


def run_poc(
    sources: Sources,
    arguments: Arguments,
    *,
    threats: Listed = None,
    corruptions: Listed = None,
    arms: Listed = None,
    evaluation: Listed = None,
    test_split: str | None = None,
    unlabeled: str | None = None,
    unlabeled_split: str = "train",
) -> int:
    """Compare ways of training on your data: a plan with its cost, trained arms, and a page to decide by.

    Examples:
      robusttune poc --model timm:resnet18 --checkpoint model.pth --data images --plan_only --out runs/poc
      robusttune poc --model timm:resnet18 --data images --out runs/poc --resume          # follows the plan; goes on if killed
      robusttune poc --model timm:resnet18 --pretrained --finetune 5 --data images --threats '{linf: 4/255, l2: 1}' --budget 3600

    Args:
        threats: norms, or {norm: eps}; by default linf and l2. Arms train against the first one.
        corruptions: the corruptions that matter, by name or family; by default noise, blur, weather and digital.
        arms: the arms to compare, by name, or {name: phases}; by default all.
        evaluation: what to measure instead, by name or {name: {setting: value}}.
        test_split: the split of the data to measure on; by default a fifth of the images is kept for that.
        unlabeled: more images, for pretext tasks; named as in --data.
        unlabeled_split: the split of these images.
    """
    splits = {"test_split": test_split, "unlabeled": unlabeled, "unlabeled_split": unlabeled_split}
    following = after_plan(sources, arguments, splits)
    start, before = Path(arguments["out"]) / START, _labels_before(arguments)
    if arguments["resume"] and sources.checkpoint is None and start.exists():
        sources = replace(sources, checkpoint=str(start))
    model, loader, arguments = prepared(sources, arguments, labels=before, shuffle=True)
    lists = {"corruptions": list_of(corruptions), "arms": list_of(arms), "evaluation": list_of(evaluation)}
    chosen: Arguments = {"threats": _threats(threats), **lists}
    more_images = None
    if unlabeled is not None:
        folder = None if Path(unlabeled).exists() else sources.data_dir
        unlabelled = replace(sources, data=unlabeled, data_dir=folder, split=unlabeled_split)
        more_images = loader_of(unlabelled, labels=None, shuffle=True)
    test = other_split(sources, test_split, loader)
    tell_start(sources, model, loader, arguments)
    say_unused(sources, test_split, progress=arguments["progress"])
    warn_if_trained_on(loader, test, "a test on them does not show how a model does on new ones")
    path = poc(
        model,
        loader,
        **{name: value for name, value in chosen.items() if value is not None},
        test_loader=test,
        unlabeled_loader=more_images,
        notes={"command": {**asdict(sources), **splits}, "about": About(names_of(loader.dataset)).as_json()},
        **arguments,
    )
    say_unread(loader, test, more_images)
    if arguments["plan_only"]:
        cost = TrialPlan.read(path.parent).estimated
        print(f"plan: {path}, {cost['in all'] if cost else 'of unknown cost'}; edit it if you like\nnext: {following}")
        return 0
    decision = decide.decide(Trial.load(arguments["out"]))
    print(f"{decision.verdict.value}. {decision.reason}\npage: {path.with_suffix('.html')}")
    return 0


def _threats(entries: Listed) -> Mapping[str, float | None] | None:
    """Join norms and {norm: eps} into radii by norm; None for the customary radius."""
    if entries is None:
        return None
    radii: dict[str, float | None] = {}
    for entry in list_of(entries) or []:
        radii |= dict(entry) if isinstance(entry, Mapping) else {str(entry): None}
    return radii


def run_report(records: str | Sequence[str], *, out: str = "report") -> int:
    """Write a page that shows what was measured, and print its path.

    Examples:
      robusttune report before=runs/before after=runs/a/evaluation --out runs/report

    Args:
        records: folders that evaluate wrote to, or of runs with one such folder inside; NAME=PATH names them.
        out: a folder for report.md and report.html.
    """
    page = report(dict(_named(path) for path in list_of(records) or []), out)
    print(page.with_suffix(".html"))
    return 0


def run_compare(first: str, second: str) -> int:
    """Test whether two models differ on the images that both have seen.

    Examples:
      robusttune compare runs/before runs/a/evaluation

    Args:
        first: a folder that evaluate wrote to, its records.jsonl, or the folder of a run with one such folder inside.
        second: another one, of the same images.
    """
    print(compare(_named(first)[1], _named(second)[1]))
    return 0


def _named(argument: str) -> tuple[str, str]:
    """Read NAME=PATH: a name, by default that of the folder, and the path."""
    name, equals, path = argument.partition("=")
    return (name, path) if equals else (name_of(argument), argument)


def run_replay(run: str, *, out: str | None = None, tolerance: float = 0.02, device: str | None = None) -> int:
    """Repeat a run from its folder, and compare: the exit code is 0 if both agree.

    Examples:
      robusttune replay runs/a

    Args:
        run: the folder of a run of harden or pretrain.
        out: a folder for the repeated run, which is otherwise deleted.
        tolerance: the largest difference in the log that counts as close.
        device: the device to work on; by default that of the run.
    """
    folder = Path(run)
    facts = run_facts_of(folder)
    if "command" not in facts:
        raise ValueError(
            f"the run in {str(folder)!r} was begun from Python, so it does not say where its model and images come from: call "
            "robusttune.replay(folder, model, loader)"
        )
    command = facts["command"]
    sources = Sources(**{field.name: command[field.name] for field in fields(Sources) if field.name in command})
    run_before, before = read_run(folder), facts["arguments"]
    labels = None if facts["run"] == "pretrain" else labels_of(run_before)
    known = {"seed": before["seed"], "finetune": before.get("finetune", 0)}
    model, loader, _ = prepared(as_before(sources, run_before), known, labels=labels, shuffle=True)
    held_out = other_split(sources, command.get("val_split"), loader)
    loaders: Arguments = {} if held_out is None else {"val_loader": held_out}
    repeated = replay(folder, model, loader, out=out, tolerance=tolerance, device=device, **loaders)
    print(repeated.table())
    say_unread(loader, held_out)
    return 0 if repeated.same or repeated.close else 1


def _labels_before(arguments: Arguments) -> Labels:
    """Return the classes of the run that is resumed; those of the data for a new run."""
    return labels_of(read_run(arguments["out"])) if arguments["resume"] and arguments["out"] else BY_TEXT
