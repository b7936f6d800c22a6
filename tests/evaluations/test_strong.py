"""The strong evaluations: against the closed form, against each other, and after an interruption."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from handwritten import digits, hardened, loader
from tables import unpadded
from torch import nn

import robusttune
from robusttune import Records
from robusttune.evaluations import autoattack as autoattack_file
from robusttune.evaluations.autoattack import autoattack
from robusttune.evaluations.strong import strong
from robusttune.evaluations.sweep import sweep
from robusttune.measuring.record import accuracy
from robusttune.measuring.subject import Subject

needs_torchattacks = pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("torchattacks"), reason="torchattacks is an extra"
)


def measured(which, *, model=None, batches=None, **settings):
    settings = {"norm": "linf", "eps": 0.15, "progress": False, **settings}
    return robusttune.evaluate(model or hardened(), batches or loader(), which, **settings)


QUICK = partial(strong, steps=20, target_steps=10)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_strong_finds_the_closed_form_accuracy_of_a_linear_model(norm):
    torch.manual_seed(0)
    images, labels = digits()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    images = 0.3 + 0.4 * images[:80]  # inside the box
    labels = labels[:80]
    weight, logits = model[1].weight.detach(), model(images).detach()
    gaps = logits.gather(1, labels[:, None]) - logits
    lengths = (weight[labels][:, None] - weight).norm(p=2 if norm == "l2" else 1, dim=2)
    far = (gaps / lengths).masked_fill(nn.functional.one_hot(labels, 10).bool(), torch.inf).min(1).values
    eps = float(far[far > 0].median())
    record = measured(strong, model=model, batches=[(images, labels)], norm=norm, eps=eps)[-1]
    assert float((far > 1.02 * eps).float().mean()) <= record.value <= float((far > 0.999 * eps).float().mean())


def test_strong_is_never_weaker_than_the_sweep_and_each_attack_takes_from_the_one_before():
    records = measured(["clean", partial(sweep, norms=["linf"], eps=[0.15], steps=20), QUICK])
    steps = [record.value for record in records.where("strong")]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] <= records.where("sweep")[0].value
    assert 0.05 < steps[-1] < records[0].value
    assert records.where("strong")[-1].setting["attack"] == "both, and apgd toward 9 classes, 10 steps"


@pytest.mark.slow
def test_the_pages_of_the_benchmark_name_the_attacks_as_the_evaluation_does():
    images, labels = digits()
    names = [each.setting["attack"] for each in measured(strong, batches=[(images[:4], labels[:4])])]
    for norm in ("l2", "linf"):
        page = (Path(__file__).parents[2] / "docs" / "benchmarks" / f"strong-{norm}.md").read_text(encoding="utf-8")
        assert re.findall(r"\| strong .*attack=(.*) \|", page) == names


@needs_torchattacks
def test_autoattack_has_the_standard_settings(monkeypatch):
    import torchattacks

    seen = {}

    def remember(attack, images, labels):
        seen[type(attack).__name__] = attack
        return images

    for name in ("APGD", "APGDT", "FAB", "Square"):
        spy = type(name, (getattr(torchattacks, name),), {"__call__": remember})
        monkeypatch.setattr(torchattacks, name, spy)
    records = measured(autoattack)
    assert [seen[name].steps for name in ("APGD", "APGDT", "FAB")] == [100] * 3
    assert [seen[name].n_target_classes for name in ("APGDT", "FAB")] == [9, 9]
    assert (seen["APGD"].loss, seen["FAB"].multi_targeted, seen["Square"].n_queries) == ("ce", True, 5000)
    assert [seen[name].n_restarts for name in seen] == [1] * 4
    assert {seen[name].norm for name in seen} == {"Linf"}
    assert [record.setting["attack"] for record in records] == [
        "APGD-CE, 100 steps",
        "and APGD-T, 100 steps, 9 targets",
        "and FAB-T, 100 steps, 9 targets",
        "and Square, 5000 queries",
    ]
    assert records[-1].setting["standard"] is True


@needs_torchattacks
def test_strong_is_close_to_autoattack(monkeypatch):
    monkeypatch.setattr(autoattack_file, "STEPS", 20, raising=False)
    suite = partial(autoattack, queries=100)
    records = measured([strong, suite], batches=loader(40, 40))
    ours, theirs = records.where("strong")[-1], records.where("autoattack")[-1]
    assert abs(ours.value - theirs.value) <= 1 / 40 + 1e-9
    assert theirs.setting["standard"] is False
    worst = records.worst(norm="linf", eps=0.15)
    assert worst.value <= min(ours.value, theirs.value)
    assert worst.images == 40


@needs_torchattacks
def test_few_classes_leave_the_targeted_members_out():
    images, labels = digits()
    few = labels < 3
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    records = measured(partial(autoattack, queries=20), model=model, batches=[(images[few][:20], labels[few][:20])])
    assert len(records) == 2
    assert "no targeted members: 3 classes" in records[-1].setting["attack"]
    assert records[-1].setting["standard"] is False


class Enough(Exception):
    pass


@pytest.mark.slow
@needs_torchattacks
def test_an_interrupted_autoattack_goes_on_to_the_same_records(tmp_path, monkeypatch):
    suite = partial(autoattack, queries=30)
    monkeypatch.setitem(autoattack_file.autoattack.__globals__, "STEPS", 10)
    whole = measured(suite, out=tmp_path / "whole")
    plain, calls = Subject.withstood, []

    def stopping(*args, **settings):
        calls.append(1)
        if len(calls) == 7:
            raise Enough
        return plain(*args, **settings)

    monkeypatch.setattr(Subject, "withstood", stopping)
    with pytest.raises(Enough):
        measured(suite, out=tmp_path / "cut")
    assert not (tmp_path / "cut" / "records.jsonl").exists()
    with (tmp_path / "cut" / "autoattack.jsonl").open("a") as file:
        file.write('{"key": "cut off in the mid')
    before = len(calls)
    resumed = measured(suite, out=tmp_path / "cut", resume=True)
    assert resumed == whole
    assert [record.right for record in resumed] == [record.right for record in whole]
    assert len(calls) - before == 12 - 6
    assert Records.load(tmp_path / "cut" / "records.jsonl") == whole
    with pytest.raises(ValueError, match="is not empty: pass resume=True"):
        measured(suite, out=tmp_path / "cut")


@needs_torchattacks
def test_another_model_does_not_go_on_with_what_was_found_for_this_one(tmp_path):
    suite = partial(autoattack, queries=5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    images, labels = digits()
    batches = [(images[:10], labels[:10] % 3)]
    measured(suite, model=model, batches=batches, out=tmp_path)
    lines = (tmp_path / "autoattack.jsonl").read_text().splitlines()
    with torch.no_grad():
        model[1].bias += 1.0 * torch.tensor([1.0, 0, 0])
    measured(suite, model=model, batches=batches, out=tmp_path, resume=True)
    assert len((tmp_path / "autoattack.jsonl").read_text().splitlines()) == 2 * len(lines)


@needs_torchattacks
@pytest.mark.parametrize("change", ["labels", "mean and std"])
def test_other_labels_and_another_input_do_not_go_on_with_what_was_found_for_these(change, tmp_path):
    suite = partial(autoattack, queries=5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    images, labels = digits()
    measured(suite, model=model, batches=[(images[:10], labels[:10] % 3)], out=tmp_path)
    known = len((tmp_path / "autoattack.jsonl").read_text().splitlines())
    batches = [(images[:10], (labels[:10] + (change == "labels")) % 3)]
    settings = {} if change == "labels" else {"mean": 0.3, "std": 0.1}
    measured(suite, model=model, batches=batches, out=tmp_path, resume=True, **settings)
    assert len((tmp_path / "autoattack.jsonl").read_text().splitlines()) == 2 * known


@needs_torchattacks
def test_two_classes_can_be_measured_by_all_that_judges_robustness():
    images, labels = digits()
    batches = [(images[:20], labels[:20] % 2)]
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    records = measured(["sweep", QUICK, partial(autoattack, queries=20)], model=model, batches=batches)
    assert records.where("strong")[-1].setting["attack"] == "both, and apgd toward 1 classes, 10 steps"
    assert "no targeted members: 2 classes" in records.where("autoattack")[-1].setting["attack"]
    assert records.worst(norm="linf", eps=0.15).value <= records.where("sweep", norm="linf", eps=0.0)[0].value


def test_evaluations_of_one_name_are_counted_together(tmp_path):
    sweeps = [partial(sweep, norms=["linf"], eps=[0.1], steps=steps, losses=["margin"]) for steps in (2, 4)]
    records = measured(sweeps)
    alone = [measured(each).facts["evaluations"]["sweep"] for each in sweeps]
    for what in ("images forward", "images backward"):
        assert records.facts["evaluations"]["sweep"][what] == sum(each[what] for each in alone)
    text = robusttune.report(records, tmp_path, sections=["summary"]).read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| linf eps 0.1 by apgd, 60 images (")]
    assert ["steps=2" in row for row in rows] == [True, False]
    worst = Records([records.worst(norm="linf", eps=0.1)])
    text = unpadded(robusttune.report(worst, tmp_path, sections=["summary"]).read_text(encoding="utf-8"))
    assert f"| linf eps 0.1 by worst case, 60 images | {100 * worst[0].value:.1f}%" in text


def test_which_images_were_right_is_kept_in_an_order_that_loaders_do_not_change(tmp_path):
    which = ["clean", partial(sweep, norms=["linf"], eps=[0.0, 0.1], steps=5)]
    straight, shuffled = measured(which), measured(which, batches=loader(shuffle=True), seed=3)
    assert straight.hashes == shuffled.hashes
    assert len(set(straight.hashes)) == 60
    assert sorted(straight.labels) == sorted(digits()[1][:60].tolist())
    assert straight.labels == shuffled.labels
    assert straight[0].right == shuffled[0].right == straight.where("sweep", eps=0.0)[0].right
    assert sum(straight[0].right) / 60 == straight[0].value
    straight.save(tmp_path / "records.jsonl")
    loaded = Records.load(tmp_path / "records.jsonl")
    assert loaded == straight
    assert (loaded.hashes, loaded.labels, loaded.facts) == (straight.hashes, straight.labels, straight.facts)
    assert [record.right for record in loaded] == [record.right for record in straight]
    first = json.loads((tmp_path / "records.jsonl").read_text().splitlines()[0])
    assert set(first["facts"]) >= {"model", "images", "versions", "seed", "evaluations"}


def test_the_facts_count_passes_and_know_the_model_by_its_weights():
    records = measured(["clean", partial(sweep, norms=["linf"], eps=[0.1], steps=5, losses=["margin"])])
    clean = records.facts["evaluations"]["clean"]
    assert (clean["images forward"], clean["images backward"]) == (60, 0)
    right = sum(records[0].right)
    swept = records.facts["evaluations"]["sweep"]
    # APGD: a gradient at the start and after each step but the last, where a forward is enough; then the verdicts.
    assert swept["images backward"] == 5 * right
    assert swept["images forward"] == 60 + 6 * right + right
    again = measured("clean")
    assert again.facts["model"] == records.facts["model"]
    other = measured("clean", model=nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    assert other.facts["model"] != records.facts["model"]
    assert other.facts["images"] == records.facts["images"]


def test_the_worst_case_combines_single_images():
    setting = {"norm": "linf", "eps": 0.1}
    records = Records(
        [
            accuracy("a", 2, 4, setting, right=[True, True, False, False]),
            accuracy("b", 2, 4, setting, right=[True, False, True, False]),
            accuracy("c", 4, 4, {"norm": "l2", "eps": 0.1}, right=[True] * 4),
        ]
    )
    record = records.worst(**setting)
    assert (record.value, record.images, record.right) == (0.25, 4, (True, False, False, False))
    with pytest.raises(ValueError, match=r"no Record of .* holds the answer to each image"):
        records.worst(norm="l1")


def test_two_models_are_compared_on_the_images_that_both_have_seen():
    torch.manual_seed(1)
    weak = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    first = measured("clean", batches=loader(60))
    second = measured("clean", model=weak, batches=loader(90, shuffle=True))
    (row,) = robusttune.compare(first, second)
    images, labels = digits()
    with torch.no_grad():
        ours, theirs = (model(images[:60]).argmax(1) == labels[:60] for model in (hardened(), weak))
    assert row.images == 60
    assert (row.only_first, row.only_second) == (int((ours & ~theirs).sum()), int((theirs & ~ours).sum()))
    assert row.first == pytest.approx(float(ours.float().mean()))
    assert row.second == pytest.approx(float(theirs.float().mean()))
    assert row.p < 1e-6
    assert "| clean |" in unpadded(robusttune.compare(first, second).table())


def test_mcnemars_p_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    for one, other in [(0, 0), (1, 9), (5, 5), (30, 12), (0, 20), (700, 800)]:
        expected = stats.binomtest(one, one + other).pvalue if one + other else 1.0
        assert robusttune.compare.__globals__["mcnemar"](one, other) == pytest.approx(expected, rel=1e-6)


def test_no_evaluation_and_an_unknown_one_leave_no_folder(tmp_path):
    with pytest.raises(ValueError, match="which= is empty: name evaluations out of autoattack, certified, clean"):
        measured([], out=tmp_path / "none")
    with pytest.raises(ValueError, match="unknown evaluation 'strength'"):
        measured("strength", out=tmp_path / "none")
    for wrong in (3, ["clean", None], {"clean": 3}.values()):
        with pytest.raises(ValueError, match=r"which= holds (3|None), but evaluations are names out of autoattack"):
            measured(wrong, out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_compared_is_refused():
    records = measured("clean")
    with pytest.raises(ValueError, match="the second Records hold no answers to single images"):
        robusttune.compare(records, Records([accuracy("clean", 1, 2)]))
    with pytest.raises(
        ValueError, match="the first Records hold no answers to single images: pass all Records that evaluate returned"
    ):
        robusttune.compare(records[:1], records)
    images, labels = digits()
    with pytest.raises(ValueError, match="no image in common"):
        robusttune.compare(records, measured("clean", batches=[(images[100:120], labels[100:120])]))
    with pytest.raises(ValueError, match="no measurement in common"):
        robusttune.compare(records, measured(partial(sweep, norms=["linf"], eps=[0.1], steps=1)))


def test_the_report_sets_the_classes_that_lose_most_first(tmp_path):
    records = measured(["clean", partial(sweep, norms=["linf"], eps=[0.0, 0.15], steps=20)])
    text = robusttune.report(records, tmp_path).read_text(encoding="utf-8")
    rows = text.split("<summary>Classes")[1].split("</details>")[0].splitlines()
    cells = [
        [cell.strip() for cell in row.strip("|").split("|")] for row in rows if row[:3] in {f"| {n}" for n in range(10)}
    ]
    images, labels = digits()
    with torch.no_grad():
        right = hardened()(images[:60]).argmax(1) == labels[:60]
    assert {int(row[0]): int(row[1]) for row in cells} == {n: int((labels[:60] == n).sum()) for n in range(10)}
    assert {int(row[0]): row[2] for row in cells} == {
        n: f"{100 * float(right[labels[:60] == n].float().mean()):.1f}%" for n in range(10)
    }
    drops = [float(row[4].split()[0]) for row in cells]
    assert drops == sorted(drops, reverse=True)
    assert drops[0] > 0


def test_survivors_of_several_batches_fill_whole_batches_again():
    """40 batches of 5 images, of which few survive: the attack after that is given 5 at a time, not what is left of each."""
    images, labels = digits()
    images, labels = images[:200], labels[:200]
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    with torch.no_grad():
        found = model(images).argmax(1)
    mixed = torch.where(torch.arange(200) % 4 == 0, found, (found + 1) % 10)  # a quarter is right
    given = []

    def counts(loss_of, pixels, threat, *, generator):
        given.append(len(pixels))
        return pixels.clone()

    batches = list(zip(images.split(5), mixed.split(5), strict=True))
    which = partial(sweep, norms=["linf"], eps=[0.0, 0.1], attack=counts, steps=None, losses=["margin"])
    records = robusttune.evaluate(model, batches, which, progress=False)
    assert [record.value for record in records] == [0.25, 0.25]
    assert sum(given) == 50
    assert given == [5, 5] * 5, "eight batches make a window, of which ten images are left"
    single = robusttune.evaluate(model, batches, partial(which, attack="pgd", steps=3), progress=False)
    assert single.hashes == records.hashes
