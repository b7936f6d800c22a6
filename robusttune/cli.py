"""The command line: `robusttune harden | estimate | evaluate | pretrain | report | compare | replay | doctor`."""

import inspect
import re
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from robusttune import checkpoint, lookup
from robusttune.compare import compare
from robusttune.doctor import doctor
from robusttune.estimate import estimate
from robusttune.evaluate import FILE, evaluate
from robusttune.harden import harden
from robusttune.modes import own_randomness
from robusttune.options import OBJECTS, Command, mistake, parser
from robusttune.pretrain import pretrain
from robusttune.records import Records
from robusttune.replay import replay, told
from robusttune.report import report
from robusttune.sources import classes_of, loader_of, model_of, statistics_of

SOURCES = (
    "model",
    "checkpoint",
    "pretrained",
    "model_args",
    "classes",
    "data",
    "data_dir",
    "data_args",
    "split",
    "size",
    "channels",
    "batch_size",
    "workers",
    "val_split",
)
EVALUATE = """
Examples:
  robusttune evaluate --model timm:resnet18 --checkpoint runs/a --data images --norm l2 --eps 0.5 --out runs/a/evaluation
  robusttune evaluate --config evaluate.yaml --which clean sanity strong
"""
HARDEN = """
Examples:
  robusttune harden --model timm:resnet18 --pretrained true --data images --norm linf --eps 4/255 --out runs/a
  robusttune harden --config runs/a.yaml --resume true       # --print_config shows what such a file holds
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command: 0 if all went well, 1 on an error, 2 for arguments that do not fit, 130 after Ctrl-C."""
    warnings.formatwarning = lambda message, *rest, **more: f"robusttune: warning: {message}\n"
    given = [_plain(each) for each in (sys.argv[1:] if arguments is None else arguments)]
    debug = "--debug" in given
    given = [each for each in given if each != "--debug"]
    try:
        options = parser(COMMANDS).parse_args(given)
        return COMMANDS[options.subcommand].run(options[options.subcommand])
    except KeyboardInterrupt:
        print("robusttune: stopped; with --out, --resume true goes on", file=sys.stderr)
        return 130
    except ArgumentError as error:
        print(f"robusttune: error: {mistake(error, given, COMMANDS)}", file=sys.stderr)
        return 2
    except Exception as error:
        if debug:
            raise
        said = " ".join(str(error).split()) or type(error).__name__
        print(f"robusttune: error: {said} (--debug shows where)", file=sys.stderr)
        return 1


def _sources(options: Any, *, shuffle: bool) -> tuple[Any, Any, dict[str, Any]]:
    """The model, the loader, and what else the function is given."""
    loader = _loader(options, options.split, shuffle=shuffle)
    classes = options.classes if options.classes is not None else classes_of(loader)
    if classes is None and options.model.split(":")[0] in ("timm", "torchvision"):
        raise ValueError(f"{options.data} does not tell how many classes it has: pass --classes")
    with own_randomness(getattr(options, "seed", 0)):  # random weights are the same when the run is repeated
        model = model_of(
            options.model,
            classes=classes,
            channels=options.channels,
            weights=options.checkpoint,
            pretrained=options.pretrained,
            settings=options.model_args,
        )
    settings = {key: value for key, value in vars(options).items() if key in TAKEN}
    if "mean" in settings and settings["mean"] is None and settings["std"] is None:
        settings["mean"], settings["std"] = statistics_of(
            options.model, model, channels=options.channels, pretrained=options.pretrained
        )
    return model, loader, settings


def _harden(options: Any) -> int:
    _needs_out(options, "the hardened model")
    model, loader, settings = _sources(options, shuffle=True)
    with checkpoint.also_in_run({"command": _command(options)}):
        harden(model, loader, **_own(harden, settings), val_loader=_held(options))
    print(
        f"hardened: {Path(options.out) / 'model.safetensors'}; next: robusttune evaluate --checkpoint {options.out} …"
    )
    return 0


def _command(options: Any) -> dict[str, Any]:
    """Where model and images come from, which `run.json` could not say else."""
    return {name: getattr(options, name) for name in SOURCES if hasattr(options, name)}


def _replay(options: Any) -> int:
    folder = Path(options.run)
    facts = told(folder)
    if "command" not in facts:
        raise ValueError(
            f"the run in {str(folder)!r} was begun from Python, so nothing says where model and images come from: call "
            "robusttune.replay(folder, model, loader)"
        )
    again = SimpleNamespace(**{**dict.fromkeys(SOURCES), **facts["command"], "seed": facts["arguments"]["seed"]})
    model, loader, _ = _sources(again, shuffle=True)
    held = _held(again)
    more = {} if held is None else {"val_loader": held}
    found = replay(folder, model, loader, out=options.out, tolerance=options.tolerance, device=options.device, **more)
    print(found.table())
    return 0 if found.same or found.close else 1


def _repeated(own: Any) -> None:
    own.add_argument("run", help="the folder of a run of harden or pretrain")
    own.add_argument("--out", type=str | None, help="a folder for the repetition; else it is removed again")
    own.add_argument("--tolerance", type=float, default=0.02, help="the largest difference in the log that is close")
    own.add_argument("--device", type=str | None, help="where to work; as the run did unless given")


def _held(options: Any) -> Any:
    """The loader of the split to judge epochs on, where one is named."""
    return None if options.val_split is None else _loader(options, options.val_split)


def _loader(options: Any, split: str, *, shuffle: bool = False) -> Any:
    return loader_of(
        options.data,
        split=split,
        folder=options.data_dir,
        side=options.size,
        channels=options.channels,
        batch=options.batch_size,
        workers=options.workers,
        shuffle=shuffle,
        settings=options.data_args,
    )


def _estimate(options: Any) -> int:
    model, loader, settings = _sources(options, shuffle=True)
    found = estimate(model, loader, devices=options.devices, **_own(harden, settings), val_loader=_held(options))
    print(found.table())
    return 0


def _pretrain(options: Any) -> int:
    _needs_out(options, "the pre-trained model")
    model, loader, settings = _sources(options, shuffle=True)
    with checkpoint.also_in_run({"command": _command(options)}):
        pretrain(model, loader, **_own(pretrain, settings))
    print(
        f"pre-trained: {Path(options.out) / 'model.safetensors'}; next: robusttune harden --checkpoint {options.out} …"
    )
    return 0


def _evaluate(options: Any) -> int:
    model, loader, settings = _sources(options, shuffle=False)
    which = [_evaluation(each) for each in options.which]
    records = evaluate(model, loader, which, **_own(evaluate, settings))
    print(records.table())
    return 0


def _evaluation(wanted: Any) -> Any:
    """A name, or one with settings, {name: {setting: value}}."""
    if not isinstance(wanted, Mapping):
        return wanted
    ((name, settings),) = wanted.items()
    return partial(lookup.find("evaluations", name), **(settings or {}))


def _report(options: Any) -> int:
    page = report(dict(_named(each) for each in options.records), options.out)
    print(page.with_suffix(".html"))
    return 0


def _compare(options: Any) -> int:
    print(compare(_named(options.first)[1], _named(options.second)[1]).table())
    return 0


def _doctor(options: Any) -> int:
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
    if options.out is None:
        raise ValueError(f"--out is missing: {what} would be lost")


def _own(function: Callable[..., Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    known = inspect.signature(function).parameters
    return {key: value for key, value in settings.items() if key in known}


def _plain(argument: str) -> str:
    """--batch-size is --batch_size, too."""
    return re.sub(r"^--[\w-]+", lambda name: "--" + name[0][2:].replace("-", "_"), argument)


def _which(own: Any) -> None:
    own.add_argument(
        "--which",
        nargs="+",
        type=Any,
        default=["clean", "sweep"],
        help="evaluations by name, or {name: {setting: value}}",
    )


def _val_split(own: Any) -> None:
    own.add_argument("--val_split", type=str | None, help="a split to judge epochs on; else 5 percent are held back")


def _priced(own: Any) -> None:
    _val_split(own)
    own.add_argument("--devices", type=dict | None, help="a price an hour by name, as {spot: 0.9, own: 0.4}")


def _runs(own: Any) -> None:
    own.add_argument(
        "records", nargs="+", help="folders that evaluate wrote to, or their records.jsonl; NAME=PATH names them"
    )
    own.add_argument("--out", default="report", help="folder for report.md and report.html")


def _two(own: Any) -> None:
    own.add_argument("first", help="a folder that evaluate wrote to, or its records.jsonl")
    own.add_argument("second", help="another, of the same images")


def _nothing(own: Any) -> None:
    """No more options."""


COMMANDS = {
    "harden": Command("Train a model against an adversary.\n" + HARDEN, harden, _val_split, _harden),
    "estimate": Command(
        "Say what harden would take with these options, and train nothing.", harden, _priced, _estimate
    ),
    "evaluate": Command("Measure how robust a model is.\n" + EVALUATE, evaluate, _which, _evaluate, "validation"),
    "pretrain": Command("Train a backbone on pretext tasks, without labels.", pretrain, _nothing, _pretrain),
    "report": Command("Show what was measured as a page.", None, _runs, _report),
    "compare": Command("Test two models on the images that both have seen.", None, _two, _compare),
    "replay": Command("Repeat a run from its folder, and compare: 0 if it agrees.", None, _repeated, _replay),
    "doctor": Command("Check the installation, and print what a bug report needs.", None, _nothing, _doctor),
}
TAKEN = {name for function in (harden, evaluate, pretrain) for name in inspect.signature(function).parameters} - OBJECTS
