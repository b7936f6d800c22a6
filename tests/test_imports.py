"""The library comes up with every extra missing, and each extra is imported only where it is used."""

import subprocess
import sys

EXTRAS = ["torchattacks", "foolbox", "adv_lib", "matplotlib", "markdown", "scipy", "jsonargparse", "sklearn"]
LAZY = [*EXTRAS, "kornia", "accelerate"]


def python(program):
    return subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)


def test_the_library_trains_and_judges_with_every_extra_missing():
    done = python(f"""
import sys
for name in {EXTRAS}:
    sys.modules[name] = None
import torch, robusttune
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
batches = [(torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 0, 1]))]
robusttune.harden(model, batches, tasks=None, epochs=1, steps=1, progress=False)
print(len(robusttune.evaluate(model, batches, "clean", progress=False)))
""")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 1


def test_importing_it_brings_little_beside_torch_and_timm():
    done = python("""
import sys, torch, timm
before = set(sys.modules)
import robusttune
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before}))
""")
    assert done.returncode == 0, done.stderr
    brought = done.stdout.split()
    assert "robusttune" in brought
    assert not set(brought) & set(LAZY), brought
