"""The library comes up with every extra missing, and tells which one to install where it is used."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import robusttune

EXTRAS = ["torchattacks", "foolbox", "adv_lib", "matplotlib", "markdown", "scipy", "pandas", "shtab", "sklearn"]
BESIDE = ["datasets", "webdataset", "tensorflow_datasets", "wandb", "onnx", "onnxruntime"]
BESIDE += ["lightning", "transformers", "torchmetrics", "timm.task"]
LAZY = [*EXTRAS, *BESIDE, "kornia", "accelerate"]


def python(program):
    return subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)


# Each use, as a function of nothing, and what it says where the package is missing.
USES = {
    "torchattacks in harden": (
        "lambda: harden(attack='torchattacks', attack_tasks='none')",
        "this attack needs torchattacks (import of torchattacks halted; None in sys.modules): "
        "pip install 'robusttune[torchattacks]'",
    ),
    "foolbox in harden": ("lambda: harden(attack='foolbox')", "pip install 'robusttune[foolbox]'"),
    "adv-lib in harden": (
        "lambda: harden(attack='adv_lib')",
        "pip install 'setuptools<82' wheel && pip install --no-build-isolation adv-lib",
    ),
    "torchattacks in evaluate": ("lambda: evaluate(never, 'autoattack')", "pip install 'robusttune[torchattacks]'"),
    "foolbox in a sweep": (
        "lambda: evaluate(never, partial(partial(sweep, attack='foolbox'), steps=3))",
        "pip install 'robusttune[foolbox]'",
    ),
    "scipy in certified": (
        "lambda: evaluate(never, 'certified')",
        "exact binomial bounds need scipy: pip install 'robusttune[certified]'",
    ),
    "matplotlib in report": (
        "lambda: robusttune.report(records, folder)",
        "the picture needs matplotlib: pip install 'robusttune[report]'",
    ),
    "markdown in report": (
        "lambda: robusttune.report(records, folder, sections=['summary'])",
        "an HTML report needs the package markdown: pip install 'robusttune[report]'",
    ),
    "pandas in Records": (
        "lambda: records.to_dataframe()",
        "a table of pandas needs pandas: pip install 'robusttune[pandas]'",
    ),
    "all that a trial needs": (
        "lambda: robusttune.poc(model, batches, out=folder)",
        "the decision page needs scipy, matplotlib, markdown: pip install 'robusttune[poc]'",
    ),
    "a log": ("lambda: harden(log='wandb', attack='pgd')", "log='wandb' needs its package: pip install wandb"),
    "Hugging Face's data sets": (
        "lambda: loader_of(Sources('', 'hfds/mine'))",
        "'hfds/mine' is read by the package datasets: pip install datasets",
    ),
    "Lightning": ("lambda: import_module('robusttune.integration.lightning')", "pip install lightning"),
    "transformers": (
        "lambda: import_module('robusttune.integration.transformers')",
        "pip install transformers accelerate",
    ),
    "an older timm": (
        "lambda: import_module('robusttune.integration.timm')",
        "needs a newer timm, with timm.task (import of timm.task halted; None in sys.modules): pip install -U timm",
    ),
    "torchmetrics": ("lambda: import_module('robusttune.integration.torchmetrics')", "pip install torchmetrics"),
    "WebDataset": ("lambda: loader_of(Sources('', 'WDS/mine', data_dir='x'))", "pip install webdataset"),
}
PROGRAM = f"""
import sys, json, tempfile
for name in {EXTRAS + BESIDE}:
    sys.modules[name] = None
from functools import partial
from importlib import import_module
import torch, robusttune
from robusttune.evaluations.sweep import sweep
from robusttune.cli.options import Sources
from robusttune.cli.sources import loader_of

model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
batches = [(torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 0, 1]))]
harden = partial(robusttune.harden, model, batches, tasks=None, epochs=1, steps=1, progress=False)

def never(subject):
    raise RuntimeError("an evaluation has begun")

def evaluate(*which):
    return robusttune.evaluate(model, batches, which, progress=False)

folder = tempfile.mkdtemp()
harden()
records = evaluate("clean", "sweep", "sanity")
said = {{"records": len(records)}}
for name, use in {{{", ".join(f"{name!r}: {use}" for name, (use, _) in USES.items())}}}.items():
    try:
        said[name] = ["nothing", str(use())]
    except Exception as error:
        said[name] = [type(error).__name__, str(error)]
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def bare():
    """What came out of a process of its own, in which every extra is missing."""
    done = python(PROGRAM)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.slow
def test_the_library_trains_and_judges_with_every_extra_missing(bare):
    assert bare[0]["records"] > 2


@pytest.mark.slow
@pytest.mark.parametrize("use", USES)
def test_what_needs_a_missing_package_says_how_to_install_it(use, bare):
    kind, said = bare[0][use]
    assert kind == "ImportError"
    assert said.endswith(USES[use][1])


def test_public_names_are_imported_at_their_first_use_and_bring_little_beside_torch_and_timm():
    done = python("""
import sys, robusttune
assert "torch" not in sys.modules
assert set(robusttune.__all__) <= set(dir(robusttune))
import torch, timm
before = set(sys.modules)
from robusttune import *
assert robusttune.harden is harden and harden.__module__ == "robusttune.training.harden"
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before}))
try:
    robusttune.hardn
except AttributeError as error:
    print(error)
""")
    assert done.returncode == 0, done.stderr
    brought, said = done.stdout.splitlines()
    assert not set(brought.split()) & set(LAZY), brought
    assert said == "module 'robusttune' has no attribute 'hardn'"


def test_names_are_imported_from_where_type_checkers_see_them():
    tree = ast.parse(Path(robusttune.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = {each.name: f"{node.module}" for node in block.body for each in node.names}
    assert {name: f"robusttune.{module}" for name, module in robusttune._MODULES.items()} == seen
    assert sorted(seen) == sorted(robusttune.__all__)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["hardn"], 2),
        (["harden", "--help"], 0),
        (["evaluate", "--help"], 0),
        (["poc", "--help"], 0),
        (["harden", "--epz", "1"], 2),
        (["harden", "--model", "x", "--data", "y", "--epochs", "two"], 2),
    ],
    ids=str,
)
def test_help_and_mistakes_need_no_torch(words, code):
    program = f"""
import sys
for name in ("torch", "torchvision", "timm", "numpy", "kornia", "accelerate"):
    sys.modules[name] = None
from robusttune.__main__ import main
sys.exit(main({words}))
"""
    assert python(program).returncode == code
