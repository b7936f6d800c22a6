"""How near `estimate` comes to the memory that `harden` then takes on a processor.

    python tests/benchmarks/memory.py --out docs/benchmarks/memory.json

For each model and setting: a few batches of `harden` in a process of its own, its peak of resident memory above what the
process had before there was a model, and the estimate. Rows that are there already are not run again, but for those whose
words contain the text of `--again`, such as `--again bf16`.
"""

import argparse
import json
import platform
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from resident_peak import BATCHES, in_a_fresh_process

NEAR = 0.15
JOINT = {"tasks": {"rotation": 0.5, "jigsaw": 0.5}}
PLAIN = {"tasks": None}
CASES = [
    {"model": "resnet50", "side": 224, "batch": 4, **PLAIN},
    {"model": "vit_small_patch16_224", "side": 224, "batch": 4, **PLAIN},
    {"model": "test_resnet", "side": 32, "batch": 128, **PLAIN},
    {"model": "convnext_tiny", "side": 64, "batch": 8, **PLAIN},
    {"model": "mobilenetv3_small_100", "side": 64, "batch": 32, **PLAIN},
    {"model": "resnet50", "side": 224, "batch": 4, **JOINT, "precision": "bf16"},
    {"model": "vit_small_patch16_224", "side": 224, "batch": 4, **JOINT, "precision": "bf16"},
    {"model": "test_vit", "side": 32, "batch": 128, **PLAIN},
    {"model": "vit_small_patch16_224", "side": 224, "batch": 4, **PLAIN, "precision": "bf16"},
    {"model": "resnet50", "side": 224, "batch": 12, **PLAIN},
    {"model": "resnet50", "side": 224, "batch": 12, **PLAIN, "micro_batch": 4},
]


def main() -> None:
    """Run what is missing, save after each row, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--again", metavar="TEXT", help="run the rows with this text again")
    asked = parser.parse_args()
    out, again = asked.out, asked.again
    known = json.loads(out.read_text())["rows"] if out.exists() else []
    done = {json.dumps(row["case"]): row for row in known}
    for case in CASES:
        if json.dumps(case) not in done or (again and again in " ".join(words(case))):
            done[json.dumps(case)] = {"case": case, **in_a_fresh_process(case)}
            print(done[json.dumps(case)], flush=True)
            out.write_text(json.dumps({"setting": setting(), "rows": [*done.values()]}, indent=1) + "\n")
    text = table([*done.values()], out)
    print(text)
    out.with_suffix(".md").write_text(text + "\n")


def words(case: dict) -> tuple[str, str]:
    """The size of a case, and its settings in words."""
    settings = {key: value for key, value in case.items() if key not in ("model", "side", "batch", "tasks")}
    tasks = "no tasks" if case["tasks"] is None else " and ".join(case["tasks"])
    named = [f"{value} unlabeled images" if key == "unlabeled" else f"{key} {value}" for key, value in settings.items()]
    return f"{case['model']}, {case['side']} px, batch {case['batch']}", ", ".join([tasks, *named])


def table(rows: list[dict], out: Path) -> str:
    """Markdown: the peak, the estimate and their ratio."""
    lines = [setting(), "", "| model, image, batch | setting | peak of `harden` | `estimate` says | estimate / peak |"]
    lines.append("|---|---|---|---|---|")
    ratios = [row["said"] / row["real"] for row in rows]
    for row, ratio in zip(rows, ratios, strict=True):
        sizes = [f"{row[key] / 2**20:,.0f} MiB" for key in ("real", "said")]
        lines.append("| " + " | ".join([*words(row["case"]), *sizes, f"{ratio:.2f}"]) + " |")
    near = sum(abs(ratio - 1) <= NEAR for ratio in ratios)
    return "\n".join(
        [
            *lines,
            "",
            f"{near} of {len(rows)} are within {NEAR:.0%}; the ratios go from {min(ratios):.2f} to {max(ratios):.2f}.",
            "",
            f"`python tests/benchmarks/memory.py --out {out}`",
        ]
    )


def setting() -> str:
    """What was run, in a line."""
    return (
        f"{BATCHES} batches of photographs, default preset, linf eps 4/255; resident memory above that of the process before "
        f"there was a model, after a run of a small model; one thread, {platform.machine()}, torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
