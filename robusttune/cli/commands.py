"""Commands: their parameters are options, and `--help` shows their docstrings."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from robusttune.cli.classifiers import as_before
from robusttune.cli.evaluations import estimate_evaluations, evaluations_of, list_of
from robusttune.cli.gate import Gate, judged
from robusttune.cli.labels import BY_TEXT, Labels, names_of
from robusttune.cli.next_command import after_estimate, after_evaluate, after_harden, after_plan, after_pretrain
from robusttune.cli.options import Arguments, Listed, Sources
from robusttune.cli.prepared import other_split, prepared
from robusttune.cli.runs import check_additions, labels_of
from robusttune.cli.splits import judging_split, look_at, say_unread, say_unused, warn_if_trained_on
from robusttune.cli.start import tell_start
from robusttune.cli.unlabeled import more_images, options_given, teacher_of
from robusttune.measuring.evaluate import evaluate
from robusttune.measuring.records import name_of
from robusttune.measuring.report import report
from robusttune.measuring.run_defaults import RunDefaults
from robusttune.model.saved import hardened_run, run_of_checkpoint
from robusttune.run.about import About, read_run
from robusttune.training.estimate import estimate
from robusttune.training.harden import harden
from robusttune.training.pretrain import pretrain
from robusttune.trial.decision import decide
from robusttune.trial.plan import TrialPlan
from robusttune.trial.poc import poc
from robusttune.trial.results import START, Trial


def run_harden(
    sources: Sources,
    arguments: Arguments,
    *,
    val_split: str | None = "auto",
    unlabeled: str | None = None,
    unlabeled_split: str = "train",
    teacher: str = "self",
) -> int:
    """Train a model against an adversary.

    Examples:
      robusttune harden --model timm:resnet18 --pretrained --data images --norm linf --eps 4/255 --finetune 5 --out runs/a
      robusttune harden --config runs/a.yaml --resume            # --print_config shows what such a file holds
      robusttune harden --model timm:resnet18 --checkpoint model.pth --data labelled --unlabeled more --out runs/a
      robusttune harden --model timm:resnet18 --checkpoint model.pth --data images_without_class_folders --out runs/a

    Args:
        val_split: the split of the data to judge epochs on; "auto" for validation or val where it lies beside train, else, and
            with none, 5% of the training images are held back for that.
        unlabeled: more images, which the teacher labels; named as in --data, their own labels are ignored.
        unlabeled_split: the split of these images.
        teacher: who labels images without labels: self (the model as it is at the start), a run's folder, a file of weights for
            the same --model, or none, which uses --unlabeled for the pretext losses alone.
    """
    labels = _labels_before(arguments)
    if arguments["resume"]:
        sources = as_before(sources, read_run(arguments["out"]))
    model, loader, arguments = prepared(sources, arguments, labels=labels, shuffle=True, alone=True)
    show, resumed = arguments["progress"], arguments["out"] if arguments["resume"] else None
    look_at(sources, loader, progress=show)
    judging, held_out = judging_split(sources, val_split, loader, resumed=resumed, progress=show)
    more, taught = more_images(sources, unlabeled, unlabeled_split), teacher_of(teacher, sources, loader)
    others = options_given(unlabeled, unlabeled_split, teacher)
    notes = {"command": {**asdict(sources), "val_split": judging, **others}}
    harden(model, loader, **arguments, val_loader=held_out, unlabeled_loader=more, teacher=taught, notes=notes)
    say_unread(loader, held_out, more)
    print(
        f"hardened: {Path(arguments['out']) / 'model.safetensors'}\nnext: {after_harden(sources, arguments, judging)}"
    )
    return 0


def run_estimate(
    sources: Sources,
    arguments: Arguments,
    *,
    val_split: str | None = "auto",
    unlabeled: str | None = None,
    unlabeled_split: str = "train",
    teacher: str = "self",
    which: Listed = None,
    subset: int | None = None,
    devices: Mapping[str, float] | None = None,
) -> int:
    """Estimate time, memory and cost of harden with the same options, and train nothing; with --which those of evaluate.

    Examples:
      robusttune estimate --model timm:resnet18 --data images --epochs 20 --devices '{spot: 0.9, office: 0.4}'
      robusttune estimate --model timm:resnet18 --data images --which clean sweep autoattack

    Args:
        val_split: the split of the data to judge epochs on; "auto" for validation or val where it lies beside train, else, and
            with none, 5% of the training images are held back for that.
        unlabeled: more images, which the teacher labels; named as in --data, their own labels are ignored.
        unlabeled_split: the split of these images.
        teacher: who labels images without labels: self (the model as it is at the start), a run's folder, a file of weights for
            the same --model, or none, which uses --unlabeled for the pretext losses alone.
        which: evaluations, to estimate their cost instead of that of harden; as for evaluate, of the split validation by default.
        subset: the number of images to evaluate on.
        devices: prices per hour by the name of a machine, such as {spot: 0.9, office: 0.4}.
    """
    if which is not None:
        if val_split != "auto" or unlabeled is not None:
            name = "val_split" if unlabeled is None else "unlabeled"
            raise ValueError(f"which= asks for the cost of evaluations, which take no {name}: leave it out")
        print(estimate_evaluations(sources, arguments, which, teacher=teacher, subset=subset, devices=devices))
        return 0
    following = after_estimate(sources, arguments, val_split, options_given(unlabeled, unlabeled_split, teacher))
    model, loader, arguments = prepared(sources, arguments, shuffle=True, alone=True)
    tell_start(sources, model, loader, arguments)
    _, held_out = judging_split(sources, val_split, loader, progress=arguments["progress"])
    more, taught = more_images(sources, unlabeled, unlabeled_split), teacher_of(teacher, sources, loader)
    loaders: Arguments = {"val_loader": held_out, "unlabeled_loader": more, "teacher": taught}
    print(estimate(model, loader, subset=subset, devices=devices, **arguments, **loaders))
    say_unread(loader, held_out, more)
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
    teacher: str | None = None,
    untrained: bool = False,
    trust: bool = False,
    require: Listed = None,
    summary: str | None = None,
    junit: str | None = None,
    sarif: str | None = None,
) -> int:
    """Measure how robust a model is; with --require, refuse one that is not robust enough.

    The exit code is 0 if all requirements are met, 3 if one is not, and 4 if the measurement cannot tell.

    Examples:
      robusttune evaluate runs/a --data images         # model, classes, size, pixels, norm and eps are those of the run
      robusttune evaluate --model timm:resnet18 --checkpoint runs/a --data images --norm l2 --eps 0.5 --out runs/a/evaluation
      robusttune evaluate --config evaluate.yaml --which clean sanity strong
      robusttune evaluate runs/a --data images --require 'robust>=0.45' 'clean>=0.90' --junit gate.xml
      robusttune evaluate runs/a --data images_without_class_folders    # measures agreement, which is not accuracy

    Args:
        run: the folder of a run of harden, which knows its model, its classes, its images and its adversary.
        which: evaluations by name, or {name: {setting: value}} to change their settings.
        teacher: the model whose answers replace the labels of images without class folders: a run's folder, or a file of weights for the
            same --model, such as the model before it was hardened; by default the model's own.
        untrained: measure a model with random weights or a new classifier, too.
        trust: call a function that the folder names as its model, which is code; otherwise only models of timm and torchvision are
            made by the names in a folder.
        require: accuracies that a pipeline asks for, such as 'robust>=0.45' (at the training radius, under the worst attack),
            'robust.low@linf:8/255>=0.4' (the lower end of the 95% interval, at this radius), 'clean>=0.9'; several may be named.
        summary: a file for the checks of --require as JSON.
        junit: a file for these checks as JUnit XML.
        sarif: a file for those that are not met as SARIF 2.1.0.
    """
    gate = Gate(require, {"summary": summary, "junit": junit, "sarif": sarif})
    evaluations = evaluations_of(which)
    earlier = None if run is None else hardened_run(run)
    if earlier is not None:
        check_additions(earlier, sources)
    model, loader, arguments = prepared(sources, arguments, run=earlier, shuffle=False, untrained=untrained, alone=True)
    known = earlier or run_of_checkpoint(sources.checkpoint)
    norm, eps = RunDefaults(earlier).adversary(arguments["norm"], arguments["eps"])
    arguments |= {"norm": norm, "eps": eps}
    gate.look(sources, arguments, evaluations, model, loader)
    tell_start(sources, model, loader, arguments, evaluations=evaluations, run=known)
    answers = None if teacher is None else teacher_of(teacher, sources, loader)
    notes = {"model": sources.model, "data": sources.data, "split": sources.split}
    notes = {name: value for name, value in notes.items() if value}
    records = evaluate(model, loader, evaluations, teacher=answers, run=run, notes=notes, **arguments)
    print(records)
    say_unread(loader)
    if arguments["out"] is not None and require is None:
        print(f"next: {after_evaluate(str(arguments['out']))}")
    return judged(gate, records, arguments["out"])


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
        unlabeled: images without labels, for self-training and pretext tasks; named as in --data.
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
    more = more_images(sources, unlabeled, unlabeled_split)
    test = other_split(sources, test_split, loader)
    tell_start(sources, model, loader, arguments)
    say_unused(sources, test_split, progress=arguments["progress"])
    warn_if_trained_on(loader, test, "a test on them does not show how a model does on new ones")
    path = poc(
        model,
        loader,
        **{name: value for name, value in chosen.items() if value is not None},
        test_loader=test,
        unlabeled_loader=more,
        notes={"command": {**asdict(sources), **splits}, "about": About(names_of(loader.dataset)).as_json()},
        **arguments,
    )
    say_unread(loader, test, more)
    if arguments["plan_only"]:
        plan = TrialPlan.read(path.parent)
        cost, power = plan.estimated, (Trial.load(path.parent).power or {}).get("chance to find")
        print(f"plan: {path}, {cost['in all'] if cost else 'of unknown cost'}; edit it if you like")
        if power:
            print(
                f"it finds a difference between arms of {', '.join(f'{each} in {power[each]}' for each in power)} of trials"
            )
        print(f"next: {following}")
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


def run_report(records: str | Sequence[str], *, out: str = "report", assurance: bool = False) -> int:
    """Write a page that shows what was measured, and print its path.

    Examples:
      robusttune report before=runs/before after=runs/a/evaluation --out runs/report

    Args:
        records: folders that evaluate wrote to, or of runs with one such folder inside; NAME=PATH names them.
        out: a folder for report.md, report.html and report.json.
        assurance: add a section for auditors, with lines to sign.
    """
    page = report(dict(_named(path) for path in list_of(records) or []), out, assurance=assurance)
    print(page.with_suffix(".html"))
    return 0


def _named(argument: str) -> tuple[str, str]:
    """Read NAME=PATH: a name, by default that of the folder, and the path."""
    name, equals, path = argument.partition("=")
    return (name, path) if equals else (name_of(argument), argument)


def _labels_before(arguments: Arguments) -> Labels:
    """Return the classes of the run that is resumed; those of the data for a new run."""
    return labels_of(read_run(arguments["out"])) if arguments["resume"] and arguments["out"] else BY_TEXT
