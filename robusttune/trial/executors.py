"""Executors of a trial's jobs: one after the other, a pool of processes, Ray, Slurm, or whatever has `submit`."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import contextmanager
from pickle import PicklingError
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

import torch

from robusttune.run.log import tell, warn
from robusttune.run.randomness import others_in_turn
from robusttune.trial.jobs import Job, run_job

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

ATTEMPTS = 3  # at a job whose worker was killed
KINDS = ("processes:2", "ray", "slurm")


class Result(Protocol):
    """Future of a job, as `submit` returns it: that of `concurrent.futures`, or any object with `result`."""

    def result(self) -> object:
        """Return what the job returned, or raise what it raised."""


class Executor(Protocol):
    """Anything with `submit`, as in `concurrent.futures`: a pool, submitit's executors, Dask's client."""

    def submit(self, run: Callable[..., object], /, *arguments: object) -> Result:
        """Run a function elsewhere."""


ExecutorLike: TypeAlias = Executor | str | None


def run_jobs(jobs: Iterable[Job], executor: ExecutorLike, progress: bool) -> None:
    """Run all jobs; with several workers at a time, in any order.

    Args:
        jobs: each writes into a folder of its own.
        executor: None for one job after the other in this process; "processes:N", "ray" or "slurm"; or an object with
            `submit`, which is left as it is.
        progress: tell of jobs that are done.

    Raises:
        ValueError: an unknown executor, or jobs that cannot be sent to another process.
        RuntimeError: a worker was killed again and again.
        ImportError: ray or submitit is not installed.
    """
    if executor is None:
        for job in jobs:
            job.run()
        return
    check_executor(executor)
    waiting = list(jobs)
    for attempt in range(1, ATTEMPTS + 1):
        with _opened(executor, waiting) as pool:
            waiting = _run(waiting, pool, progress)
        if not waiting:
            return
        again = "trying again" if attempt < ATTEMPTS and isinstance(executor, str) else "giving up"
        warn(f"{len(waiting)} jobs did not end, as a worker was killed: {again}", progress)
        if not isinstance(executor, str):
            break
    names = ", ".join(f"{job.place.arm} with seed {job.place.seed}" for job in waiting)
    raise RuntimeError(
        f"workers were killed while they ran {names}: look for the reason (memory, a time limit of the queue); with resume=True "
        "the trial goes on where it was"
    )


def check_executor(executor: ExecutorLike) -> None:
    """Raise a ValueError for what is no executor, before anything is run."""
    if executor is None or callable(getattr(executor, "submit", None)):
        return
    if isinstance(executor, str):
        kind, _, count = executor.partition(":")
        if executor in ("ray", "slurm") or (kind == "processes" and count.isdecimal() and int(count) > 0):
            return
    raise ValueError(
        f"executor is {executor!r}, but {', '.join(map(repr, KINDS))} or an object with submit() is needed, such as a "
        "concurrent.futures.ProcessPoolExecutor; None runs one job after the other"
    )


def _run(jobs: Sequence[Job], pool: Executor, progress: bool) -> list[Job]:
    """Send the jobs and wait for all of them; return those whose worker was killed.

    The first error of a job is raised when the others have ended.
    """
    running, killed, errors = [], list[Job](), list[Exception]()
    for job in jobs:
        try:
            running.append((job, pool.submit(run_job, job)))
        except BrokenExecutor:
            killed.append(job)
    for job, future in running:
        try:
            with others_in_turn():  # the pool may be one of threads
                future.result()
            tell(f"done: arm {job.place.arm}, seed {job.place.seed}", progress)
        except BrokenExecutor:
            killed.append(job)
        except Exception as error:  # other jobs go on, and what they do is kept
            killed += [job] * _is_crash(error)
            errors += [] if _is_crash(error) else [_explained(error, job)]
    if errors:
        raise errors[0]
    return killed


def _is_crash(error: Exception) -> bool:
    """Return True if an error of Ray's or submitit's says that the worker died."""
    return type(error).__name__ in ("WorkerCrashedError", "NodeDiedError", "UncompletedJobError", "OutOfMemoryError")


def _explained(error: Exception, job: Job) -> Exception:
    """Name the job whose error it is; an error of sending a job says what to do."""
    unsent = isinstance(error, PicklingError | AttributeError | TypeError) and "pickle" in str(error).lower()
    if unsent:
        return ValueError(
            f"a job cannot be sent to another process ({error}): define the model, the data set and its transforms in a module, "
            "at its top level, or leave out executor="
        )
    error.add_note(f"in arm {job.place.arm} with seed {job.place.seed}") if hasattr(error, "add_note") else None
    return error


@contextmanager
def _opened(executor: Executor | str, jobs: Sequence[Job]) -> Iterator[Executor]:
    """Yield an executor; one that was named is made, and closed at the end."""
    if not isinstance(executor, str):
        yield executor
        return
    kind, _, count = executor.partition(":")
    if kind == "processes":
        context = multiprocessing.get_context("spawn")  # a fork beside the threads of torch may wait for ever
        devices = context.SimpleQueue()
        for number in range(int(count)):
            devices.put(number)
        with ProcessPoolExecutor(int(count), context, _prepared, (devices,)) as pool:
            yield pool
    elif kind == "ray":
        yield _Ray()
    else:
        yield _slurm(jobs)


def _prepared(devices: "SimpleQueue[int]") -> None:
    """Prepare a worker process: it uses one accelerator, in turn with the other workers, and ends with the trial's process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    number = devices.get()
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())


def _end_with_parent() -> None:
    """End this worker when the trial's process is killed, so that it does not write beside a resumed trial."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class _Ray:
    """Ray's tasks with the interface of an executor; each has an accelerator of its own where the cluster has any."""

    def __init__(self) -> None:
        try:
            import ray
        except ImportError as error:
            raise ImportError("executor=\"ray\" needs Ray: pip install 'robusttune[ray]'") from error
        self.ray = ray
        if not ray.is_initialized():
            ray.init(log_to_driver=False, include_dashboard=False)
        self.gpus = min(1, ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]

    def submit(self, run: Callable[..., object], /, *arguments: object) -> Result:
        """Run a function as a task."""
        task = self.ray.remote(run).options(num_gpus=self.gpus, max_retries=ATTEMPTS)
        future: Result = task.remote(*arguments).future()
        return future


def _slurm(jobs: Sequence[Job]) -> Executor:
    """Return submitit's executor: Slurm's where there is a Slurm, else processes on this machine."""
    try:
        import submitit
    except ImportError as error:
        raise ImportError("executor=\"slurm\" needs submitit: pip install 'robusttune[slurm]'") from error
    trial = jobs[0].place.folder.parents[2]
    executor = submitit.AutoExecutor(folder=trial / "slurm")
    executor.update_parameters(name="robusttune", gpus_per_node=min(1, torch.cuda.device_count()))
    return cast(Executor, executor)
