"""Writes the tables of docs/runtimes.md from the records of our measurements: `python docs/write_runtimes.py`."""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean, median
from typing import Any

DOCS = Path(__file__).parent
PAGE = DOCS / "runtimes.md"
PLACE = re.compile(r"(<!-- runtimes: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
# What the search for the default called the arms that are presets now, by the end of their names.
PRESETS = {"pgd-2 at 1.25 eps late": "standard", "pgd-10 32, gradients clipped at 1, at 1.25 eps late": "thorough"}
OTHER_LIMIT = "clipped at 5"  # in arms with the limit of a range test, which ran beside other programs
NETS = {
    "cnn-linf": ("test_resnet (0.4 million parameters)", 32, 1),
    "mobile-linf": ("mobilenetv3_small_050", 32, 1),
    "vit-linf": ("test_vit", 32, 1),
    "photographs-linf": ("test_resnet", 32, 3),
    "imagenet-linf": ("tf_efficientnet_lite0", 96, 3),
}
UPDATE = 32  # images of a step in these presets
EPOCHS, IMAGES = 10, 50_000  # of the run whose length is computed


def read(name: str) -> Any:
    """A record of a benchmark."""
    return json.loads((DOCS / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))


def lines_of(study: str) -> list[dict[str, Any]]:
    """The records of a study."""
    return [json.loads(line) for line in (DOCS / "studies" / f"{study}.jsonl").read_text(encoding="utf-8").splitlines()]


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """A table of Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def duration(seconds: float) -> str:
    """Seconds in the unit that one reads at once."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def presets() -> str:
    """What an epoch of 10,000 images takes on one core, by model and preset."""
    rows = []
    for setting, (net, side, channels) in NETS.items():
        for end, preset in PRESETS.items():
            runs = [
                line
                for line in lines_of("search")
                if "seconds" in line and line["run"]["setting"] == setting and line["run"]["arm"].endswith(end)
                if OTHER_LIMIT not in line["run"]["arm"]
            ]
            if runs:
                each = [line["seconds"] / (line["steps"] * UPDATE) for line in runs]
                spread = f" ({duration(1e4 * min(each))} to {duration(1e4 * max(each))})" if len(each) > 1 else ""
                size = f"{channels}×{side}×{side}"
                rows.append([net, size, f'"{preset}"', f"{duration(1e4 * mean(each))}{spread}", str(len(each))])
    return table(["model", "image", "preset", "10,000 images, one epoch", "runs"], rows)


def accuracies() -> str:
    """What longer runs give: seconds and accuracy."""
    rows = []
    for file, net in (("time-resnet-linf", "test_resnet, linf 0.1"), ("time-vit-linf", "test_vit, linf 0.1")):
        found = read(file)["rows"]
        for arm in ("fast:2", "fast:4", "fast:8", "fast:16", "pgd:4"):
            mine = [row for row in found if row["arm"] == arm]
            if mine:
                means = {name: mean(row[name] for row in mine) for name in ("seconds", "clean", "robust")}
                name, epochs = arm.split(":")
                recipe = {"fast": '`preset="fast"`', "pgd": "PGD-10"}[name]
                shares = [f"{means[part]:.1%}" for part in ("clean", "robust")]
                rows.append([net, f"{recipe}, {epochs} epochs", duration(means["seconds"]), *shares, str(len(mine))])
    return table(["model", "run", "time", "clean", "robust (`strong`)", "seeds"], rows)


def steps() -> str:
    """Images a second of PGD-10 on two cores, and how long a run would take."""
    rows = []
    for part in read("steps")["found"]:
        if "peers" not in part["title"]:
            continue
        for row in part["rows"]:
            if row["name"].startswith("robusttune") and not row["failed"]:
                rate = row["images"] / median(answer["seconds"] for answer in row["answers"] if "seconds" in answer)
                rows.append([part["title"].removesuffix(": peers"), row["name"], f"{rate:.0f}", _run(rate)])
    return table(["model, image, batch", "", "images/s", RUN], rows)


RUN = f"{EPOCHS} epochs of {IMAGES:,} images (computed)"


def _run(rate: float) -> str:
    return duration(EPOCHS * IMAGES / rate)


def evaluations() -> str:
    """Seconds of evaluations of 1,000 images."""
    rows = []
    for norm in ("linf", "l2"):
        facts = read(f"strong-{norm}")["facts"]
        for name, spent in facts["evaluations"].items():
            forward = f"{spent['images forward']:,}"
            rows.append([f"`{name}`", norm, "one core", duration(spent["seconds"]), forward])
    gpu = read("gpu")["parts"]["evaluations"]["rows"]
    rows += [[f"`{row['evaluation']}`", "linf", "H100", duration(row["seconds"]), ""] for row in gpu]
    return table(["evaluation", "norm", "on", "1,000 images", "images through the model"], rows)


GPU_ROWS = {
    "robusttune, channels_last": "float32 with TF32",
    "robusttune, channels_last, no TF32": "float32 without TF32",
    "robusttune, channels_last, bf16": '`precision="bf16"`',
    "robusttune, channels_last, bf16, folded": "bf16, `tune` folds batch norms",
    "robusttune, channels_last, bf16, CUDA graphs": "bf16, CUDA graphs",
    "robusttune, channels_last, bf16, folded, CUDA graphs": "bf16, folded and CUDA graphs",
    "robusttune, channels_last, bf16, compiled": "bf16, `compile=True`",
    "robusttune": "float32 with TF32, without channels_last",
}


def gpu() -> str:
    """A PGD-10 step on the H100, by setting."""
    found = {(row["size"], row["name"]): row for row in reversed(read("gpu")["parts"]["steps"]["rows"])}
    sizes = list(dict.fromkeys(size for size, _ in reversed(list(found))))
    rows = [
        [
            size,
            words,
            f"{row['ms']:.0f}",
            f"{row['images/s']:,.0f}",
            _run(row["images/s"]),
            f"{row['first call s']:.1f} s",
        ]
        for size in sizes
        for name, words in GPU_ROWS.items()
        if (row := found.get((size, name)))
    ]
    return table(["model, image, batch", "setting", "ms a step", "images/s", RUN, "first call"], rows)


def memory() -> str:
    """Peak memory of three steps on the H100, and what `estimate` says."""
    rows = [
        [row["size"], row["precision"], f"{row['harden, MiB']:,.0f} MiB", f"{row['estimate, MiB']:,.0f} MiB"]
        for row in read("gpu")["parts"]["memory"]["rows"]
    ]
    return table(["model, image, batch", "precision", "peak of `harden`", "`estimate` says"], rows)


def processor_memory() -> str:
    """Peak memory of short runs on a processor, and what `estimate` says."""
    rows = []
    for row in read("memory")["rows"]:
        settings = {key: value for key, value in row["case"].items() if key not in ("model", "side", "batch", "tasks")}
        words = [", ".join(row["case"]["tasks"] or ["no tasks"])]
        words += [
            f"{value} unlabeled" if key == "unlabeled" else f"`{key}={value!r}`" for key, value in settings.items()
        ]
        size = f"{row['case']['model']}, {row['case']['side']} px, batch {row['case']['batch']}"
        sizes = [f"{row[key] / 2**20:,.0f} MiB" for key in ("real", "said")]
        rows.append([size, ", ".join(words), *sizes, f"{row['said'] / row['real']:.2f}"])
    return table(["model, image, batch", "setting", "peak of `harden`", "`estimate` says", "ratio"], rows)


def estimates() -> str:
    """How near `estimate` comes on a processor."""
    found = read("estimate")["rows"]
    ratios = [row["predicted"] / row["real"] for row in found]
    return f"Predicted divided by real, of {len(ratios)} runs on one core: {min(ratios):.2f} to {max(ratios):.2f}."


def card() -> str:
    """What was measured on the GPU, and what did not end."""
    found = read("gpu")
    tests, parts = found["parts"]["tests"]["rows"][0], found["parts"]
    unfinished = [name for name, part in parts.items() if "failed" in part and name != "tests"]
    about, _, command = found["about"].partition("\n\n")
    machine, _, software = about.partition("; ")
    rows = [
        ["machine", machine],
        ["software", software],
        ["command", command],
        ["measured", ", ".join(name for name in parts if name not in ("tests", *unfinished))],
        ["stopped at their time limit", ", ".join(unfinished) or "none"],
        ["tests that need a GPU", f"{tests['passed']} passed, {tests['failed']} failed"],
    ]
    return table(["", ""], rows)


TABLES: dict[str, Callable[[], str]] = {
    each.__name__: each
    for each in (presets, accuracies, steps, evaluations, gpu, memory, processor_memory, estimates, card)
}


def written(page: str) -> str:
    """The page with new tables."""
    return PLACE.sub(lambda place: f"{place[1]}\n{TABLES[place[2]]()}\n\n{place[3]}", page)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
