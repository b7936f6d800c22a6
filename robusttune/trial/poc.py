"""The staged trial: a plan with its cost, arms at equal compute, and a page to decide by."""

import copy
import importlib.util
import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from robusttune import plugins
from robusttune.measuring.evaluate import evaluate
from robusttune.model.checks import check_model
from robusttune.run import files, randomness
from robusttune.run import folder as run_folder
from robusttune.run.log import tell
from robusttune.run.provenance import fingerprint
from robusttune.run.randomness import own_randomness
from robusttune.tasks._heads import TASKS
from robusttune.trial.budget import check_budget
from robusttune.trial.cost import Costs, estimated
from robusttune.trial.data import Data, divided
from robusttune.trial.decision import decide
from robusttune.trial.phases import calls_of
from robusttune.trial.plan_defaults import (
    RULE,
    check_plan,
    chosen_arms,
    chosen_budget,
    chosen_corruptions,
    chosen_seeds,
    chosen_threats,
    items_of,
    write_plan,
)
from robusttune.trial.results import (
    PLAN,
    RECORDS,
    START,
    Trial,
    item_place,
    named,
    phase_place,
    place_of,
    plain,
    read_plan,
    result_of,
    threat_of,
)
from robusttune.types import Json

ASKED = (
    "threats", "corruptions", "arms", "tasks", "seeds", "epochs", "images", "evaluation", "budget", "price", "settings",
    "decision",
)  # fmt: skip
SPACE = ("mean", "std", "normalized", "classifier", "device")


def poc(
    model: nn.Module,
    loader: Any,
    *,
    threats: Any = ("linf", "l2"),
    corruptions: str | Sequence[str] = ("noise", "blur", "weather", "digital"),
    test_loader: Any = None,
    unlabeled_loader: Any = None,
    arms: Any = None,
    tasks: Mapping[str, float] | None = TASKS,
    seeds: int | Sequence[int] = 3,
    epochs: float = 3,
    images: int = 1000,
    evaluation: Sequence[Any] | None = None,
    budget: float | None = None,
    price: float | None = None,
    settings: Mapping[str, Any] | None = None,
    decision: Mapping[str, Any] | None = None,
    mean: Any = None,
    std: Any = None,
    normalized: bool | None = None,
    classifier: str | None = None,
    device: Any = "auto",
    out: str | Path = "runs/poc",
    plan_only: bool = False,
    resume: bool = False,
    progress: bool = True,
    notes: Mapping[str, Json] | None = None,
) -> Path:
    """Try on the user's own data which training pays: the path of a page to decide by; the model is left as it is.

    First a plan is written, `plan.yaml`, with arms, seeds, what is measured, and what that is estimated to cost. Then
    arms are trained and measured, seed by seed, all from the model's weights, at equal compute, on the same images; what
    was finished before a kill is not repeated. `robusttune.trial.results.Trial.load(out)` reads the plan and the numbers.

    Args:
        model: images -> logits (N,K): where every arm starts.
        loader: yields (images, labels) to train on, as for `harden`.
        threats: adversaries: {norm: eps}, or norms at their customary radii; arms train against the first one, and are
            attacked by all, below, at and above their radii, those of norms that are not named among them.
        corruptions: that matter, by name, or by family: "noise", "blur", "weather", "digital".
        test_loader: images to measure on, which nothing is trained on; a fifth of a plain DataLoader's unless given.
        unlabeled_loader: more images, for pretext tasks: pre-training takes these alone.
        arms: what to compare: names in `robusttune.trial.arms`, such as "adversarial", or of single arms, such as
            "rotation_joint"; {name: phases} for one's own, as in the plan; all unless given.
        tasks: pretext tasks and their weights.
        seeds: how many, or which; under three, differences cannot be told from chance.
        epochs: of adversarial training without pretext tasks; the other arms take as many passes through the model.
        images: test images to measure on.
        evaluation: what to measure instead: names of evaluations, or {name: {setting: value}}.
        budget: what all may cost, in seconds; with a price, in money.
        price: of an hour.
        settings: of `harden`, for all arms, such as {"lr": 0.01}.
        decision: what it is decided by, such as {"worthwhile": 0.05, "clean_loss": 0.02}: settings of
            `robusttune.trial.decision.decide.decide`.
        mean, std, normalized, classifier, device: see `harden`.
        out: a folder for the plan, the runs and the page.
        plan_only: only write the plan, whose path comes back.
        resume: go on with the trial in `out`, after its plan as it is now.
        progress: show progress.
        notes: more to write into `run.json` in `out`.

    Raises:
        ValueError: arguments or a plan that do not fit, or a plan over the budget, with what to drop.
    """
    given = dict(locals())
    check_model(model)
    if not plan_only:
        _check_installed()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("a trial runs in one process: start it without torchrun, or harden single arms under torchrun")
    with own_randomness(0), _rewound(loader, unlabeled_loader) as rewind:
        return _tried(given, rewind)


def _check_installed() -> None:
    """Raise an ImportError now for what the page would lack after hours."""
    missing = [name for name in ("scipy", "matplotlib", "markdown") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"the decision page needs {', '.join(missing)}: pip install 'robusttune[poc]'")


def _tried(given: Mapping[str, Any], rewind: Callable[[], None]) -> Path:
    """The path of the page, or of the plan where only that is asked for."""
    model, out, progress = given["model"], given["out"], given["progress"]
    data = divided(given["loader"], given["test_loader"], given["unlabeled_loader"])
    plan = _plan_there(given, data) if given["resume"] else None
    plan = plan or _new_plan(given, data)
    check_plan(plan)
    space = {name: given[name] for name in SPACE}

    def calls_for(plan: Mapping[str, Any]) -> dict[str, Any]:
        return {arm: calls_of(plan, arm, data, space) for arm in plan["arms"]}

    calls = calls_for(plan)
    folder = run_folder.prepared(out, given["resume"])
    assert folder is not None
    costs = Costs(folder, model, data, space, progress=progress)
    known = costs.of(plan, calls)
    if not (folder / PLAN).exists():
        files.save_weights(folder / START, _tensors(model))
        run_folder.write_run(folder, {"arguments": {name: given[name] for name in ASKED}, **(given["notes"] or {})})
        write_plan(folder, {**plan, "estimated": estimated(plan, calls, known)})
    check_budget(plan, lambda edited: costs.of(edited, calls_for(edited)), folder / PLAN)
    if given["plan_only"]:
        return folder / PLAN
    for place in _places(folder, plan, progress):
        arm = copy.deepcopy(model)
        rewind()
        for number, call in enumerate(calls[place.arm]):
            call.run(
                arm, phase_place(place.folder, number, plan["arms"][place.arm][number]), place.seed, progress=progress
            )
        _measure(arm, plan, place, data, given)
    trial = Trial.load(folder)
    return decide.write(decide.decide(trial), folder)


@contextmanager
def _rewound(*loaders: Any) -> Iterator[Callable[[], None]]:
    """Something that brings the loaders' own generators back to where they are now, for each arm and at the end."""
    states = [randomness.random_states(loader) for loader in loaders]

    def rewind() -> None:
        for loader, state in zip(loaders, states, strict=True):
            randomness.restore_random_states(state, loader)

    try:
        yield rewind
    finally:
        rewind()


class _Place(NamedTuple):
    """An arm and a seed that are to be run, and where."""

    arm: str
    seed: int
    folder: Path


def _new_plan(given: Mapping[str, Any], data: Data) -> dict[str, Any]:
    """The plan that the arguments ask for."""
    threats = chosen_threats(given["threats"], data.sizes.shape)
    corruptions = chosen_corruptions(given["corruptions"])
    asked = given["evaluation"]
    return {
        "model": _named(given["model"]),
        "data": data.facts(),
        "budget": chosen_budget(given["budget"], given["price"]),
        "threats": threats,
        "seeds": chosen_seeds(given["seeds"]),
        "epochs": given["epochs"],
        "settings": dict(given["settings"] or {}),
        "arms": chosen_arms(given["arms"], given["tasks"]),
        "evaluation": {
            "images": given["images"],
            "items": items_of(threats, corruptions) if asked is None else list(asked),
        },
        **({} if given["decision"] is None else {"decision": dict(given["decision"])}),
        "rule": RULE,
    }


def _plan_there(given: Mapping[str, Any], data: Data) -> dict[str, Any] | None:
    """The plan in the folder, which comes before arguments; None where there is none.

    Raises:
        ValueError: it is of another model or other images, or an argument asks for something new.
    """
    folder = Path(given["out"])
    if not (folder / PLAN).exists():
        return None
    plan = read_plan(folder)
    for name, now in (("model", _named(given["model"])), ("data", data.facts())):
        if plan.get(name) != now:
            start = f"; the weights that it starts from are in {str(folder / START)!r}" if name == "model" else ""
            raise ValueError(
                f"{str(folder / PLAN)!r} is of {name} {plan.get(name)}, but this is {now}{start}: pass what the plan was "
                "made for, or name another folder"
            )
    before = json.loads((folder / files.RUN).read_text(encoding="utf-8"))["arguments"]
    asked = {name: given[name] for name in ASKED if given[name] != inspect.signature(poc).parameters[name].default}
    new = [name for name, value in plain(asked).items() if value != before.get(name)]
    if new:
        raise ValueError(
            f"{', '.join(f'{name}={given[name]!r}' for name in new)} was not asked for when {str(folder / PLAN)!r} was "
            "written: edit the plan, which comes first, or name another folder"
        )
    return plan


def _places(folder: Path, plan: Mapping[str, Any], progress: bool) -> Iterator[_Place]:
    """What is still to be run: whole seeds first, so that what there is can be compared at any time."""
    pairs = [(arm, seed) for seed in plan["seeds"] for arm in plan["arms"]]
    for number, (arm, seed) in enumerate(pairs, 1):
        if result_of(folder, plan, arm, seed) is None:
            tell(f"arm {arm}, seed {seed} ({number} of {len(pairs)})", progress)
            yield _Place(arm, seed, place_of(folder, plan, arm, seed))


def _measure(model: nn.Module, plan: Mapping[str, Any], place: _Place, data: Data, given: Mapping[str, Any]) -> None:
    """Measure all items that are not measured yet, on the same images and with the same chance for every arm."""
    norm, eps = threat_of(plan) or ("linf", None)
    space = {name: given[name] for name in ("mean", "std", "normalized", "device", "progress")}
    for item in plan["evaluation"]["items"]:
        folder = item_place(place.folder, plan, item)
        if (folder / RECORDS).exists():
            continue
        name, settings = named(item)
        what: Callable[..., Any] = plugins.configured("evaluations", name, **settings)
        subset = plan["evaluation"]["images"]
        evaluate(model, data.test, what, norm=norm, eps=eps, subset=subset, out=folder, resume=True, seed=0, **space)


def _named(model: nn.Module) -> str:
    return f"{type(model).__name__} {fingerprint(model)}"


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
