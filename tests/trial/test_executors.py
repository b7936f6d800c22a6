"""Jobs of a trial elsewhere: the same records as one after the other, and a worker that is killed costs nothing."""

import os
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from small_trials import KilledOnce, everything, loader, tried

from robusttune.run.randomness import own_randomness
from robusttune.trial import executors
from robusttune.trial.executors import check_executor
from robusttune.trial.results import Trial

CHANGES = {"arms": ["nothing", "adversarial", "rotation_joint"], "seeds": 2}


class InPlace:
    """An executor of somebody else, with `submit` alone."""

    def __init__(self):
        self.jobs = []

    def submit(self, run, /, *arguments):
        self.jobs.append(arguments[0])
        future = Future()
        try:
            future.set_result(run(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "t"
    tried(out, **CHANGES)
    return everything(out)


def shuffled():
    """Images in an order that a generator of the loader draws, which every job must find as it was."""
    plain = loader()
    return torch.utils.data.DataLoader(
        plain.dataset, batch_size=32, shuffle=True, generator=torch.Generator().manual_seed(5)
    )


@pytest.mark.slow
def test_an_executor_of_somebody_else_gives_the_records_of_one_after_the_other(whole, tmp_path):
    other = InPlace()
    tried(tmp_path / "t", executor=other, **CHANGES)
    assert everything(tmp_path / "t") == whole
    assert len(other.jobs) == 5  # two arms with two seeds, and doing nothing


class Threads:
    """A pool of threads, whose results are waited for a few seconds at most."""

    def __init__(self, seconds):
        self.pool, self.seconds = ThreadPoolExecutor(2), seconds

    def submit(self, run, /, *arguments):
        future = self.pool.submit(run, *arguments)
        return SimpleNamespace(result=lambda: future.result(self.seconds))


def test_jobs_in_threads_take_their_turns_while_the_trial_waits():
    """A trial holds the random states of the process, which its jobs need."""
    seen = []

    def run():
        with own_randomness(3):
            seen.append(float(torch.rand(())))

    jobs = [SimpleNamespace(run=run, place=SimpleNamespace(arm="a", seed=seed)) for seed in range(3)]
    with own_randomness(0), own_randomness(1):
        executors.run_jobs(jobs, Threads(5), progress=False)
        after = float(torch.rand(()))
    with own_randomness(1):
        assert after == float(torch.rand(()))
    assert len(seen) == 3
    assert len(set(seen)) == 1


@pytest.mark.slow
def test_a_trial_in_threads_gives_the_same_records(whole, tmp_path):
    tried(tmp_path / "t", executor=Threads(300), **CHANGES)
    assert everything(tmp_path / "t") == whole


@pytest.mark.slow
def test_two_processes_at_once_give_the_same_records(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "robusttune")
    monkeypatch.setattr("small_trials.loader", lambda count=64, seed=0: shuffled())
    for name, executor in (("one", None), ("two", "processes:2")):
        tried(tmp_path / name, executor=executor, **CHANGES)
        assert ("jobs that run at the same time make each other slower" in caplog.text) == (name == "two")
    assert everything(tmp_path / "one") == everything(tmp_path / "two")
    assert len(everything(tmp_path / "one")) == 6


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_and_its_job_tried_again(tmp_path, caplog):
    job = KilledOnce(tmp_path / "mark")
    executors.run_jobs([job], "processes:1", progress=False)
    assert (tmp_path / "mark").exists()
    assert "1 jobs did not end, as a worker was killed: trying again" in caplog.text


def test_a_pool_that_breaks_is_told_with_what_to_do():
    class Broken:
        def submit(self, run, /, *arguments):
            raise BrokenExecutor

    with pytest.raises(RuntimeError, match=r"workers were killed while they ran killed with seed 0.*resume=True"):
        executors.run_jobs([KilledOnce(None)], Broken(), progress=False)


def test_what_is_no_executor_is_refused_before_anything_is_run(tmp_path):
    for wrong in ("processes", "processes:0", "process:2", 3, object()):
        with pytest.raises(
            ValueError, match=r"executor is .*, but 'processes:2', 'ray', 'slurm' or an object with submit\(\)"
        ):
            check_executor(wrong)
    with pytest.raises(ValueError, match="executor is 'dask'"):
        tried(tmp_path / "t", executor="dask")
    assert not (tmp_path / "t").exists()


@pytest.mark.slow
def test_a_job_that_cannot_be_sent_says_what_to_change(tmp_path):
    with (
        ProcessPoolExecutor(1) as pool,
        pytest.raises(ValueError, match=r"a job cannot be sent to another process.*top level"),
    ):
        executors.run_jobs([KilledOnce(lambda: None)], pool, progress=False)


def test_an_error_of_a_job_is_raised_when_the_others_have_ended(tmp_path):
    class Odd(InPlace):
        def submit(self, run, /, *arguments):
            if arguments[0].place.arm == "adversarial":
                future = Future()
                future.set_exception(OSError("disk full"))
                return future
            return super().submit(run, *arguments)

    with pytest.raises(OSError, match="disk full"):
        tried(tmp_path / "t", executor=Odd(), **CHANGES)
    done = {(each.arm, each.seed) for each in Trial.load(tmp_path / "t").results}
    assert done == {("nothing", 0), ("nothing", 1), ("rotation_joint", 0), ("rotation_joint", 1)}


class Elsewhere(InPlace):
    """Workers with another working directory, as those of a cluster have."""

    def __init__(self, directory):
        super().__init__()
        self.directory = directory

    def submit(self, run, /, *arguments):
        before = os.getcwd()
        os.chdir(self.directory)
        try:
            return super().submit(run, *arguments)
        finally:
            os.chdir(before)


def test_workers_in_another_directory_write_into_the_folder_of_the_trial(tmp_path, monkeypatch):
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path)
    tried("t", executor=Elsewhere(tmp_path / "away"), arms=["nothing", "adversarial"], seeds=1)
    assert list((tmp_path / "away").iterdir()) == []
    assert len(everything("t")) == 2
    for page in ("decision", "one-side"):  # whose times are of jobs at the same time, also where it is written again
        assert "Trainings ran at the same time and made each other slower" in (tmp_path / f"t/{page}.html").read_text()
    assert Trial.load("t").together
    tried("alone", arms=["nothing", "adversarial"], seeds=1)
    assert not Trial.load("alone").together
    assert "at the same time" not in (tmp_path / "alone/decision.md").read_text()


def test_results_that_workers_wrote_to_another_disk_are_asked_for(tmp_path):
    class OnAnotherDisk:
        def submit(self, run, /, *arguments):
            future = Future()
            future.set_result("/nowhere")
            return future

    with pytest.raises(
        ValueError, match=r"the executor has run nothing with seed 0, .*the results are not in .*shares"
    ):
        tried(tmp_path / "t", executor=OnAnotherDisk(), **CHANGES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ray", "slurm"])
def test_ray_and_submitit_give_the_same_records(name, whole, tmp_path):
    pytest.importorskip("ray" if name == "ray" else "submitit")
    tried(tmp_path / "t", executor=name, **CHANGES)
    assert everything(tmp_path / "t") == whole
