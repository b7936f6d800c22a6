"""How fast corruptions are, beside imagecorruptions in one run.

    python tests/benchmarks/corruptions.py --peer reference/bin/python --out docs/benchmarks/corruptions.json

`--peer` is the interpreter of an environment with imagecorruptions 1.1.2, as `tests/support/references/make_references.py`
describes; it is asked for one timing at a time, in turns with ours. It works on images one by one, as it is made; ours
on the batch. On a GPU, where the peer has nothing to show, ours is set against a plain copy of the same images.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

SEVERITY = 3
SIZES = {224: 16, 32: 128}
PEER = [
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
    "speckle_noise",
    "gaussian_blur",
    "spatter",
    "saturate",
]


def serve() -> None:
    """Answer, in the peer's environment: for a line with a name, side and count, the seconds that it took."""
    import warnings

    import imagecorruptions.corruptions as judge
    import numpy as np
    from imagecorruptions import corrupt

    warnings.simplefilter("ignore")
    plain = judge.gaussian  # it speaks to an older scikit-image
    judge.gaussian = lambda *args, multichannel=None, **rest: plain(
        *args, channel_axis=-1 if multichannel else None, **rest
    )
    images = {}
    for line in sys.stdin:
        name, side, count = line.split()
        side, count = int(side), int(count)
        if (side, count) not in images:
            images[side, count] = np.random.RandomState(0).randint(0, 256, (count, side, side, 3)).astype(np.uint8)
        try:
            began = time.perf_counter()
            for image in images[side, count]:
                corrupt(image, corruption_name=name, severity=SEVERITY)
            print(time.perf_counter() - began, flush=True)
        except Exception as error:
            print(f"failed: {type(error).__name__}", flush=True)


class Peer:
    """imagecorruptions in a process of its own."""

    def __init__(self, python: str) -> None:
        command = [python, __file__, "--serve"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def seconds(self, name: str, side: int, count: int) -> float | None:
        """The seconds for so many images; None where it fails."""
        self.process.stdin.write(f"{name} {side} {count}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        if not answer:
            raise SystemExit("the peer has died: try its interpreter with `import imagecorruptions`")
        return None if answer.startswith("failed") else float(answer)


def main() -> None:
    """Measure, print a table, save the numbers."""
    options = arguments()
    if options.serve:
        return serve()
    import torch

    from robusttune import plugins
    from robusttune.model.devices import available_accelerator

    torch.set_num_threads(options.threads)
    device = available_accelerator() or torch.device("cpu")
    peer = Peer(options.peer) if options.peer else None
    rows = []
    for side, count in SIZES.items():
        images = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
        for name in plugins.names("corruptions"):
            rows.append(compared(plugins.find("corruptions", name), images, peer, options.rounds))
            print(line(rows[-1]), flush=True)
    facts = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {options.threads} threads of torch, {device}",
        "versions": {name: version(name) for name in ("torch", "kornia")} | {"python": platform.python_version()},
        "severity": SEVERITY,
        "rows": rows,
    }
    print("\n" + table(facts))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(facts, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(table(facts) + "\n")


def compared(corruption, images, peer, rounds) -> dict:
    """The seconds an image of ours and of the peer's, in turns."""
    import torch

    count, side, device = len(images), images.shape[-1], images.device
    generator = torch.Generator(device).manual_seed(0)

    def run():
        return corruption(images, SEVERITY, generator)

    few = 1 if corruption.name == "glass_blur" and side == 224 else count  # the peer takes a second for each
    ours, theirs = [], []
    timed(run, device)
    for _ in range(rounds):
        ours.append(timed(run, device) / count)
        if peer is not None and corruption.name in PEER:
            seconds = peer.seconds(corruption.name, side, few)
            theirs += [] if seconds is None else [seconds / few]
    row = {"corruption": corruption.name, "side": side, "batch": count, "ours": ours, "peer": theirs}
    if device.type == "cuda":
        row["share of copy bandwidth"] = timed(images.clone, device) / count / median(ours)
    return row


def timed(run, device) -> float:
    """Seconds, until the device is done."""
    import torch

    began = time.perf_counter()
    run()
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - began


def table(facts: dict) -> str:
    """Markdown: milliseconds an image, and how many times faster; then the sums."""
    lines = [
        f"Severity {facts['severity']}, {facts['machine']}; "
        + ", ".join(f"{k} {v}" for k, v in facts["versions"].items()),
        "",
        "| corruption | px | batch | ours, ms an image | imagecorruptions, ms | times faster (range) |",
        "|---|---|---|---|---|---|",
        *map(line, facts["rows"]),
    ]
    for side in SIZES:
        both = [row for row in facts["rows"] if row["side"] == side and row["peer"]]
        for title, kept in (
            ("sum", both),
            ("sum without glass blur", [row for row in both if row["corruption"] != "glass_blur"]),
        ):
            if kept:
                sums = [1000 * sum(median(row[who]) for row in kept) for who in ("ours", "peer")]
                count = f"{len(kept)} corruptions"
                lines.append(
                    f"| **{title}**, {count} | {side} | | {sums[0]:.1f} | {sums[1]:.1f} | **{sums[1] / sums[0]:.1f}** |"
                )
    return "\n".join(lines)


def line(row: dict) -> str:
    """One row of the table."""
    ours = 1000 * median(row["ours"])
    start = f"| {row['corruption']} | {row['side']} | {row['batch']} | {ours:.3f} |"
    if "share of copy bandwidth" in row:
        start += f" {1000 / ours:.0f} images/s, {100 * row['share of copy bandwidth']:.1f}% of a copy's bandwidth |"
    if not row["peer"]:
        return start + " – | – |"
    ratios = [theirs / own for theirs, own in zip(row["peer"], row["ours"], strict=False)]
    return start + f" {1000 * median(row['peer']):.3f} | {median(ratios):.1f} ({min(ratios):.1f}–{max(ratios):.1f}) |"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="the interpreter of an environment with imagecorruptions")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
