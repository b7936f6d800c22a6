"""The stages of a trial: a pilot, a screening of all arms, and more seeds of the best arms until the needs are answered."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from robusttune.run.log import tell, warn
from robusttune.trial.budget import with_price
from robusttune.trial.data import Data, InputSpace, of_stages
from robusttune.trial.decision.decide import decide
from robusttune.trial.decision.page_of_stages import CHANGED
from robusttune.trial.decision.screened import kept_arms
from robusttune.trial.decision.significance import FEWEST_SEEDS
from robusttune.trial.decision.verdict import Decision, Verdict
from robusttune.trial.executors import ExecutorLike, run_jobs
from robusttune.trial.jobs import Job, states_of
from robusttune.trial.plan import PLAN, TrialPlan
from robusttune.trial.power import Scatter, SecondsOf, check_power, pilot_arms, power_of
from robusttune.trial.results import Trial, note_look, note_together, result_of, write_power
from robusttune.trial.screening import screening_of
from robusttune.trial.unfinished import unfinished

BESIDE = "jobs that run at the same time make each other slower: the times on the page, and the cost of the next stage, are then too high"


@dataclass(frozen=True)
class Conduct:
    """Runs the stages of a trial; what is finished in its folder is not run again.

    Attributes:
        folder: the folder of the trial.
        model: where every arm starts.
        data: the data of the trial.
        space: the model's input and its place.
        rewind: puts the loaders' random states back, so that every arm sees the same order.
        progress: show progress.
        executor: the executor that runs the jobs; None for one after the other.
    """

    folder: Path
    model: nn.Module
    data: Data
    space: InputSpace
    rewind: Callable[[], None]
    progress: bool
    executor: ExecutorLike = None

    def pilot(self, plan: TrialPlan, seconds_of: SecondsOf, *, allow_weak: bool) -> None:
        """Run the first of the screening's trainings, and write the power that they show.

        Args:
            plan: the plan of the trial.
            seconds_of: the cost of a plan.
            allow_weak: go on with a plan that finds not even a difference of five points.

        Raises:
            ValueError: the plan finds too little.
        """
        if plan.untrained_arm is None:
            warn(
                "there is no arm that does nothing, so the trial cannot tell whether hardening pays: add `nothing: []`",
                self.progress,
            )
        first = screening_of(plan)
        arms = pilot_arms(plan)
        if first is None or len(arms) < 2:
            return
        known = Trial.load(self.folder, plan).results  # a trial that has begun its second stage is past this
        allow_weak = allow_weak or any(result.seconds > 0 for result in known)
        if len(plan.seeds) < FEWEST_SEEDS and not allow_weak:
            raise ValueError(
                f"the plan has {len(plan.seeds)} seeds, with which no difference can be told from chance: pass at least "
                f"{FEWEST_SEEDS}, or allow_weak=True to run it as it is"
            )
        stage = replace(first, arms=dict(arms))
        self._run(plan, stage, "pilot")
        self._power(plan, stage, seconds_of, allow_weak=allow_weak)

    def _power(self, plan: TrialPlan, stage: TrialPlan, seconds_of: SecondsOf, *, allow_weak: bool = True) -> None:
        """Write the power of a plan, by the runs of a stage; refuse a plan that finds too little, or say so."""
        first, second = self._parts(plan)
        try:
            scatter = Scatter.of(Trial.of(stage, self.folder), apart=first.test is not second.test)
        except ValueError as error:
            if not allow_weak:
                raise
            warn(f"power is not known: {error}", self.progress)
            write_power(self.folder, {"not known": str(error)}, plan)
            return
        power = power_of(plan, scatter, seconds_of)
        write_power(self.folder, power, plan)
        chances = ", ".join(f"{points} with a chance of {share}" for points, share in power["chance to find"].items())
        tell(f"power: differences between arms of {chances}; the scatter is {power['scatter']}", self.progress)
        if not allow_weak:
            check_power(plan, scatter, seconds_of, self.folder / PLAN)

    def _parts(self, plan: TrialPlan) -> tuple[Data, Data]:
        """Return the data of both stages."""
        return of_stages(self.data, None if plan.screening is None else plan.screening["images"])

    def run(self, plan: TrialPlan, seconds_of: SecondsOf) -> Decision:
        """Run what is missing of both stages, up to the look at which the answer stands; return the decision."""
        first = screening_of(plan)
        if first is not None:
            self._run(plan, first, "screening")
            if len(pilot_arms(plan)) > 1:
                self._power(plan, first, seconds_of)
        trial = Trial.load(self.folder, plan)
        if trial.changed:
            warn(CHANGED, self.progress)
        if self.executor not in (None, "processes:1"):
            tell(BESIDE, self.progress)
        kept = kept_arms(trial)
        if len(kept) < len(plan.arms):
            tell(f"after the screening {', '.join(kept)} go on", self.progress)
        stage = replace(plan, arms={arm: plan.arms[arm] for arm in kept})
        looks = plan.looks or [len(plan.seeds)]
        for look in looks:
            self._run(plan, replace(stage, seeds=plan.seeds[:look]), f"look after {look} seeds")
            decision = decide(Trial.load(self.folder, plan))
            note_look(self.folder, plan, look)
            stands = decision.findings.answered and decision.verdict is not Verdict.NOT_ENOUGH
            if stands and look < looks[-1]:
                taken = replace(stage, seeds=plan.seeds[:look], looks=[each for each in looks if each <= look])
                saved = seconds_of(stage) - seconds_of(taken)  # of the arms that were kept
                tell(f"the answer stands after {look} seeds; about {with_price(saved, plan)} are saved", self.progress)
                break
        return decision

    def _run(self, plan: TrialPlan, stage: TrialPlan, name: str) -> None:
        """Train and measure the arms and seeds of one stage that have no result yet."""
        first, second = self._parts(plan)
        data = second if stage.looks is not None else first
        self.rewind()
        states, threads = states_of(data), torch.get_num_threads()
        here = self.progress and self.executor is None  # bars of several processes would write over each other
        folder = self.folder if self.executor is None else self.folder.absolute()  # workers may be in another directory
        jobs = (
            Job(self.model, stage, place, data, self.space, states, threads, here)
            for place in unfinished(folder, stage, name, self.progress)
        )
        if self.executor is None:
            run_jobs(jobs, None, self.progress)
            return
        sent = list(jobs)
        if len(sent) > 1 and self.executor != "processes:1":
            note_together(folder, self.executor)
        run_jobs(sent, self.executor, self.progress)
        _check_written(sent, stage, folder)


def _check_written(jobs: Sequence[Job], stage: TrialPlan, folder: Path) -> None:
    """Raise a ValueError if jobs ended elsewhere, but what they wrote is not here."""
    lost = [job.place for job in jobs if result_of(folder, stage, job.place.arm, job.place.seed) is None]
    if lost:
        names = ", ".join(f"{place.arm} with seed {place.seed}" for place in lost)
        raise ValueError(
            f"the executor has run {names}, but the results are not in {str(folder)!r}: let workers on other machines write to a "
            "disk that this one shares, under the same path, and pass it as out=; once they are here, go on with resume=True"
        )
