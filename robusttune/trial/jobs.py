"""One training of a trial as a job: it reads what it is sent, and writes into the trial's folder alone."""

import copy
from dataclasses import dataclass

import torch
from torch import nn

from robusttune.run.randomness import States, own_randomness, random_states, restore_random_states
from robusttune.trial.data import Data, InputSpace
from robusttune.trial.phases import calls_of
from robusttune.trial.plan import TrialPlan
from robusttune.trial.unfinished import Place, measure, train
from robusttune.types import Loader


@dataclass(frozen=True)
class Job:
    """An arm with a seed: everything that another process needs to train and to measure it.

    Attributes:
        model: where every arm starts.
        plan: the plan of the stage.
        place: the arm, the seed and their folder.
        data: the data of the stage.
        space: the model's input and its place.
        states: random states that every arm starts with.
        threads: the number of threads of torch, as more or fewer may change the last bits.
        progress: show progress.
    """

    model: nn.Module
    plan: TrialPlan
    place: Place
    data: Data
    space: InputSpace
    states: list[States]
    threads: int
    progress: bool

    def run(self) -> str:
        """Train and measure what is missing of it, and return its folder; a job that was killed goes on where it was."""
        before = torch.get_num_threads()
        with own_randomness(0):
            try:
                torch.set_num_threads(self.threads)
                model = copy.deepcopy(self.model)
                for states, loader in zip(self.states, _loaders(self.data), strict=True):
                    restore_random_states(states, loader)
                calls = calls_of(self.plan, self.place.arm, self.data, self.space)
                train(model, calls, self.place, self.plan, self.progress)
                measure(model, self.place, self.plan, self.data, self.space, self.progress)
            finally:
                torch.set_num_threads(before)
        return str(self.place.folder)


def run_job(job: Job) -> str:
    """Run a job, in whatever process this is."""
    return job.run()


def states_of(data: Data) -> list[States]:
    """Return the present random states, with those of the training loaders."""
    return [random_states(loader) for loader in _loaders(data)]


def _loaders(data: Data) -> list[Loader | None]:
    return [data.unlabeled, data.loader]
