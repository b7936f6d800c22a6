"""SIGTERM ends a run as Ctrl-C does, with a checkpoint of the step that it came in."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from killed_run import run
from short_runs import a_loader, a_model, hardened, same, weights_of

from robusttune.run import files
from robusttune.run.termination import CODE, Terminated, asked, awaited, deferred

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained

SCRIPT = Path(__file__).parents[1] / "support" / "killed_run.py"


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_sigterm_is_an_exit_with_the_code_of_a_shell_and_the_system_has_its_handler_back():
    with pytest.raises(Terminated) as raised, awaited():
        terminate()
    assert raised.value.code == CODE == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_sigterm_waits_for_the_end_of_a_step_and_a_second_one_does_not():
    steps = []

    def twice():
        steps.append(asked())
        terminate()
        steps.append(asked())
        terminate()
        steps.append("not reached")

    with pytest.raises(Terminated), awaited(), deferred():
        twice()
    assert steps == [False, True]
    with pytest.raises(Terminated), awaited(), deferred():
        terminate()  # and no step looks at it


def test_a_handler_of_the_users_stays_and_so_does_the_systems_in_another_thread():
    came = []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append(True))
    try:
        with awaited(), deferred():
            terminate()
            assert came == [True]
            assert not asked()
    finally:
        signal.signal(signal.SIGTERM, before)

    def elsewhere():
        with awaited():
            came.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert came[-1] is before


def test_a_process_that_is_forked_inside_a_run_ends_at_once():
    with awaited(), deferred():
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        time.sleep(0.5)  # Python forgets signals that come while it forks
        child.terminate()
        child.join(20)
        assert child.exitcode == -signal.SIGTERM
        assert not asked()


def test_a_run_inside_another_one_leaves_the_sigterm_to_the_outer_one():
    seen = []

    def inner():
        with awaited(), deferred():
            terminate()
        seen.append(asked())  # not raised here, as the outer run has a step to end

    with pytest.raises(Terminated), awaited(), deferred():
        inner()
    assert seen == [True]
    assert not asked()


def test_a_handler_that_the_user_sets_inside_stays():
    try:
        with awaited():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.mark.parametrize("kept", [True, False])
def test_a_sigterm_in_the_last_on_epoch_costs_the_run_only_without_a_folder_and_says_so(kept, tmp_path, caplog):
    model, out = a_model(), tmp_path / "run" if kept else None
    before = weights_of(model)

    def at_the_end(facts):
        trained.update(weights_of(model))
        if facts["epoch"] == 2:
            terminate()

    trained = {}
    with pytest.raises(Terminated):
        hardened(model, a_loader(80), epochs=2, tasks=None, ema=0.0, out=out, on_epoch=at_the_end)
    assert same(weights_of(model), before)
    assert not same(trained, before)
    said = "its checkpoints are kept in" if kept else "nothing of it is kept: with out= it could be resumed"
    assert said in caplog.text
    if kept:
        assert same(files.load_weights(out / files.LAST), trained)
        again = hardened(a_model(), a_loader(80), epochs=2, tasks=None, ema=0.0, out=out, resume=True)
        assert same(weights_of(again), files.load_weights(out))


def test_it_can_be_sent_to_another_process():
    assert pickle.loads(pickle.dumps(Terminated())).code == CODE


@pytest.mark.slow
def test_a_run_that_is_terminated_writes_the_step_it_was_at_says_so_and_goes_on_exactly(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    whole = run(tmp_path / "whole", resume=False, epochs=2).state_dict()
    torch.set_num_threads(threads)
    code = (
        "import os, signal, sys, torch\nfrom killed_run import run\nfrom robusttune.training import display\n"
        "shown = display.Display.after_step\n"
        "def after_step(self):\n"
        "    shown(self)\n"
        "    if self.training.progress.taken == 7: os.kill(os.getpid(), signal.SIGTERM)\n"
        "if sys.argv[2] == 'first': display.Display.after_step = after_step\n"
        "torch.save(run(sys.argv[1], resume=sys.argv[2] != 'first', epochs=2).state_dict(), sys.argv[3])"
    )
    weights = tmp_path / "weights.pt"
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent), "OMP_NUM_THREADS": "1"}

    def started(which):
        command = [sys.executable, "-c", code, str(tmp_path / "run"), which, str(weights)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    stopped = started("first")
    assert stopped.returncode == CODE, stopped.stderr
    assert "the run stopped; its checkpoints are kept in" in stopped.stderr
    assert files.load_state(tmp_path / "run")["plan"]["taken"] == 7  # checkpoint_every is 3
    assert started("resume").returncode == 0
    again = torch.load(weights, weights_only=True)
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())
