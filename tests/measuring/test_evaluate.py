"""What is measured, against what can be worked out by hand on a linear model, and how it is kept and shown."""

import copy
import json
import math
import re
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from handwritten import digits as real_digits
from handwritten import hardened
from handwritten import loader as digits_loader
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

import robusttune
from robusttune import Record, Records
from robusttune.attacks.nfgsm import nfgsm
from robusttune.data.splits import held_back, subset_of
from robusttune.evaluations.autoattack import autoattack
from robusttune.evaluations.sanity import sanity
from robusttune.evaluations.sweep import sweep
from robusttune.measuring.intervals import wilson
from robusttune.measuring.record import accuracy

COUNT = 60


def linear():
    """Two classes; the box does not bind, as images lie well inside it."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * 3 * 5, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(2, 30, generator=torch.Generator().manual_seed(0)))
        model[1].bias.zero_()
    images = 0.5 + 0.1 * torch.randn(COUNT, 2, 3, 5, generator=torch.Generator().manual_seed(1)).clamp(-2, 2)
    labels = torch.arange(COUNT) % 2
    with torch.no_grad():
        # The border lies in the middle of the images and on none of them.
        model[1].bias[1] = (
            -(model(images) @ torch.tensor([-1.0, 1.0])).sort().values[COUNT // 2 - 1 : COUNT // 2 + 1].mean()
        )
    return model, images, labels


def distances(model, images, labels, norm):
    """How far each image is from the border, negative on the wrong side of it."""
    direction = (model[1].weight[1] - model[1].weight[0]).detach()
    with torch.no_grad():
        margin = (model(images) @ torch.tensor([-1.0, 1.0])) * (2 * labels - 1)
    return margin / (direction.norm() if norm == "l2" else direction.abs().sum())


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_sweep_finds_the_closed_form_accuracy_of_a_linear_model(norm):
    model, images, labels = linear()
    far = distances(model, images, labels, norm)
    edges = far[far > 0].sort().values
    radii = [float(edges[index : index + 2].mean()) for index in (3, 8, 15, 22)]
    records = robusttune.evaluate(
        model,
        DataLoader(TensorDataset(images, labels), 7),
        partial(sweep, norms=[norm], eps=[0.0, *radii]),
        progress=False,
    )
    assert [record.setting["eps"] for record in records] == [0.0, *radii]
    for record in records:
        eps = record.setting["eps"]
        # The attack closes the last percent of the distance only slowly: an image within that may count either way.
        least, most = (
            (far > share * eps).float().mean() if eps else (far > 0).float().mean() for share in (1.02, 0.999)
        )
        assert float(least) - 1e-6 <= record.value <= float(most) + 1e-6
        assert record.images == COUNT
    values = [record.value for record in records]
    assert values == sorted(values, reverse=True)
    assert values[0] - values[-1] > 0.3


def test_clean_accuracy_is_counted_over_all_batches():
    model, images, labels = linear()
    loader = DataLoader(TensorDataset(images, labels), 7)
    record, balanced, worst = robusttune.evaluate(model, loader, "clean", progress=False)
    right = int((distances(model, images, labels, "l2") > 0).sum())
    assert (record.value, record.images, record.interval) == (right / COUNT, COUNT, wilson(right, COUNT))
    own = [int((distances(model, images, labels, "l2") > 0)[labels == each].sum()) for each in (0, 1)]
    assert math.isclose(balanced.value, sum(own) / COUNT)  # both classes have as many images
    assert (balanced.metric, balanced.images) == ("balanced accuracy", COUNT)
    assert balanced.interval[0] < balanced.value < balanced.interval[1]
    assert (worst.value, worst.images, worst.setting["class"]) == (min(own) / 30, 30, own.index(min(own)))


def test_classes_count_alike_however_many_images_they_have():
    """Three of class 0, all right; one of class 2, wrong; none of class 1."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor([2.0, 0.0, 0.0]))
    batch = (torch.rand(4, 1, 2, 2), torch.tensor([0, 0, 2, 0]))
    mean, balanced, worst = robusttune.evaluate(model, [batch], "clean", progress=False)
    assert (mean.value, balanced.value, worst.value) == (0.75, 0.5, 0.0)
    assert (worst.setting["class"], worst.images) == (2, 1)


def test_the_same_seed_gives_the_same_records_and_every_norm_is_swept():
    model, images, labels = linear()
    loader = DataLoader(TensorDataset(images, labels), 30)
    runs = [robusttune.evaluate(model, loader, norm="l2", eps=0.1, progress=False, seed=3) for _ in range(2)]
    assert runs[0] == runs[1]
    assert {record.setting.get("norm") for record in runs[0]} == {None, "l2", "linf"}
    assert max(record.setting["eps"] for record in runs[0].where("sweep", norm="l2")) >= 0.2  # well past the radius


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_attacks_are_measured_where_gradients_are_off(mode):
    model, images, labels = linear()
    which = ["clean", partial(sweep, steps=3), partial(sanity, images=20, steps=2)]
    settings = {"norm": "linf", "eps": 0.05, "progress": False}
    usual = robusttune.evaluate(model, [(images, labels)], which, **settings)
    with mode():
        found = robusttune.evaluate(model, [(images.clone(), labels)], which, **settings)
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
    assert found == usual


def test_a_subset_is_drawn_with_the_seed_and_from_other_loaders_taken_first():
    model, images, labels = linear()
    data = TensorDataset(images, labels)
    for loader in (DataLoader(data, 7), [(images, labels)]):
        record = robusttune.evaluate(model, loader, "clean", subset=13, progress=False)[0]
        assert record.images == 13
    drawn = [torch.cat([i for i, _ in subset_of(DataLoader(data, 7), 13, seed)]) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_an_attack_and_an_evaluation_of_one_s_own_are_taken():
    model, images, labels = linear()

    def nothing(loss_of, images, threat, *, generator):
        return images

    def classes(subject):
        return [accuracy("classes", 1, len(next(iter(subject.batches()))[1]))]

    which = [partial(sweep, norms=["l2"], eps=[9.0], attack=nothing, steps=None), classes]
    records = robusttune.evaluate(model, [(images, labels)], which, progress=False)
    clean = robusttune.evaluate(model, [(images, labels)], "clean", progress=False)[0]
    assert records[0].value == clean.value
    assert records[0].setting["attack"] == "nothing"
    assert records[1].images == COUNT
    for wrong in (None, 0.5, [0.5]):
        with pytest.raises(ValueError, match=r"the evaluation <lambda> returned .*, but a list of Record is needed"):
            robusttune.evaluate(model, [(images, labels)], lambda subject, wrong=wrong: wrong, progress=False)
    with pytest.raises(ValueError, match=r"unknown evaluation 'sweeps' \(did you mean 'sweep'\?\): known are .*clean"):
        robusttune.evaluate(model, [(images, labels)], "sweeps")


@pytest.mark.parametrize("attack", ["nfgsm", partial(nfgsm, noise=1.0)], ids=["name", "partial"])
@pytest.mark.parametrize("steps", [None, 50])
def test_an_attack_that_leaves_the_ball_judges_nothing(attack, steps):
    model, images, labels = linear()
    with pytest.raises(ValueError, match=r"nfgsm.*leaves the ball.*evaluate with attack='pgd' or 'apgd'"):
        robusttune.evaluate(model, [(images, labels)], partial(sweep, attack=attack, steps=steps), progress=False)


def test_answers_that_are_no_numbers_are_not_judged():
    model, images, labels = linear()
    loader = [(images, labels), (images, labels)]
    with torch.no_grad():
        model[1].weight[0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"NaN|infinite"):
        robusttune.evaluate(model, loader, "clean", progress=False)


@pytest.mark.parametrize(
    ("right", "of", "low", "high"), [(0, 10, 0, 0.2775), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)]
)
def test_intervals_are_those_of_the_tables(right, of, low, high):
    """The last is the example of Newcombe 1998, table I."""
    assert wilson(right, of) == pytest.approx((low, high), abs=1e-4)


def test_records_come_back_from_the_file(tmp_path):
    records = Records([accuracy("sweep", 3, 4, {"norm": "l2", "eps": 0.1 + 0.2}), accuracy("clean", 4, 4)])
    path = records.save(tmp_path / "new" / "records.jsonl")
    assert Records.load(path) == records
    assert [json.loads(line)["evaluation"] for line in path.read_text().splitlines()] == ["sweep", "clean"]
    assert records.where("sweep", eps=0.3) == [records[0]]
    assert records.where(norm="linf") == []
    assert records._repr_markdown_() == records.table()
    assert len(records.table().splitlines()) == 4
    assert [path.name for path in path.parent.iterdir()] == ["records.jsonl"]


@pytest.mark.parametrize("text", ["no JSON\n", '{"epoch": 1, "robust": 0.5}\n', "[1, 2]\n", '{"facts": {}}\n[]\n'])
def test_a_file_of_another_kind_holds_no_records(text, tmp_path):
    (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"log\.jsonl holds no Records .*: pass the records\.jsonl of evaluate's out="):
        Records.load(tmp_path / "log.jsonl")


def test_a_record_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = Records([accuracy("clean", 1, 2)]).save(tmp_path / "records.jsonl")
    before = path.read_text()
    with pytest.raises(TypeError):
        Records([Record("clean", "accuracy", 0.5, 2, (0.0, 1.0), {"model": object()})]).save(path)
    assert path.read_text() == before


def test_records_saved_over_others_leave_nothing_of_those_beside_them(tmp_path):
    model, images, labels = linear()
    records = robusttune.evaluate(
        model, [(images, labels)], partial(sweep, steps=2), norm="l2", eps=0.4, out=tmp_path, progress=False
    )
    assert records.failures
    assert len(list(tmp_path.iterdir())) == 3
    again = robusttune.evaluate(model, [(images, labels)], "clean", out=tmp_path, resume=True, progress=False)
    loaded = Records.load(tmp_path / "records.jsonl")
    assert (loaded, loaded.failures, loaded[0].right) == (again, [], again[0].right)
    for count in (1, len(again)):
        bare = Records([accuracy("clean", 1, 2)] * count)
        assert Records.load(bare.save(tmp_path / "records.jsonl"))[0].right is None
        again.save(tmp_path / "records.jsonl")


def test_a_report_shows_every_run_and_its_curve(tmp_path):
    pytest.importorskip("matplotlib")
    model, images, labels = linear()
    records = robusttune.evaluate(model, [(images, labels)], norm="l2", eps=0.1, progress=False)
    page = robusttune.report({"before": records, "after": records}, tmp_path / "report")
    text = page.read_text()
    assert "| accuracy | before | after |" in text
    assert f"clean, {COUNT} images" in text
    assert (tmp_path / "report" / "curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(ValueError, match="there are no Records to report"):
        robusttune.report(Records(), tmp_path)
    with pytest.raises(ValueError, match=r"unknown section 'curves' \(did you mean 'curve'\?\)"):
        robusttune.report(records, tmp_path, sections=["curves"])


def test_what_is_held_back_is_not_trained_on():
    data = TensorDataset(torch.arange(1000.0), torch.arange(1000))
    loader = DataLoader(data, 10, shuffle=True, drop_last=True, collate_fn=lambda rows: [int(row[1]) for row in rows])
    kept, held = held_back(loader, 0.05, seed=0)
    assert (kept.batch_size, kept.drop_last, held.drop_last) == (10, True, False)
    trained, judged = ({number for batch in each for number in batch} for each in (kept, held))
    assert len(judged) == 50
    assert trained | judged == set(range(1000))
    assert not trained & judged
    assert sorted(judged) == sorted(number for batch in held_back(loader, 0.05, seed=0)[1] for number in batch)
    assert next(iter(kept)) != next(iter(kept))  # still shuffled


@pytest.mark.parametrize(
    "loader",
    [
        [(1, 2)],
        DataLoader(TensorDataset(torch.arange(100)), 10),
        DataLoader(
            TensorDataset(torch.arange(1000)), 10, sampler=torch.utils.data.WeightedRandomSampler([1.0] * 1000, 1000)
        ),
    ],
    ids=["list", "small", "sampler"],
)
def test_nothing_is_held_back_where_it_cannot_be(loader):
    assert held_back(loader, 0.05, seed=0) == (loader, None)


def test_a_loader_too_small_to_hold_back_from_is_told(caplog):
    told = r"pass val_loader= \(5% are held back of a plain DataLoader with at least 640 images\)"
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    loader = DataLoader(TensorDataset(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1])), 4)
    with caplog.at_level("INFO", "robusttune"):
        robusttune.harden(model, loader, tasks=None, epochs=1, progress=False)
        assert re.search(told, caplog.text)
        caplog.clear()
        robusttune.harden(model, loader, val_loader=loader, tasks=None, epochs=1, progress=False)
        assert not re.search(told, caplog.text)


def digits(*keep):
    data = pytest.importorskip("sklearn.datasets").load_digits()
    images, labels = torch.tensor(data.images / 16, dtype=torch.float32)[:, None], torch.tensor(data.target)
    rows = [n for n, label in enumerate(labels.tolist()) if not keep or label in keep]
    return Subset(TensorDataset(images, labels), rows)


def hardened_on(images, recwarn):
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)]
    loader = DataLoader(images, 40, shuffle=True)
    settings = {
        "tasks": {"rotation": 1.0},
        "attack_tasks": "none",
        "steps": 1,
        "eps": 0.05,
        "lr": 0.1,
        "progress": False,
    }
    robusttune.harden(nn.Sequential(*layers), loader, norm="l2", epochs=6, **settings)
    return [str(warning.message) for warning in recwarn.list]


@pytest.mark.filterwarnings("always:rotation's held-out accuracy")
def test_turns_that_mean_nothing_are_warned_of(recwarn):
    """Squares that look the same each way up, in as many brightnesses as there are classes."""
    places = torch.arange(8.0) - 3.5
    ring = torch.maximum(places[:, None].abs(), places.abs()) / 4
    labels = torch.arange(800) % 10
    shades = 0.05 + 0.09 * labels + 0.02 * torch.rand(800, generator=torch.Generator().manual_seed(0))
    told = hardened_on(TensorDataset((ring * shades[:, None, None])[:, None], labels), recwarn)
    assert len(told) == 1
    assert "rotation's held-out accuracy is" in told[0]
    assert "near the 25% of a guess" in told[0]
    assert "drop it with tasks=None" in told[0]


@pytest.mark.filterwarnings("always:rotation's held-out accuracy")
def test_turns_that_mean_something_are_not(recwarn):
    assert hardened_on(digits(), recwarn) == []


def test_the_interval_narrows_with_the_images():
    widths = [math.dist(*([end] for end in accuracy("clean", n // 2, n).interval)) for n in (10, 100, 1000)]
    assert widths == sorted(widths, reverse=True)


def test_a_report_sets_the_worst_classes_of_models_side_by_side(tmp_path):
    runs = {
        name: Records([accuracy("clean", 1, count, {"class": count}, metric="worst-class accuracy")])
        for name, count in (("before", 4), ("after", 2))
    }
    (row,) = (line for line in robusttune.report(runs, tmp_path).read_text().splitlines() if "worst-class" in line)
    for shown in ("25.0%", "50.0%", "class 4, 4 images", "class 2, 2 images"):
        assert shown in row


def test_the_images_that_fall_first_are_shown(tmp_path):
    model, images, labels = linear()
    records = robusttune.evaluate(model, [(images, labels)], "sweep", norm="l2", eps=0.4, progress=False)
    shown = records.failures
    assert 0 < len(shown) <= 8
    assert len({each.image.tobytes() for each in shown}) == len(shown)
    for each in shown:
        assert each.norm == "l2"
        assert 0 < each.eps <= 0.4
        assert np.linalg.norm(each.found - each.image) <= each.eps + 1e-5
        pair = torch.from_numpy(np.stack([each.image, each.found]))
        assert model(pair).argmax(1).tolist() == [each.label, each.answer]
        assert each.label != each.answer
    assert shown == sorted(shown, key=lambda each: (each.eps, -each.confidence))
    back = Records.load(records.save(tmp_path / "records.jsonl"))
    assert [each.confidence for each in back.failures] == [each.confidence for each in shown]
    assert all((a.found == b.found).all() for a, b in zip(back.failures, shown, strict=True))
    text = robusttune.report({"one": back, "none": Records(back)}, tmp_path).read_text()
    assert text.count("failures-1.png") == 1
    assert "failures-2.png" not in text
    assert f"up to {100 * max(each.confidence for each in shown):.1f}% sure of the wrong class" in text
    assert robusttune.evaluate(model, [(images, labels)], "clean", progress=False).failures == []


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_accuracy_under_attack_falls_with_the_radius_to_chance(norm):
    radii = {"l2": [0.0, 0.5, 1.0, 2.0, 4.0, 8.0], "linf": [0.0, 0.05, 0.1, 0.2, 0.3, 0.5]}[norm]
    records = robusttune.evaluate(
        hardened(), digits_loader(200), partial(sweep, norms=[norm], eps=radii), progress=False
    )
    values = [record.value for record in records]
    assert values == sorted(values, reverse=True)
    # At linf 0.5 every image can become the same grey one.
    assert records[-1].value <= 0.1


@pytest.mark.parametrize("attack", ["pgd", "apgd"])
def test_a_radius_is_measured_alone_as_beside_smaller_ones(attack):
    """Images that fell to a smaller radius are not attacked again, and others start elsewhere."""
    radii = [0.05, 0.1, 0.15, 0.2]
    settings = {"norms": ["linf"], "attack": attack, "steps": 20}
    together = robusttune.evaluate(
        hardened(), digits_loader(200), partial(sweep, eps=radii, **settings), progress=False
    )
    alone = [
        robusttune.evaluate(hardened(), digits_loader(200), partial(sweep, eps=[each], **settings), progress=False)[0]
        for each in radii
    ]
    for one, other in zip(together, alone, strict=True):
        assert other.interval[0] <= one.value <= other.interval[1]
    for smaller, larger in pairwise(alone):
        assert larger.value <= smaller.interval[1]


class Trips(torch.nn.Module):
    """Fails on an image with a bright corner: with an error, or with NaN."""

    def __init__(self, error):
        super().__init__()
        self.fc, self.error = torch.nn.Linear(64, 10), error

    def forward(self, images):
        bright = images[:, 0, 0, 0] > 0.6
        if self.error and bright.any():
            raise RuntimeError("cannot read image 7")
        return self.fc(images.flatten(1)).masked_fill(bright[:, None], torch.nan)


@pytest.mark.parametrize("which", ["clean", "sweep", "strong", "autoattack", "corruptions", "noise", "sanity"])
@pytest.mark.parametrize(
    ("case", "says"),
    [("empty", "empty"), ("nan", "NaN|not finite"), ("error", "cannot read image 7"), ("labels", "label 10")],
)
def test_what_cannot_be_measured_leaves_nothing_behind(which, case, says, tmp_path):
    if which == "autoattack":
        pytest.importorskip("torchattacks")
    images, labels = real_digits()
    images, labels = images[:40].clone(), labels[:40].clone()
    model = Trips(case == "error").train()
    if case in ("nan", "error"):
        images[7, 0] = 1.0
    elif case == "labels":
        labels[7] = 10
    batches = [] if case == "empty" else [(images[:20], labels[:20]), (images[20:], labels[20:])]
    before = copy.deepcopy(model.state_dict())
    quick = {"sweep": partial(sweep, steps=2), "autoattack": partial(autoattack, queries=2)}.get(which, which)
    with pytest.raises((ValueError, RuntimeError), match=says):
        robusttune.evaluate(model, batches, quick, out=tmp_path / "out", progress=False)
    assert list((tmp_path / "out").glob("*")) == []
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_class_without_images_is_told_and_not_counted(caplog):
    caplog.set_level("INFO")
    images, labels = real_digits()
    rows = (labels != 3).nonzero().flatten()[:100]
    records = robusttune.evaluate(hardened(), [(images[rows], labels[rows])], "clean", progress=False)
    shares = [
        float((hardened()(images[rows]).argmax(1) == labels[rows])[labels[rows] == each].float().mean())
        for each in range(10)
        if each != 3
    ]
    balanced = next(record for record in records if record.metric == "balanced accuracy")
    assert balanced.value == pytest.approx(sum(shares) / 9)
    assert balanced.setting["classes"] == "9 of 10"
    assert "no images of 1 of 10 classes (3): balanced and worst-class accuracy are of the others" in caplog.text


def test_names_are_shown_as_they_are_written(tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("markdown")
    model, images, labels = linear()
    which = ["clean", partial(sweep, norms=["l2"], eps=[0.1], attack=lambda loss_of, images, threat, generator: images)]
    which[1].keywords["steps"] = None
    records = robusttune.evaluate(model, [(images, labels)], which, progress=False)
    robusttune.report({"a|b": records, "<b>bold</b>": records, 3: records[:1]}, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    head = page.split("<tr>")[1]
    assert [cell.split("</th>")[0] for cell in head.split("<th>")[1:]] == [
        "accuracy",
        "a|b",
        "&lt;b&gt;bold&lt;/b&gt;",
        "3",
    ]
    assert "l2 eps 0.1 by &lt;lambda&gt;, 60 images" in page


def test_notebooks_show_tables():
    model, images, labels = linear()
    records = robusttune.evaluate(model, [(images, labels)], "clean", progress=False)
    assert records._repr_markdown_() == records.table()
    assert robusttune.compare(records, records)._repr_markdown_().startswith("|")
