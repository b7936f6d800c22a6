"""Times contenders in turns, each in a process of its own, so that no one's threads or caches serve another.

A benchmark names its contenders, `{name: build}`, where `build(**config)` gives a function that does the work once and
returns numbers to be shown beside the seconds, or None. Each round asks every contender once, in an order that moves on
by one; what is compared are the ratios within a round.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "kornia",
    "torchattacks",
    "foolbox",
    "adversarial-robustness-toolbox",
    "adv-lib",
)


def arguments(description: str) -> argparse.Namespace:
    """The command line that all of these benchmarks share."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--serve", nargs=2, metavar=("NAME", "CONFIG"), help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", help="configurations that contain one of these words")
    parser.add_argument("--out", type=Path, help="a .json file; the tables go beside it as .md")
    return parser.parse_args()


def main(
    description: str,
    contenders: Mapping[str, Callable[..., Callable[[], Any]]],
    configs: Sequence[tuple[str, dict[str, Any], Sequence[str]]],
    reference: str,
) -> None:
    """Serve as a contender if asked to; else compare them in every configuration, print tables, write them."""
    options = arguments(description)
    if options.serve:
        serve(contenders[options.serve[0]], json.loads(options.serve[1]), options.threads)
        return
    text, found = [description.strip(), "", machine(options), ""], []
    for title, config, names in configs:
        if options.only and not any(word in title for word in options.only):
            continue
        rows = compared(names, {**config, "device": options.device}, options)
        found.append({"title": title, "config": config, "rows": rows})
        text += [f"**{title}**", "", *table(rows, reference), ""]
        print("\n".join(text[-len(rows) - 6 :]), flush=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        command = " ".join(["python", "tests/benchmarks/" + Path(sys.argv[0]).name, *sys.argv[1:]])
        options.out.with_suffix(".md").write_text("\n".join([*text, f"`{command}`"]) + "\n")
        options.out.write_text(json.dumps({"machine": machine(options), "found": found}, indent=1) + "\n")


def serve(build: Callable[..., Callable[[], Any]], config: dict[str, Any], threads: int) -> None:
    """Do the work once for each line that comes in, and answer with its seconds."""
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print
    import torch

    torch.set_num_threads(threads)
    try:
        work = build(**config)
        work()
    except ImportError as error:
        print(json.dumps({"failed": str(error)}), file=answers, flush=True)
        return
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for _ in sys.stdin:
        wait = torch.cuda.synchronize if config["device"] != "cpu" else lambda: None
        wait()
        began = time.perf_counter()
        facts = work()
        wait()
        print(json.dumps({"seconds": time.perf_counter() - began, **(facts or {})}), file=answers, flush=True)


class Contender:
    """A process that does one contender's work on demand."""

    def __init__(self, name: str, config: dict[str, Any], threads: int) -> None:
        command = [sys.executable, sys.argv[0], "--serve", name, json.dumps(config), "--threads", str(threads)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self.failed = self._answer().get("failed")

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(self.process.stderr.read()[-3000:])
        return json.loads(line)

    def ask(self) -> dict[str, Any]:
        """The seconds of doing it once, and what else it says."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def compared(names: Sequence[str], config: dict[str, Any], options: argparse.Namespace) -> list[dict[str, Any]]:
    """For each contender its answers, one a round."""
    running = {name: Contender(name, config, options.threads) for name in names}
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    try:
        able = [name for name in names if not running[name].failed]
        for turn in range(options.rounds):
            for name in able[turn % len(able) :] + able[: turn % len(able)]:
                answers[name].append(running[name].ask())
    finally:
        for contender in running.values():
            contender.stop()
    return [
        {"name": name, "failed": running[name].failed, "images": config["batch"], "answers": answers[name]}
        for name in names
    ]


def table(rows: Sequence[dict[str, Any]], reference: str) -> list[str]:
    """Markdown: images a second, and how many times as long as the reference each takes, median and spread."""
    base = next(row for row in rows if row["name"] == reference)["answers"]
    more = [key for key in next(row["answers"][0] for row in rows if row["answers"]) if key != "seconds"]
    lines = [
        "| " + " | ".join(["", "images/s", f"time against {reference}", *more]) + " |",
        "|---" * (3 + len(more)) + "|",
    ]
    for row in rows:
        if row["failed"]:
            lines.append(f"| {row['name']} | – | not here: {row['failed']} |" + " |" * len(more))
            continue
        seconds = [answer["seconds"] for answer in row["answers"]]
        ratios = [mine / theirs["seconds"] for mine, theirs in zip(seconds, base, strict=True)]
        shown = f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        rest = [f"{median(answer[key] for answer in row['answers']):.4g}" for key in more]
        lines.append("| " + " | ".join([row["name"], f"{row['images'] / median(seconds):.1f}", shown, *rest]) + " |")
    return lines


def machine(options: argparse.Namespace) -> str:
    """What it ran on, and with what."""
    import torch

    there = torch.cuda.get_device_name() if options.device != "cpu" else torch.backends.cpu.get_cpu_capability()
    there = f"{platform.machine()}, {there}"
    return f"{there}, {os.cpu_count()} cores, {options.threads} threads, {options.rounds} rounds; {versions()}"


def versions() -> str:
    """The versions of the packages that take part."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
