"""The command line: `robusttune harden | estimate | evaluate | pretrain | report | compare | poc | replay | doctor`."""

import re
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Sequence
from typing import Any

from robusttune import plugins
from robusttune.cli import commands
from robusttune.cli.errors import UNREADABLE, in_options, mistake
from robusttune.cli.options import LISTS, Command, parser
from robusttune.measuring.evaluate import evaluate
from robusttune.training.harden import harden
from robusttune.training.pretrain import pretrain
from robusttune.trial.poc import poc

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
POC = """
Examples:
  robusttune poc --model timm:resnet18 --checkpoint model.pth --data images --plan-only true --out runs/poc
  robusttune poc --model timm:resnet18 --data images --out runs/poc --resume true     # after the plan; goes on if killed
  robusttune poc --model timm:resnet18 --data images --threats '{linf: 4/255, l2: 1}' --corruptions noise fog --budget 3600
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command: 0 if all went well, 1 on an error, 2 for arguments that do not fit, 130 after Ctrl-C."""
    warnings.formatwarning = lambda message, *rest, **more: f"robusttune: warning: {message}\n"
    given = [_plain(each) for each in (sys.argv[1:] if arguments is None else arguments)]
    debug = "--debug" in given
    given = _gathered([each for each in given if each != "--debug"])
    try:
        options = _parsed(given)
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
        said = " ".join(in_options(str(error), commands.TAKEN).split()) or type(error).__name__
        print(f"robusttune: error: {said} (--debug shows where)", file=sys.stderr)
        return 1


def _parsed(given: list[str]) -> Any:
    try:
        return parser(COMMANDS).parse_args(given)
    except UnicodeDecodeError as error:
        raise ArgumentError(None, f"{UNREADABLE} it is no UTF-8 text, in which it must be saved ({error})") from error


def _plain(argument: str) -> str:
    """--batch-size is --batch_size, too."""
    return re.sub(r"^--[\w-]+", lambda name: "--" + name[0][2:].replace("-", "_"), argument)


def _gathered(arguments: list[str]) -> list[str]:
    """The values that follow an option which takes several as one list, as files of options have them.

    Example:
        >>> _gathered(["poc", "--arms", "joint", "none", "--resume", "true"])
        ['poc', '--arms', '[joint, none]', '--resume', 'true']
    """
    found: list[str] = []
    several: list[str] | None = None
    for each in [*arguments, "--"]:
        if each.startswith("--") and several is not None:
            found += several if len(several) == 1 else [f"[{', '.join(several)}]"] * bool(several)
            several = None
        if several is None:
            found.append(each)
            several = [] if each.removeprefix("--") in LISTS and each.startswith("--") else None
        else:
            several.append(each)
    return found[:-1]


def _which(own: Any) -> None:
    said = "evaluations by name, or {name: {setting: value}}"
    own.add_argument("--which", type=Any, default=["clean", "sweep"], help=said)


def _val_split(own: Any) -> None:
    own.add_argument("--val_split", type=str | None, help="a split to judge epochs on; else 5 percent are held back")


def _priced(own: Any) -> None:
    _val_split(own)
    own.add_argument("--devices", type=dict | None, help="a price an hour by name, as {spot: 0.9, own: 0.4}")


def _trial(own: Any) -> None:
    lists = {
        "threats": "norms, or {norm: eps}, linf and l2 unless given; arms train against the first one",
        "corruptions": "that matter, by name or by family; noise, blur, weather and digital unless given",
        "arms": f"by name, or {{name: phases}}; all unless given (files: {', '.join(plugins.names('trial.arms'))})",
        "evaluation": "what to measure instead, by name or {name: {setting: value}}",
    }
    for name, said in lists.items():
        own.add_argument(f"--{name}", type=Any, help=said)
    own.add_argument("--test_split", type=str | None, help="a split to measure on; else a fifth is kept for that")
    own.add_argument("--unlabeled", type=str | None, help="more images, for pretext tasks: as --data")
    own.add_argument("--unlabeled_split", default="train", help="of these")


def _runs(own: Any) -> None:
    own.add_argument(
        "records", nargs="+", help="folders that evaluate wrote to, or their records.jsonl; NAME=PATH names them"
    )
    own.add_argument("--out", default="report", help="folder for report.md and report.html")


def _two(own: Any) -> None:
    own.add_argument("first", help="a folder that evaluate wrote to, or its records.jsonl")
    own.add_argument("second", help="another, of the same images")


def _repeated(own: Any) -> None:
    own.add_argument("run", help="the folder of a run of harden or pretrain")
    own.add_argument("--out", type=str | None, help="a folder for the repetition; else it is removed again")
    own.add_argument("--tolerance", type=float, default=0.02, help="the largest difference in the log that is close")
    own.add_argument("--device", type=str | None, help="where to work; as the run did unless given")


def _nothing(own: Any) -> None:
    """No more options."""


COMMANDS = {
    "harden": Command("Train a model against an adversary.\n" + HARDEN, harden, _val_split, commands.run_harden),
    "estimate": Command(
        "Say what harden would take with these options, and train nothing.", harden, _priced, commands.run_estimate
    ),
    "evaluate": Command(
        "Measure how robust a model is.\n" + EVALUATE, evaluate, _which, commands.run_evaluate, "validation"
    ),
    "pretrain": Command(
        "Train a backbone on pretext tasks, without labels.", pretrain, _nothing, commands.run_pretrain
    ),
    "report": Command("Show what was measured as a page.", None, _runs, commands.run_report),
    "compare": Command("Test two models on the images that both have seen.", None, _two, commands.run_compare),
    "poc": Command(
        "Try on your data which training pays: a plan, arms, a page.\n" + POC, poc, _trial, commands.run_poc
    ),
    "replay": Command(
        "Repeat a run from its folder, and compare: 0 if it agrees.", None, _repeated, commands.run_replay
    ),
    "doctor": Command(
        "Check the installation, and print what a bug report needs.", None, _nothing, commands.run_doctor
    ),
}
