"""The README's Python examples run, one after the other, as they are printed."""

import importlib
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from robusttune import Records
from robusttune.measuring.record import accuracy

README = Path(__file__).parents[2] / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def digits(first: int, last: int) -> torch.utils.data.DataLoader:
    sklearn = pytest.importorskip("sklearn.datasets")
    data = sklearn.load_digits()
    images = torch.tensor(data.images[first:last] / 16, dtype=torch.float32)[:, None]
    return torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(images, torch.tensor(data.target[first:last])), 32, shuffle=True
    )


@pytest.mark.filterwarnings("ignore:rotation's held-out accuracy", "ignore:jigsaw's held-out accuracy")
def test_readme_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(EXAMPLES) >= 4
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10))
    names = {"model": model, "loader": digits(0, 128), "test_loader": digits(128, 160)}
    names["unlabeled_loader"] = digits(160, 288)
    for example in EXAMPLES:
        before = model[0].weight.detach().clone()
        exec(compile(example, str(README), "exec"), names)
        assert not torch.equal(model[0].weight, before)
        assert names["model"] is model
    assert (tmp_path / "runs" / "mine" / "curve.png").exists()
    assert {record.evaluation for record in names["records"]} == {"clean", "sweep"}


def test_the_readme_shows_the_quickstarts_table_as_it_is_printed(monkeypatch):
    monkeypatch.syspath_prepend(str(README.parent / "examples"))
    table = importlib.import_module("quickstart").table
    shown = re.search(r"```text\n(model.*?)\n\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    rows = {name: re.findall(r"([\d.]+)% \(", line) for name, line in zip("ab", shown[1].splitlines()[2:], strict=True)}
    settings = {"norm": "l2", "eps": 1.0}
    runs = {
        name: Records(
            [
                accuracy("clean", round(3 * float(clean)), 300),
                accuracy("sweep", round(3 * float(ours)), 300, {**settings, "attack": "apgd"}),
                accuracy("sweep", round(3 * float(judge)), 300, {**settings, "attack": "torchattacks(name=APGD)"}),
            ]
        )
        for name, (clean, ours, judge) in zip(("before", "after"), rows.values(), strict=True)
    }
    printed = table(runs, "l2", 1.0).strip().splitlines()
    assert [line.rstrip() for line in printed] == shown[1].splitlines()


@pytest.mark.parametrize(("ours", "judge"), [(0.5, 0.5), (0.6, 0.7), (0.724, 0.72), (0.726, 0.72)])
def test_the_guard_stops_at_a_flattering_figure(ours, judge, monkeypatch):
    pytest.importorskip("torchattacks")
    monkeypatch.syspath_prepend(str(README.parent / "examples"))
    guard = importlib.import_module("quickstart").guard
    settings = {"norm": "l2", "eps": 1.0}
    records = Records(
        [
            accuracy("clean", 900, 1000),
            accuracy("sweep", round(1000 * ours), 1000, {**settings, "attack": "apgd"}),
            accuracy("sweep", round(1000 * judge), 1000, {**settings, "attack": "torchattacks(name=APGD)"}),
        ]
    )
    if ours <= judge + 0.005:
        guard(records, 1.0)
    else:
        with pytest.raises(SystemExit, match=r"guard: robusttune prints 72\.6%, but torchattacks' APGD leaves 72\.0%"):
            guard(records, 1.0)


def test_the_quickstart_names_models_close_to_one_that_is_not_there(monkeypatch):
    monkeypatch.syspath_prepend(str(README.parent / "examples"))
    new_model = importlib.import_module("ordinary").new_model
    assert new_model("test_resnet", 1, 10, 32).num_classes == 10
    with pytest.raises(SystemExit, match="timm has no model 'test_resnt': did you mean test_resnet"):
        new_model("test_resnt", 1, 10, 32)


def test_readme_commands_name_files_that_are_there():
    text = README.read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:examples|tests)/\w+\.py", text))
    assert named
    assert all((README.parent / name).exists() for name in named)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_to_files_that_are_there(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (README.parent / page).read_text(encoding="utf-8"))
    assert links or page != "README.md"
    assert all((README.parent / link).exists() for link in links), links
