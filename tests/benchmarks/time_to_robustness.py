"""How much sooner `preset="fast"` is as robust as training with PGD-10, on the same machine.

    python tests/benchmarks/time_to_robustness.py --model test_resnet --norm linf --lr 0.2 --out docs/benchmarks/time-resnet-linf.json

For each seed a model is trained ordinarily, then hardened from there in several ways, each named with its epochs: `pgd`
(PGD-10 at `--lr`, the fast recipe's own learning rate), `customary` (PGD-10 as `harden` does it unless told otherwise) and
`fast`; `pgd-bf16` and `fast-bf16` compute in that format, which some processors are fast at. Arms of several lengths make
the curve of accuracy against time, which is drawn. On one thread; seconds are of the processor, as other work on the machine
does not touch these, and count all of `harden`, judging included. Robust accuracy is that of `strong` with `--targets`
classes (100 steps; docs/attack-strength.md compares it with AutoAttack), on images that training has not seen. `--autoattack SEEDS`
asks the standard AutoAttack, too, for so many seeds: it takes many times as long, and goes on where it was interrupted when
the models are kept (`--keep FOLDER`). Rows that are there already are not run again.
"""

import argparse
import copy
import json
import platform
import sys
import time
from functools import partial
from pathlib import Path
from statistics import mean

import torch
from matplotlib.figure import Figure
from safetensors.torch import load_model, save_model

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from compare import EPS
from images import SIDE, loaders, shape_and_classes
from ordinary import new_model, train

import robusttune
from robusttune.evaluations.strong import strong


def main() -> None:
    """Train, measure, print the table, save the numbers after each row."""
    options = arguments()
    torch.set_num_threads(1)
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    training, testing = loaders("fashion-mnist", train=options.train, test=options.test)
    for seed in range(options.seeds):
        known = {row["arm"]: row for row in rows if row["seed"] == seed}
        attacked = seed < options.autoattack
        left = [arm for arm in options.arms if arm not in known or (attacked and "autoattack" not in known[arm])]
        if not left:
            continue
        start = started(seed, training, options)
        for arm in left:
            if arm not in known:
                known[arm] = {"seed": seed, "arm": arm, **run(arm, seed, start, training, testing, options)}
                rows.append(known[arm])
                save(rows, options, known[arm])
            if attacked:
                model = hardened(arm, seed, start, training, options)[0]
                known[arm]["autoattack"] = judged(model, "autoattack", testing, options, name=f"{arm}-{seed}")
                save(rows, options, known[arm])
    text = table(rows, options)
    print(text)
    options.out.with_suffix(".md").write_text(f"{text}\n\n![curve]({options.out.stem}.png)\n")
    drawn(rows, options)


def save(rows: list[dict], options: argparse.Namespace, new: dict) -> None:
    """Write all rows, and tell of the one that is new, or newly judged."""
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"setting": setting(options), "rows": rows}, indent=1) + "\n")
    print(new, flush=True)


def started(seed: int, training, options: argparse.Namespace):
    """The model that all arms of a seed start from, ordinarily trained."""
    torch.manual_seed(seed)
    start = new_model(options.model, *shape_and_classes(training), SIDE)
    kept = options.keep and options.keep / f"{options.model}-{seed}.safetensors"
    if kept and kept.exists():
        load_model(start, kept)
        return start
    train(start, training, options.ordinary_epochs, progress=False)
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_model(start, kept)
    return start


def hardened(arm: str, seed: int, start, training, options: argparse.Namespace):
    """The arm's model, and the seconds that hardening took: None where the model was kept."""
    model, norm, eps = copy.deepcopy(start), options.norm, EPS[options.norm]
    kept = options.keep and options.keep / f"{options.model}-{norm}-{arm.replace(':', '-')}-{seed}.safetensors"
    if kept and kept.exists():
        load_model(model, kept)
        return model.eval(), None
    pgd = {"preset": "joint", "tasks": None, "attack": "pgd", "steps": 10}
    kinds = {"pgd": {**pgd, "lr": options.lr}, "customary": pgd, "fast": {"preset": "fast"}}
    kinds |= {f"{kind}-bf16": {**kinds[kind], "precision": "bf16"} for kind in ("pgd", "fast")}
    began = time.process_time()
    robusttune.harden(
        model, training, norm=norm, eps=eps, seed=seed, epochs=epochs_of(arm), progress=False, **kinds[kind_of(arm)]
    )
    seconds = time.process_time() - began
    if kept:
        save_model(model, kept)
    return model, seconds


def run(arm: str, seed: int, start, training, testing, options: argparse.Namespace) -> dict:
    """Seconds of hardening, clean and robust accuracy, for one arm and seed."""
    model, seconds = hardened(arm, seed, start, training, options)
    if seconds is None:
        raise SystemExit(f"{options.keep} holds a model of {arm}, seed {seed}, whose seconds are not in {options.out}")
    records = robusttune.evaluate(model, testing, "clean", progress=False)
    robust = judged(model, partial(strong, targets=options.targets), testing, options)
    return {"seconds": seconds, "clean": records.where("clean")[0].value, "robust": robust, "images": records[0].images}


def judged(model, judge, testing, options: argparse.Namespace, *, name: str | None = None) -> float:
    """The robust accuracy, kept under a name where models are kept."""
    out = options.keep / f"{options.model}-{options.norm}-{name.replace(':', '-')}" if options.keep and name else None
    threat = {"norm": options.norm, "eps": EPS[options.norm]}
    found = robusttune.evaluate(model, testing, judge, **threat, out=out, resume=bool(out), progress=False)
    return found[-1].value


def table(rows: list[dict], options: argparse.Namespace) -> str:
    """Markdown: for each arm the means over seeds, smallest and largest beside the robust accuracy."""
    lines = [
        setting(options),
        "",
        f"| arm, epochs | seeds | seconds | share of {options.arms[0]} | clean | robust | robust, against {options.arms[0]} |",
        "|---|---|---|---|---|---|---|",
    ]
    suite = any("autoattack" in row for row in rows)
    if suite:
        lines[-2] += f" AutoAttack | AutoAttack, against {options.arms[0]} |"
        lines[-1] += "---|---|"
    base = {row["seed"]: row for row in rows if row["arm"] == options.arms[0]}
    for arm in sorted(
        {row["arm"] for row in rows}, key=lambda arm: (arm != options.arms[0], kind_of(arm), epochs_of(arm))
    ):
        found = [row for row in rows if row["arm"] == arm]
        robust = [100 * row["robust"] for row in found]
        gains = [100 * (row["robust"] - base[row["seed"]]["robust"]) for row in found]
        cells = [
            arm.replace(":", ", "),
            str(len(found)),
            f"{mean(row['seconds'] for row in found):.0f}",
            f"{mean(row['seconds'] / base[row['seed']]['seconds'] for row in found):.2f}",
            f"{100 * mean(row['clean'] for row in found):.1f}%",
            f"{mean(robust):.1f}% ({min(robust):.1f}–{max(robust):.1f})",
            f"{mean(gains):+.1f} ({min(gains):+.1f} to {max(gains):+.1f})",
        ]
        lines.append("| " + " | ".join(cells + suite * under_autoattack(found, base)) + " |")
    return "\n".join(lines)


def kind_of(arm: str) -> str:
    """What it trains with."""
    return arm.split(":")[0]


def epochs_of(arm: str) -> int:
    """How long it trains."""
    return int(arm.split(":")[1])


def drawn(rows: list[dict], options: argparse.Namespace) -> None:
    """The curve of robust accuracy against seconds, one for each kind of arm, a dot for each run, as a picture."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    for kind in dict.fromkeys(kind_of(row["arm"]) for row in rows):
        lengths = sorted({epochs_of(row["arm"]) for row in rows if kind_of(row["arm"]) == kind})
        found = [[row for row in rows if row["arm"] == f"{kind}:{epochs}"] for epochs in lengths]
        seconds = [mean(row["seconds"] for row in each) for each in found]
        (line,) = axes.plot(seconds, [100 * mean(row["robust"] for row in each) for each in found], label=kind)
        dots = [row for each in found for row in each]
        axes.scatter(
            [row["seconds"] for row in dots], [100 * row["robust"] for row in dots], color=line.get_color(), s=14
        )
    axes.set(xlabel="seconds of one core", ylabel=f"robust accuracy, {options.norm}, %", xscale="log")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(options.out.with_suffix(".png"), dpi=110)


def under_autoattack(rows: list[dict], base: dict[int, dict]) -> list[str]:
    """An arm's cells about the standard AutoAttack, of the seeds that it has judged; both are empty where it has none."""
    found = [row for row in rows if "autoattack" in row and "autoattack" in base[row["seed"]]]
    if not found:
        return ["", ""]
    robust = [100 * row["autoattack"] for row in found]
    gains = [100 * (row["autoattack"] - base[row["seed"]]["autoattack"]) for row in found]
    seeds = f", {len(found)} seed{'s' * (len(found) > 1)}"
    return [
        f"{mean(robust):.1f}% ({min(robust):.1f}–{max(robust):.1f}){seeds}",
        f"{mean(gains):+.1f} ({min(gains):+.1f} to {max(gains):+.1f})",
    ]


def setting(options: argparse.Namespace) -> str:
    """What was run, in a line."""
    judge = f"strong with {options.targets} targets"
    return (
        f"{options.model}, Fashion-MNIST at {SIDE} px, {options.train} training and {options.test} test images, {options.norm} "
        f"eps {EPS[options.norm]:g}; `pgd` at learning rate {options.lr:g}; judged by {judge}; {platform.machine()}, "
        f"{torch.get_num_threads()} thread, torch {torch.__version__}"
    )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="test_resnet")
    parser.add_argument("--norm", default="linf", choices=sorted(EPS))
    parser.add_argument("--train", type=int, default=10_000)
    parser.add_argument("--test", type=int, default=1_000)
    parser.add_argument(
        "--arms", nargs="+", default=["pgd:4", "fast:4"], help="pgd, bf16, customary or fast, and epochs"
    )
    parser.add_argument("--lr", type=float, required=True, help="of the arm pgd")
    parser.add_argument("--targets", type=int, default=3, help="classes that strong aims at")
    parser.add_argument("--ordinary-epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--autoattack", type=int, default=0, metavar="SEEDS", help="for so many seeds")
    parser.add_argument("--keep", type=Path, help="a folder for the models")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
