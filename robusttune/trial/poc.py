"""The staged trial: a plan with its cost, arms at equal compute, and a page to decide by."""

import importlib.util
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from robusttune.model.checks import check_model
from robusttune.model.undoing import undone
from robusttune.run import files, randomness
from robusttune.run import folder as run_folder
from robusttune.run.log import Tracker
from robusttune.run.randomness import own_randomness
from robusttune.run.settings import check_settings
from robusttune.run.tracking import check_log
from robusttune.tasks import TasksLike
from robusttune.training.stages import FOLDER
from robusttune.trial.arms import Settings
from robusttune.trial.arms._phase import Item
from robusttune.trial.budget import check_budget, fitting_seeds
from robusttune.trial.conduct import Conduct
from robusttune.trial.cost import Costs
from robusttune.trial.data import InputSpace, divided
from robusttune.trial.decision import decide
from robusttune.trial.executors import ExecutorLike, check_executor
from robusttune.trial.plan import PLAN, TrialPlan
from robusttune.trial.plan_defaults import ArmLike, PlanRequest, Threats, chosen_tasks, new_plan
from robusttune.trial.request_checks import chosen_seeds
from robusttune.trial.results import START
from robusttune.trial.resumed import earlier_plan, input_arguments, name_of
from robusttune.trial.start import check_start, finetuned_start
from robusttune.trial.tracked import trial_tracked
from robusttune.types import Channels, DeviceLike, Json, Loader, PathLike, check_path


def poc(
    model: nn.Module,
    loader: Loader,
    *,
    threats: Threats = ("linf", "l2"),
    corruptions: str | Sequence[str] = ("noise", "blur", "weather", "digital"),
    test_loader: Loader | None = None,
    unlabeled_loader: Loader | None = None,
    arms: ArmLike | Sequence[ArmLike] | None = None,
    tasks: TasksLike = None,
    needs: str | Sequence[str] = "attack",
    screening: Settings | bool | None = None,
    seeds: int | Sequence[int] | None = None,
    finetune: int = 0,
    epochs: float = 3,
    images: int = 3000,
    evaluation: Sequence[Item] | None = None,
    budget: float | str | None = None,
    price: float | None = None,
    currency: str | None = None,
    cloud: Mapping[str, float] | None = None,
    settings: Settings | None = None,
    decision: Settings | None = None,
    mean: Channels | None = None,
    std: Channels | None = None,
    normalized: bool | None = None,
    classifier: str | None = None,
    device: DeviceLike = "auto",
    out: PathLike = "runs/poc",
    plan_only: bool = False,
    allow_weak: bool = False,
    resume: bool = False,
    executor: ExecutorLike = None,
    log: str | Tracker | None = None,
    progress: bool = True,
    notes: Mapping[str, Json] | None = None,
) -> Path:
    """Compare several ways of training (arms) on your data; return the path of a page to decide by. The model does not change.

    First it writes the plan, `plan.yaml`: arms, seeds, evaluation items and their estimated cost, and after a pilot of a few
    short runs the differences that the plan can detect. Then all arms are screened in short runs. The best ones are trained
    and measured seed by seed, with other seeds and on other images, until the needs are answered. All arms start from the
    model's weights, and get the same compute. After an interruption, finished runs are not repeated.
    `robusttune.trial.results.Trial.load(out)` reads the plan and the results.

    Args:
        model: images -> logits (N,K); every arm starts from its weights.
        loader: yields (images, labels) to train on, as for `harden`.
        threats: adversaries: {norm: eps}, or norms, which take their usual radii. Arms train against the first one. They are
            measured under all, below, at and above their radii, and under norms that are not named.
        corruptions: corruptions to measure, by name, or by family: "noise", "blur", "weather", "digital".
        test_loader: images to measure on, never used for training; by default a fifth of a plain DataLoader's images.
        unlabeled_loader: images without labels, for self-training and pretext tasks; pre-training uses these alone.
        arms: ways of training to compare: names in `robusttune.trial.arms`, such as "adversarial", or of single arms, such as
            "rotation_joint"; {name: phases} for an arm of yours, as in the plan. By default "nothing", "ordinary",
            "adversarial", "pgd", "fast" and "ordinary_adversarial", "self_training" if there are images without labels, and
            those with `tasks`.
        tasks: pretext tasks and their weights, as for `harden`, for arms with these tasks in pre-training, and beside
            adversarial training; names alone take the weight 0.5.
        needs: questions that the trial must answer: "attack" (the first threat, at its radius), "clean", another norm, or a
            family of corruptions. The significance is corrected for their number. All else that is measured is exploratory.
        screening: settings of the first stage (`robusttune.trial.screening.Screening`), such as {"seeds": 3, "keep": 4}: how
            many short runs each arm gets, and how many arms are kept. By default two seeds, a third of the epochs, and three
            arms; False for no screening.
        seeds: seeds of the arms that are kept: their largest number, or a list such as [0, 1, 2]. By default as many as the
            budget pays for, up to 20, and 8 without a budget. With fewer than three, no difference can be significant.
        finetune: epochs of ordinary training of the model, before the plan is written and its cost is measured; every arm
            starts from the result. For a model whose classifier is new.
        epochs: epochs of adversarial training without pretext tasks; the other arms take as many passes through the model.
        images: largest number of test images to measure on; the screening takes others, a third as many.
        evaluation: items to measure instead of the default: names of evaluations, or {name: {setting: value}}.
        budget: limit of the whole trial's cost: seconds, or a text such as "2h"; with a price, money.
        price: price of an hour on this machine.
        currency: currency of the prices, such as "EUR", for the page.
        cloud: a rented machine, to compare with this one on the page: {"price an hour": 2.5, "times as fast": 12}, its price, and
            how many times as fast it trains (run `robusttune estimate` on both).
        settings: arguments of `harden` for all arms, such as {"lr": 0.01}.
        decision: criteria of the decision, such as {"worthwhile": 0.05, "clean_loss": 0.02}: arguments of
            `robusttune.trial.decision.decide.decide`.
        mean, std, normalized, classifier, device: see `harden`.
        out: folder for the plan, the runs and the page.
        plan_only: write the plan and run its pilot, no more, and return the plan's path.
        allow_weak: run the plan even if its power is below 80% for a difference of five points between arms.
        resume: continue the trial in `out`, by its plan as it is now.
        executor: runs several trainings at the same time: "processes:2" (two processes of this machine), "ray", "slurm"
            (submitit), or an object with `submit`, such as a pool of `concurrent.futures`. On the CPU the records are the same,
            bit for bit, as those of one training after the other. Model and loaders must be objects that pickle can send.
        log: a tracker that gets settings, numbers and the page: "mlflow", "wandb", "tensorboard", or an object.
        progress: show progress.
        notes: more entries of `run.json` in `out`.

    Raises:
        ValueError: arguments or a plan that do not fit, a plan over the budget, or one with too little power; the error lists
            what to change.
        ImportError: a package that the page needs is not installed.
    """
    check_model(model)
    check_executor(executor)
    check_settings({"notes": notes, "finetune": finetune, "out": out, "plan_only": plan_only, "progress": progress})
    check_path("out", out)
    check_settings({"resume": resume, "allow_weak": allow_weak, "normalized": normalized, "classifier": classifier})
    check_log(log, out)
    if not plan_only:
        _check_installed()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("a trial runs in one process: start it without torchrun, or harden single arms under torchrun")
    request = PlanRequest(
        threats=threats,
        corruptions=corruptions,
        arms=arms,
        tasks=chosen_tasks(tasks),
        needs=needs,
        screening=screening,
        seeds=None if seeds is None else chosen_seeds(seeds),
        finetune=finetune,
        epochs=epochs,
        images=images,
        evaluation=evaluation,
        budget=budget,
        price=price,
        currency=currency,
        cloud=cloud,
        settings=settings,
        decision=decision,
    )
    space = InputSpace(mean=mean, std=std, normalized=normalized, classifier=classifier, device=device)
    with own_randomness(0), _rewound(loader, unlabeled_loader) as rewind:
        data = divided(loader, test_loader, unlabeled_loader)
        if finetune or not resume:
            new_plan(request, name_of(model), data).check()  # so that what does not fit shows first
        with (
            run_folder.prepared(Path(out), resume, beside=[FOLDER] if finetune else []) as folder,
            trial_tracked(log, folder, vars(request)) as written,
        ):
            assert folder is not None
            weak = allow_weak or plan_only
            conduct = Conduct(folder, model, data, space, rewind, progress, executor)
            conduct, costs, plan = _planned(conduct, request, notes or {}, resume=resume, weak=weak)
            conduct.pilot(plan, costs.seconds, allow_weak=weak)
            if plan_only:
                return written(folder / PLAN)
            return written(decide.write(conduct.run(plan, costs.seconds), folder))


def _planned(
    conduct: Conduct, request: PlanRequest, notes: Mapping[str, Json], *, resume: bool, weak: bool
) -> tuple[Conduct, Costs, TrialPlan]:
    """Read the plan in the folder, or write one; the model is trained ordinarily before, where that was asked.

    Args:
        conduct: the conduct of the trial, with the model as it was passed.
        request: arguments of `poc`.
        notes: for `run.json`.
        resume: go on with the trial in the folder.
        weak: only warn of too few held-out images.

    Raises:
        ValueError: a plan that does not fit or is over its budget, or images that do not fit.
    """
    folder, model, data, space, progress = conduct.folder, conduct.model, conduct.data, conduct.space, conduct.progress
    if request.finetune:
        model, resume = finetuned_start(model, data, space, request, folder, resume, progress), True
    defaults = {name: each.default for name, each in inspect.signature(poc).parameters.items()}
    plan = earlier_plan(folder, request, defaults, model, data, space, progress) if resume else None
    plan = plan or new_plan(request, name_of(model), data)
    plan.check()
    check_start(model, data, space, plan, folder, allow_weak=weak, progress=progress)
    costs = Costs(folder, model, data, space, progress=progress)
    if not (folder / PLAN).exists():
        fits = request.seeds is None and request.budget is not None
        plan = fitting_seeds(plan, costs.of) if fits else plan
        plan = replace(plan, estimated=costs.estimated(plan))
        _start(folder, request, plan, model, space, notes)
    check_budget(plan, costs.of, folder / PLAN)
    return replace(conduct, model=model), costs, plan


def _check_installed() -> None:
    """Raise an ImportError before the training, rather than after it, when the page is written."""
    missing = [name for name in ("scipy", "matplotlib", "markdown") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"the decision page needs {', '.join(missing)}: pip install 'robusttune[poc]'")


@contextmanager
def _rewound(*loaders: Loader | None) -> Iterator[Callable[[], None]]:
    """Yield a function that restores the loaders' random states at the start of this context; it also runs at the end."""
    states = [randomness.random_states(loader) for loader in loaders]

    def rewind() -> None:
        for loader, state in zip(loaders, states, strict=True):
            randomness.restore_random_states(state, loader)

    with undone(rewind):
        yield rewind


def _start(
    folder: Path,
    request: PlanRequest,
    plan: TrialPlan,
    model: nn.Module,
    space: InputSpace,
    notes: Mapping[str, Json],
) -> None:
    """Write the model's weights, the arguments with notes, and the plan."""
    files.save_weights(folder / START, _tensors(model))
    arguments = {**vars(request), **input_arguments(space)}
    run_folder.write_run(folder, run_folder.with_notes({"arguments": arguments}, notes))
    plan.write(folder)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
