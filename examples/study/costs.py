"""How long a step of an arm takes, as a multiple of the reference's: so that arms can be compared at equal seconds."""

import itertools
import time
from collections.abc import Callable, Sequence
from statistics import median

from torch.optim.optimizer import register_optimizer_step_post_hook

from examples.study.records import Facts, Study
from robusttune.training.schedule import LATE

COST = "cost"  # in the place of a seed
STEPS = 26  # of a run that is timed


def measure(
    study: Study, place: str, arms: Sequence[str], reference: str, train: Callable[..., object], rounds: int
) -> None:
    """Write down how many times as long as the reference's a step of each arm takes: seconds of the processor, alternately.

    Args:
        study: whose records get it.
        place: what it holds for: a setting, or a model.
        arms: to be measured; those that are known already are left out.
        train: (arm, steps=) takes so many steps.
        rounds: of alternation; the record has the median of the ratios, and the smallest and largest.
    """
    missing = [arm for arm in arms if arm != reference and ratio(study, place, arm) is None]
    times: dict[str, list[float]] = {arm: [] for arm in [reference, *missing]}
    for _ in range(rounds if missing else 0):
        for arm, taken in times.items():
            taken.append(seconds(train, arm))
    for arm in missing:
        ratios = [mine / plain for mine, plain in zip(times[arm], times[reference], strict=True)]
        spread = [round(min(ratios), 3), round(max(ratios), 3)]
        study.add(_run(place, arm), cost=round(median(ratios), 3), spread=spread)


def seconds(train: Callable[..., object], arm: str) -> float:
    """Seconds of the processor for one step, from one update of the weights to the next.

    The mean of the medians before and after the attack may change, in their shares of a run.
    """
    updated: list[float] = []
    hook = register_optimizer_step_post_hook(lambda *_: updated.append(time.process_time()))
    train(arm, steps=STEPS)
    hook.remove()
    taken = [after - before for before, after in itertools.pairwise(updated)]
    late = round(LATE * STEPS)
    return LATE * median(taken[1 : late - 1]) + (1 - LATE) * median(taken[late:])


def ratio(study: Study, place: str, arm: str) -> float | None:
    """The measured ratio of an arm; None for one that was not measured."""
    found = [line["cost"] for line in study.lines() if "cost" in line and line["run"] == _run(place, arm)]
    return float(found[-1]) if found else None


def steps(study: Study, place: str, arm: str, reference_steps: int, reference: str = "plain") -> int:
    """Steps of an arm that take as long as the reference's steps."""
    cost = 1.0 if arm == reference else ratio(study, place, arm)
    if cost is None:
        raise SystemExit(f"how long a step of {arm!r} takes is not known: measure it for {place} first, with --cost")
    return round(reference_steps / cost)


def _run(place: str, arm: str) -> Facts:
    return {"setting": place, "arm": arm, "seed": COST}
