"""Questions of the field about self-supervision beside, before and after adversarial training, put to our own runs.

    python -m examples.study.questions --only weight --seeds 0 1 2    # adds to the records
    python -m examples.study.questions --tables                      # from the records alone

`weight`: does a pretext loss beside adversarial training help, at which radii, and how does that grow with its weight?
`attack`: is it better to find the adversarial images with the pretext loss, too?
`start`: does pretext pre-training help at 1, 10 and 100% of the labels, and does a pretext loss add anything then?
`ood`: how well does the rotation head tell other images, before and after hardening?

Every run takes the default's steps, and differs in what its question asks. Which corruptions a task helps is answered by the runs of
`weight`, with the judge `corruptions`; what averages, AWP and the others buy is in the search.
"""

import tempfile
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import robusttune
from examples.images import digits
from examples.study import program
from examples.study.cases import Case, case, unseen
from examples.study.records import Facts, Study, one_thread, shared, table, timed
from robusttune import plugins
from robusttune.evaluations.ood import ood

STEPS = 1203  # of 32 images: those of the default in the search
BOTH = ("rotation", "jigsaw")
PRETRAINING = 4  # epochs over all images
FOREIGN = ("digits", "gaussian_noise", "fog", "pixelate")


def default(case: Case, model: nn.Module, images: Dataset, **settings: object) -> nn.Module:
    """The model after the default's steps."""
    return case.hardened(model, images, batch=32, max_steps=STEPS, preset="standard", **settings)


@shared
def trained(case: Case) -> nn.Module:
    """The model that the arms of `weight` and `attack` harden."""
    return case.start(case.images)


def beside(case: Case, *, attack_tasks: str = "none", **weights: float) -> nn.Module:
    """Hardened with these weights of pretext losses beside that of the class."""
    tasks = {"tasks": weights, "attack_tasks": attack_tasks} if weights else {"tasks": None}
    return default(case, trained(case), case.images, **tasks)


@shared
def begun(case: Case, pretext: str | None) -> nn.Module:
    """A model that has seen no labels: random, or pre-trained on all images."""
    torch.manual_seed(case.seed)
    model = case.setting.new()
    if pretext is not None:
        against = {"norm": case.setting.norm, "eps": case.setting.eps} if pretext == "adversarial" else {}
        settings = {"epochs": PRETRAINING, "lr": 0.1, "seed": case.seed, "device": "cpu", "progress": False}
        settings |= against
        robusttune.pretrain(model, case.loader(case.images), **settings)
    return model


def after(case: Case, *, pretext: str | None = None, supervised: bool = True, tasks: tuple[str, ...] = ()) -> nn.Module:
    """Hardened on the labelled images, after what the backbone has learned before.

    Args:
        case: its labels.
        pretext: rotation and jigsaw over all images first, "clean" or "adversarial".
        supervised: ordinary training on the labelled images, before hardening.
        tasks: pretext losses in hardening.
    """
    # The labels play no part in how it begins.
    model = begun(case._replace(labelled=case.images, unlabelled=case.images), pretext)
    if supervised:
        model = case.trained(model, case.labelled)
    inside = {"tasks": dict.fromkeys(tasks, 0.5), "attack_tasks": "none"} if tasks else {"tasks": None}
    return default(case, model.eval(), case.labelled, **inside)


WEIGHTS = (0.1, 0.5, 1.0)
ARMS: dict[str, dict[str, Callable[[Case], nn.Module]]] = {
    "weight": {
        "none": beside,
        **{f"{task} {weight:g}": partial(beside, **{task: weight}) for task in BOTH for weight in WEIGHTS},
        "patch_rotation 0.5": partial(beside, patch_rotation=0.5),
        "rotation and jigsaw 0.5": partial(beside, rotation=0.5, jigsaw=0.5),
    },
    "attack": {
        f"rotation and jigsaw 0.5, {way}": partial(beside, attack_tasks=way, rotation=0.5, jigsaw=0.5)
        for way in ("separate", "joint")
    },
    "start": {
        "random": partial(after, supervised=False),
        "pretext": partial(after, pretext="clean", supervised=False),
        "adversarial pretext": partial(after, pretext="adversarial", supervised=False),
        "labels": after,
        "pretext, labels": partial(after, pretext="clean"),
        "adversarial pretext, labels": partial(after, pretext="adversarial"),
        "labels, tasks inside": partial(after, tasks=BOTH),
        "pretext, labels, tasks inside": partial(after, pretext="clean", tasks=BOTH),
    },
    "ood": {"before": lambda case: case.start(case.images), "after": beside},
}
JUDGES = {"weight": ["sweep", "far", "corruptions"], "attack": ["sweep", "far"], "start": ["sweep"], "ood": []}
LABELS = {"start": (100, 1000, 10_000)}


def foreign(name: str) -> DataLoader:
    """Images that a model of Fashion-MNIST should not know: digits, or its own test images corrupted."""
    if name == "digits":
        return DataLoader(digits()[1], 250)
    batches, _ = zip(*unseen("cnn-linf", 500), strict=True)
    images = torch.cat(batches)
    corrupted = plugins.find("corruptions", name)(images, severity=3, generator=torch.Generator().manual_seed(0))
    return DataLoader(corrupted, 250)


def told_apart(case: Case, way: str) -> tuple[nn.Module, Facts]:
    """AUROC of the rotation head and the class together, for each kind of foreign image; the heads are fitted to the frozen model."""
    model, steps = case.start(case.images), {"max_steps": STEPS}
    if way == "before":  # one step that changes nothing, for the heads alone
        steps = {"max_steps": 1, "lr": 0.0, "ema": 0.0}
        for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.momentum = 0.0
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no weight of the model has changed")
        model = case.hardened(model, case.images, batch=32, preset="standard", tasks="auto", out=folder, **steps)
        heads = robusttune.load_heads(folder, model)
    others = [partial(ood, others=foreign(name)) for name in FOREIGN]
    records = robusttune.evaluate(model, unseen("cnn-linf", 500), others, heads=heads, progress=False)
    areas = [record.value for record in records if record.metric == "AUROC"]
    return model, dict(zip(FOREIGN, areas, strict=True))


def train(run: Facts) -> tuple[nn.Module, Facts]:
    """The model that a run ends with."""
    known = case(str(run["setting"]), int(str(run["labels"])), int(str(run["seed"])))
    if run["question"] == "ood":
        return told_apart(known, str(run["arm"]))
    return timed(lambda: ARMS[str(run["question"])][str(run["arm"])](known))


STUDY = Study("questions", train)


def tables(part: str | None = None) -> str:
    """One table for each question, or for one of them, and each setting."""
    parts = []
    for question, arms in ARMS.items() if part is None else [(part, ARMS[part])]:
        order = list(arms).index
        runs = [run for run in STUDY.runs() if run["question"] == question]
        for setting in dict.fromkeys(run["setting"] for run in runs):
            mine = [run for run in runs if run["setting"] == setting]
            groups = ["labels", "arm"] if question in LABELS else ["arm"]
            columns = FOREIGN if question == "ood" else COLUMNS
            shown = table(mine, groups, columns, order=lambda facts, order=order: (*facts[:-1], order(facts[-1])))
            parts.append(f"**{question}: {program.SETTINGS[setting].title}**\n\n{shown}")
    return "\n\n".join(parts)


COLUMNS = (
    *("clean", "0.25 eps", "0.5 eps", "0.75 eps", "1 eps", "1.25 eps", "1.5 eps", "2 eps"),
    *("noise", "blur", "weather", "digital"),
)


def main() -> None:
    """Run what is missing, or print the tables."""
    parser = program.parser(__doc__.splitlines()[0], [arm for arms in ARMS.values() for arm in arms], ["cnn-linf"])
    parser.add_argument("--only", nargs="+", choices=ARMS, default=list(ARMS))
    options = parser.parse_args()
    if options.tables:
        print(tables())
        return
    one_thread()
    for seed in options.seeds:
        for question in options.only:
            for setting in options.settings:
                for labels in LABELS.get(question, (10_000,)):
                    for arm in (arm for arm in ARMS[question] if arm in options.arms):
                        run = {"question": question, "setting": setting, "labels": labels, "arm": arm, "seed": seed}
                        STUDY.judge(run, JUDGES[question] or ["sweep"], again=options.again)


if __name__ == "__main__":
    main()
