"""Whether a sweep over radii gains by starting from what it found at the radius before.

    python tests/benchmarks/warm_starts.py --norm linf --out docs/benchmarks/warm-starts-linf.json

A small CNN is hardened on Fashion-MNIST by `preset="fast"`. Then images that survive are attacked at growing radii by APGD
on the cross-entropy and on the margin, from a random start or from the image found at the radius before, with all steps and
with half of them. One thread; seconds are of the processor.
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from compare import EPS
from images import SIDE, loaders, shape_and_classes
from ordinary import new_model, train

import robusttune
from robusttune.attacks import apgd as attack_file
from robusttune.measuring.losses import LOSSES

RADII = (0.25, 0.5, 1.0, 1.5, 2.0)  # of the training radius
STEPS = 50


def main() -> None:
    """Harden, sweep in four ways with each seed, print a table, save the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--norm", default="linf", choices=sorted(EPS))
    parser.add_argument("--test", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    eps = EPS[options.norm]
    training, testing = loaders("fashion-mnist", train=10_000, test=options.test)
    model = train(new_model("test_resnet", *shape_and_classes(training), SIDE), training, 4, progress=False)
    robusttune.harden(model, training, norm=options.norm, eps=eps, preset="fast", epochs=4, progress=False)
    model.eval().requires_grad_(False)
    images, labels = (torch.cat(parts) for parts in zip(*testing, strict=True))
    lines = [
        f"test_resnet, Fashion-MNIST, {options.test} images, {options.norm}; {platform.machine()}, 1 thread, torch {torch.__version__}",
        "",
        "| start | steps | seed | " + " | ".join(f"eps {share * eps:.3g}" for share in RADII) + " | seconds |",
        "|---" * (4 + len(RADII)) + "|",
    ]
    found = []
    for seed in range(options.seeds):
        for steps, warm in ((STEPS, False), (STEPS, True), (STEPS // 2, False), (STEPS // 2, True)):
            shares, seconds = swept(model, images, labels, options.norm, eps, steps=steps, warm=warm, seed=seed)
            found.append({"warm": warm, "steps": steps, "seed": seed, "accuracy": shares, "seconds": seconds})
            cells = [
                "warm" if warm else "random",
                steps,
                seed,
                *(f"{100 * share:.1f}%" for share in shares),
                f"{seconds:.0f}",
            ]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
            print(lines[-1], flush=True)
    print("\n".join(lines))
    if options.out:
        options.out.write_text(json.dumps({"setting": lines[0], "rows": found}, indent=1) + "\n")
        options.out.with_suffix(".md").write_text("\n".join(lines) + "\n")


def swept(model, images, labels, norm, eps, *, steps, warm, seed):
    """The accuracy at each radius, and the seconds."""
    generator, began = torch.Generator().manual_seed(seed), time.process_time()
    alive = model(images).argmax(1) == labels
    last, shares = {name: images.clone() for name in LOSSES}, []
    for number, share in enumerate(RADII):
        threat = robusttune.ThreatModel(norm, eps * share)
        for name, loss in LOSSES.items():
            rows = alive.nonzero().flatten()
            goal = robusttune.LossOf(lambda given, rows=rows, loss=loss: loss(model(given), labels[rows]))
            start = last[name][rows] if warm and number else None
            found = attacked(goal, images[rows], threat, generator, steps, start)
            last[name][rows] = found
            alive[rows] = model(found).argmax(1) == labels[rows]
        shares.append(float(alive.float().mean()))
    return shares, time.process_time() - began


def attacked(goal, images, threat, generator, steps, start):
    """APGD from a random start, or from these images."""
    own = attack_file._random_start
    if start is not None:
        attack_file._random_start = lambda images, threat, generator: threat.project(start, images)
    try:
        return attack_file.apgd(goal, images, threat, generator=generator, steps=steps)
    finally:
        attack_file._random_start = own


if __name__ == "__main__":
    main()
