"""What each command does."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from robusttune import plugins
from robusttune.cli.doctor import doctor
from robusttune.cli.options import options_of
from robusttune.cli.sources import check_same_classes, classes_of, loader_of, model_of, statistics_of
from robusttune.cli.values import Number
from robusttune.measuring.compare import compare
from robusttune.measuring.evaluate import FILE, evaluate
from robusttune.measuring.records import Records
from robusttune.measuring.report import report
from robusttune.run.randomness import own_randomness
from robusttune.run.settings import check_settings, numbers
from robusttune.training.estimate import estimate
from robusttune.training.harden import harden
from robusttune.training.pretrain import pretrain
from robusttune.training.replay import replay, run_facts_of
from robusttune.trial.decision import decide
from robusttune.trial.plan import TrialPlan
from robusttune.trial.poc import poc
from robusttune.trial.results import START, Trial

SOURCES = (
    *("model", "checkpoint", "pretrained", "model_args", "classes", "data", "data_dir", "data_args", "split"),
    *("size", "channels", "batch_size", "workers", "val_split", "test_split", "unlabeled", "unlabeled_split"),
)
TAKEN = {name for function in (harden, evaluate, pretrain, poc) for name in options_of(function)}


def _sources(options: Any, *, shuffle: bool) -> tuple[Any, Any, dict[str, Any]]:
    """The model, the loader, and what else the function is given."""
    loader = _loader(options, options.split, shuffle=shuffle)
    classes = options.classes if options.classes is not None else classes_of(loader)
    if classes is None and options.model.split(":")[0] in ("timm", "torchvision"):
        raise ValueError(f"{options.data} does not tell how many classes it has: pass --classes")
    check_settings({"seed": getattr(options, "seed", 0)})
    with own_randomness(getattr(options, "seed", 0)):  # random weights are the same when the run is repeated
        model = model_of(
            options.model,
            classes=classes,
            channels=options.channels,
            weights=options.checkpoint,
            pretrained=options.pretrained,
            settings=options.model_args,
        )
    settings = {key: _read(value) for key, value in vars(options).items() if key in TAKEN}
    if "mean" in settings and settings["mean"] is None and settings["std"] is None:
        settings["mean"], settings["std"] = statistics_of(
            options.model, model, channels=options.channels, pretrained=options.pretrained
        )
    return model, loader, settings


def run_harden(options: Any) -> int:
    """Train, and keep the weights in --out."""
    _needs_out(options, "the hardened model")
    model, loader, settings = _sources(options, shuffle=True)
    held = _split(options, options.val_split, loader)
    harden(model, loader, **_own(harden, settings), val_loader=held, notes={"command": _command(options)})
    print(
        f"hardened: {Path(options.out) / 'model.safetensors'}; next: robusttune evaluate --checkpoint {options.out} …"
    )
    return 0


def _command(options: Any) -> dict[str, Any]:
    """Where model and images come from, which `run.json` could not say else."""
    return {name: getattr(options, name) for name in SOURCES if hasattr(options, name)}


def run_replay(options: Any) -> int:
    """Repeat a run of the command line, and compare: 0 if it agrees."""
    folder = Path(options.run)
    facts = run_facts_of(folder)
    if "command" not in facts:
        raise ValueError(
            f"the run in {str(folder)!r} was begun from Python, so nothing says where model and images come from: call "
            "robusttune.replay(folder, model, loader)"
        )
    again = SimpleNamespace(**{**dict.fromkeys(SOURCES), **facts["command"], "seed": facts["arguments"]["seed"]})
    model, loader, _ = _sources(again, shuffle=True)
    held = _split(again, again.val_split, loader)
    more = {} if held is None else {"val_loader": held}
    found = replay(folder, model, loader, out=options.out, tolerance=options.tolerance, device=options.device, **more)
    print(found.table())
    return 0 if found.same or found.close else 1


def _split(options: Any, split: str | None, like: Any) -> Any:
    """The loader of another split of the data, which has the classes of the one given; None where none is named."""
    if split is None:
        return None
    found = _loader(options, split, strict=True)
    check_same_classes(like, found, split)
    return found


def _loader(options: Any, split: str, *, data: str | None = None, shuffle: bool = False, strict: bool = False) -> Any:
    """A loader of the data, or of other data, made alike."""
    elsewhere = data is not None and Path(data).exists()
    return loader_of(
        options.data if data is None else data,
        split=split,
        folder=None if elsewhere else options.data_dir,
        side=options.size,
        channels=options.channels,
        batch=options.batch_size,
        workers=options.workers,
        shuffle=shuffle,
        strict=strict,
        settings=options.data_args,
    )


def run_estimate(options: Any) -> int:
    """Say what hardening would take."""
    model, loader, settings = _sources(options, shuffle=True)
    found = estimate(
        model,
        loader,
        devices=options.devices,
        **_own(harden, settings),
        val_loader=_split(options, options.val_split, loader),
    )
    print(found.table())
    return 0


def run_pretrain(options: Any) -> int:
    """Train on pretext tasks, and keep the weights in --out."""
    _needs_out(options, "the pre-trained model")
    model, loader, settings = _sources(options, shuffle=True)
    pretrain(model, loader, **_own(pretrain, settings), notes={"command": _command(options)})
    print(
        f"pre-trained: {Path(options.out) / 'model.safetensors'}; next: robusttune harden --checkpoint {options.out} …"
    )
    return 0


def run_evaluate(options: Any) -> int:
    """Measure, and print the table."""
    model, loader, settings = _sources(options, shuffle=False)
    which = [_evaluation(each) for each in _listed(options.which)]
    records = evaluate(model, loader, which, **_own(evaluate, settings))
    print(records.table())
    return 0


def _evaluation(wanted: Any) -> Any:
    """A name, or one with settings, {name: {setting: value}}."""
    if not isinstance(wanted, Mapping):
        return wanted
    ((name, settings),) = wanted.items() if len(wanted) == 1 else [(None, 0)]
    if not isinstance(name, str) or not isinstance(settings, Mapping | None):
        raise ValueError(f"which={wanted!r}, but names are needed, or {{name: {{setting: value}}}} for each")
    return plugins.configured("evaluations", name, **_read(settings or {}))


def _read(given: Any) -> Any:
    """Settings with fractions as numbers, however deep they are within, and numbers of no kind of their own."""
    if isinstance(given, Number):
        return float(given)
    if isinstance(given, Mapping):
        return {key: numbers(value) if isinstance(value, str) else _read(value) for key, value in given.items()}
    return [_read(each) for each in numbers(given)] if isinstance(given, list) else given


def run_poc(options: Any) -> int:
    """The trial from its start to its page, or its plan alone."""
    start = Path(options.out) / START
    if options.resume and options.checkpoint is None and start.exists():
        options.checkpoint = str(start)
    model, loader, settings = _sources(options, shuffle=True)
    asked = {name: _listed(getattr(options, name)) for name in ("threats", "corruptions", "arms", "evaluation")}
    if asked["threats"] is not None:
        asked["threats"] = _threats(asked["threats"])
    more = None
    if options.unlabeled is not None:
        more = _loader(options, options.unlabeled_split, data=options.unlabeled, shuffle=True)
    test = _split(options, options.test_split, loader)
    path = poc(
        model,
        loader,
        **{name: value for name, value in asked.items() if value is not None},
        test_loader=test,
        unlabeled_loader=more,
        notes={"command": _command(options)},
        **_own(poc, settings),
    )
    if options.plan_only:
        cost = TrialPlan.read(path.parent).estimated
        print(f"plan: {path}" + ("" if cost is None else f", {cost['in all']}"))
        print(f"next: edit it if you like, then robusttune poc … --out {options.out} --resume true")
        return 0
    found = decide.decide(Trial.load(options.out))
    print(f"{found.verdict.value}. {found.reason}\npage: {path.with_suffix('.html')}")
    return 0


def _listed(given: Any) -> Any:
    """What was asked for as a list, which a file of options may leave out around a single entry; None as it is."""
    return None if given is None else _read(given if isinstance(given, list) else [given])


def _threats(given: list[Any]) -> dict[str, Any]:
    """Radii by norm; None for the customary one."""
    found: dict[str, Any] = {}
    for each in given:
        found |= dict(each) if isinstance(each, Mapping) else {str(each): None}
    return found


def run_report(options: Any) -> int:
    """Write the page, and print its path."""
    page = report(dict(_named(each) for each in options.records), options.out)
    print(page.with_suffix(".html"))
    return 0


def run_compare(options: Any) -> int:
    """Print the tests of two models."""
    print(compare(_named(options.first)[1], _named(options.second)[1]).table())
    return 0


def run_doctor(options: Any) -> int:
    """Print the state of the installation: 1 if something is wrong."""
    text, wrong = doctor()
    print(text)
    return 1 if wrong else 0


def _named(given: str) -> tuple[str, Records]:
    """Records and what to call them: NAME=PATH, or the name of the folder; a folder stands for its records.jsonl."""
    name, equals, path = given.partition("=")
    where = Path(path if equals else given)
    where = where / FILE if where.is_dir() else where
    if not where.exists():
        raise ValueError(f"{str(where)!r} is not there: pass what evaluate wrote to its --out")
    return name if equals else where.parent.name or "model", Records.load(where)


def _needs_out(options: Any, what: str) -> None:
    if not options.out:
        raise ValueError(f"--out is missing: {what} would be lost")


def _own(function: Callable[..., Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    known = options_of(function)
    return {key: value for key, value in settings.items() if key in known}
