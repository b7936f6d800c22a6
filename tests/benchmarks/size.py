"""How cost grows with size: time against images, steps and epochs; peak memory against epochs; the import.

    python tests/benchmarks/size.py --out docs/benchmarks/size.json

Each run of `harden` is a process of its own (timm's test_resnet, 32 px, batch 64, one channel of noise), and its seconds are
of the processor, as other work on the machine does not touch these. A fit is a straight line by least squares, with the share
of the variance that it explains. Peak memory is what the process had at most beyond what it had before `harden`.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import textwrap
from pathlib import Path
from statistics import median

RUN = """
    import json, re, sys, time
    from pathlib import Path
    import timm, torch, robusttune

    def peak():  # MiB; not ru_maxrss, which a child inherits from its parent
        return int(re.search("VmHWM:[^0-9]+([0-9]+)", Path("/proc/self/status").read_text())[1]) / 1024

    images, steps, epochs = map(int, sys.argv[1:])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=10, in_chans=1)
    data = torch.utils.data.TensorDataset(torch.rand(images, 1, 32, 32), torch.arange(images) % 10)
    loader = torch.utils.data.DataLoader(data, 64, shuffle=True)
    settings = {"preset": "joint", "tasks": None, "norm": "linf", "eps_ramp": False, "val_loader": [next(iter(loader))], "tune": False}
    robusttune.harden(model, loader, steps=1, epochs=1, max_steps=2, progress=False, **settings)
    before = peak()
    began = time.process_time()
    robusttune.harden(model, loader, steps=steps, epochs=epochs, progress=False, **settings)
    seconds = time.process_time() - began
    print(json.dumps([seconds, peak() - before]))
"""
SERIES = {
    "images": [(count, 5, 1) for count in (512, 1024, 2048, 4096)],
    "steps": [(1024, steps, 1) for steps in (1, 5, 10, 20)],
    "epochs": [(1024, 5, epochs) for epochs in (1, 2, 4, 8)],
}
IMPORTS = ("import torch, timm", "import torch, timm, kornia", "import robusttune")


def main() -> None:
    """Run each series, print tables, save the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=5, help="of the imports")
    options = parser.parse_args()
    found: dict = {"machine": f"{platform.machine()}, {os.cpu_count()} cores, 1 thread"}
    lines = [__doc__.strip(), "", found["machine"], ""]
    for which, runs in SERIES.items():
        rows = [(*run, *json.loads(asked(textwrap.dedent(RUN), *map(str, run)))) for run in runs]
        found[which] = rows
        at = [row[["images", "steps", "epochs"].index(which)] for row in rows]
        slope, start, explained = line(at, [row[3] for row in rows])
        lines += [f"| {which} | seconds | peak memory, MiB |", "|---|---|---|"]
        lines += [f"| {size} | {row[3]:.2f} | {row[4]:.0f} |" for size, row in zip(at, rows, strict=True)]
        lines += ["", f"seconds = {start:.2f} + {slope:.4g} × {which}, which explains {100 * explained:.2f}%", ""]
    times: dict[str, list[float]] = {each: [] for each in IMPORTS}
    for _ in range(options.rounds + 1):
        for each in IMPORTS:
            code = f"import time; t = time.perf_counter(); {each}; print(time.perf_counter() - t)"
            times[each].append(float(asked(code)))
    found["imports"] = times = {each: took[1:] for each, took in times.items()}
    lines += ["| import | seconds, median (spread) |", "|---|---|"]
    lines += [f"| `{each}` | {median(t):.2f} ({min(t):.2f}–{max(t):.2f}) |" for each, t in times.items()]
    print("\n".join(lines))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
        options.out.with_suffix(".md").write_text("\n".join(lines) + "\n")


def asked(code: str, *arguments: str) -> str:
    """What a fresh process prints last."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *arguments]
    shown = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    return shown.strip().splitlines()[-1]


def line(at: list[int], values: list[float]) -> tuple[float, float, float]:
    """Slope, start and the share of the variance that a straight line explains."""
    count, x, y = len(at), sum(at) / len(at), sum(values) / len(values)
    slope = sum((a - x) * (b - y) for a, b in zip(at, values, strict=True)) / sum((a - x) ** 2 for a in at)
    start = y - slope * x
    left = sum((b - start - slope * a) ** 2 for a, b in zip(at, values, strict=True))
    return slope, start, 1 - left / sum((b - y) ** 2 for b in values) if count > 2 else 1.0


if __name__ == "__main__":
    main()
