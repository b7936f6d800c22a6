"""All that one NVIDIA card can say of robusttune in a few minutes, the most useful first.

    python tests/benchmarks/gpu.py --minutes 9 --out FOLDER
    python tests/benchmarks/gpu.py --minutes 9 --out FOLDER --only recipe --data fashion-mnist

Each part runs in a process of its own, which is ended at its limit; time that a part leaves goes to the next one. Results are
in FOLDER/gpu.json and, as one page, in FOLDER/gpu.md, both written after each part; those of the part that runs are in
FOLDER/gpu-NAME.json, written after each row. With `--only`, the other parts of FOLDER/gpu.json are kept, with the machine and
the command that they are of. Nine minutes are too few for all seeds of `recipe` and for AutoAttack: give them a run alone.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import torch
from card import Scene, file_of
from card_facts import agreement, ceilings, corruptions, tests
from card_processes import processes
from card_runs import evaluations, memory, prefetch, recipe
from card_steps import share, steps
from harness import versions

GRACE = 6  # seconds of a part's limit that go to the start of its process
PARTS = {  # with the share of the minutes that each may take, beside what those before it leave
    "tests": (tests, 0.11),
    "agreement": (agreement, 0.03),
    "ceilings": (ceilings, 0.02),
    "steps": (steps, 0.36),
    "share": (share, 0.04),
    "processes": (processes, 0.10),
    "corruptions": (corruptions, 0.03),
    "evaluations": (evaluations, 0.10),
    "memory": (memory, 0.10),
    "recipe": (recipe, 0.25),
    "prefetch": (prefetch, 0.10),
}


def run(name, limit, options):
    """The results of a part in a process of its own, which is ended after so many seconds."""
    file = file_of(options.out, name)
    file.unlink(missing_ok=True)
    command = [
        sys.executable,
        __file__,
        "--part",
        name,
        "--seconds",
        f"{max(1.0, limit - GRACE)}",
        "--out",
        options.out,
    ]
    command += ["--device", options.device] + ["--tiny"] * options.tiny
    command += ["--data", options.data] if options.data else []
    began, environment = time.monotonic(), {**os.environ, "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        how = {"process_group": 0} if sys.version_info >= (3, 11) else {"start_new_session": True}
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, **how)
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # workers, too
            process.wait()
        log.seek(0)
        last = log.read().splitlines()[-12:]
    found = json.loads(file.read_text()) if file.exists() else {"rows": []}
    file.unlink(missing_ok=True)
    if status != 0:
        silent = [f"ended with status {status} and said nothing"]
        found["failed"] = [f"ended at its limit of {limit:.0f} s"] if status is None else last or silent
    return {**found, "seconds": time.monotonic() - began}


APART = ("rows", "seconds", "lines", "left out", "failed")


def shown(value):
    """A cell of a table."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return "" if value is None else str(value).replace("|", "/").replace("\n", " ")


def page(parts, about):
    """Markdown: the machine, then for each part a table, single facts, and what is missing."""
    lines = [about, ""]
    for name, found in parts.items():
        lines += [f"## {name}", "", f"{found['seconds']:.0f} s", ""]
        rows = found["rows"]
        keys = [key for row in rows for key in row if not isinstance(row[key], list) and key != "warm"]
        keys = list(dict.fromkeys(keys))
        if rows:
            lines += ["| " + " | ".join(keys) + " |", "|---" * len(keys) + "|"]
            lines += ["| " + " | ".join(shown(row.get(key)) for key in keys) + " |" for row in rows] + [""]
        facts = {key: found[key] for key in found if key not in APART}
        lines += [f"- {key}: {shown(value)}" for key, value in facts.items()]
        lines += [f"- left out: {what}" for what in found.get("left out", [])]
        for what, kept in (("failed", found.get("failed")), ("last lines", found.get("lines"))):
            lines += [f"- {what}:", "", "```", *kept[-12:], "```"] if kept else []
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def about(options):
    """The card, its driver, versions and the command."""
    driver = ""
    if options.device == "cuda":
        with suppress(OSError):
            asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
            driver = f", driver {subprocess.run(asked, capture_output=True, text=True).stdout.strip()}"
    there = torch.cuda.get_device_name() if options.device == "cuda" else "the CPU, tiny sizes"
    return (
        f"{there}{driver}, CUDA {torch.version.cuda}, {os.cpu_count()} cores; Python {sys.version.split()[0]}, {versions()}\n\n"
        f"`python tests/benchmarks/gpu.py {' '.join(sys.argv[1:])}`"
    )


def main():
    """Run the parts one after the other, and write what they found after each."""
    options = arguments()
    if options.part:
        scene = Scene(options)
        scene.found |= PARTS[options.part][0](scene)
        return scene.save()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(f"no NVIDIA card here that torch {torch.__version__} can use: run this on a machine with one")
    ends, names = time.monotonic() + 60 * options.minutes, options.only or list(PARTS)
    options.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the part that runs is ended, too
    kept = options.out / "gpu.json"
    parts = kept_parts(kept) if options.only else {}
    machine, whole, spare = about(options), sum(PARTS[name][1] for name in names), 0.0
    for name in names:
        limit = min(60 * options.minutes * PARTS[name][1] / whole + spare, ends - time.monotonic() - 2)
        parts[name] = {"rows": [], "seconds": 0.0, "failed": ["no time was left"]}
        if limit > GRACE:
            parts[name] = run(name, limit, options)
        spare = limit - parts[name]["seconds"]
        took = f"{parts[name]['seconds']:.0f} of {limit:.0f} s"
        print(f"{name}: {len(parts[name]['rows'])} rows, {took}, {parts[name].get('failed', ['done'])[-1]}", flush=True)
        kept.write_text(json.dumps({"about": machine, "parts": parts}, indent=1) + "\n")
        (options.out / "gpu.md").write_text(page(parts, machine))


def kept_parts(file):
    """The parts of an earlier run, each with the machine and the command that it is of."""
    earlier = json.loads(file.read_text()) if file.exists() else {"about": "", "parts": {}}
    for found in earlier["parts"].values():
        found.setdefault("of an earlier run", earlier["about"])
    return earlier["parts"]


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--out", type=Path, required=True, help="a folder for gpu.json and gpu.md")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="run these parts alone")
    parser.add_argument("--data", type=Path, help="the folder of Fashion-MNIST's files, if not Debian's")
    for hidden, settings in {
        "--part": {"choices": PARTS},
        "--seconds": {"type": float, "default": 600.0},
        "--device": {"default": "cuda"},
        "--tiny": {"action": "store_true"},
    }.items():
        parser.add_argument(hidden, help=argparse.SUPPRESS, **settings)
    return parser.parse_args()


if __name__ == "__main__":
    main()
