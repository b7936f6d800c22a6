"""The lock of a folder: another process, another thread, a process that died, another machine."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from robusttune.run import lock

HOLDER = "import sys; from pathlib import Path; from robusttune.run.lock import locked\nwith locked(Path(sys.argv[1])): print('held', flush=True); input()"


def held_by_another(folder):
    """What a process says that asks for the lock, and ends at once."""
    asked = [sys.executable, "-c", HOLDER, str(folder)]
    done = subprocess.run(asked, input="\n", capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr


def trying(folder, before=lambda: None):
    """A list of what was refused, and a function that asks for the lock."""
    refused = []

    def try_it():
        before()
        try:
            with lock.locked(folder):
                pass
        except ValueError as error:
            refused.append(str(error))

    return refused, try_it


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_another_process_is_refused_by_name_until_the_first_one_ends(tmp_path, holder):
    who = rf"is in use by another run \(process {holder.pid} on .* since 20.*\): wait until it ends"
    with pytest.raises(ValueError, match=who), lock.locked(tmp_path):
        pass
    holder.communicate("\n")
    with lock.locked(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_died_leaves_the_folder_free_at_once(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / ".lock").exists()
    began = time.monotonic()
    with lock.locked(tmp_path):
        assert time.monotonic() - began < 1


def test_a_thread_may_lock_its_own_folder_again_and_another_one_may_not(tmp_path):
    refused, try_it = trying(tmp_path)
    with lock.locked(tmp_path):
        with lock.locked(tmp_path):
            pass
        other = threading.Thread(target=try_it)
        other.start()
        other.join()
    assert len(refused) == 1
    assert "in another thread" in refused[0]
    try_it()
    assert len(refused) == 1


@pytest.mark.parametrize("alive", [True, False])
def test_the_lock_of_another_machine_holds_as_long_as_it_shows_life(alive, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "STALE", 1.0)
    monkeypatch.setattr(lock, "POLL", 0.05)
    path = tmp_path / ".lock"
    path.write_text(json.dumps({"process": 7, "machine": "elsewhere", "since": "2026-01-01 00:00:00"}))
    over = threading.Event()

    def beat():
        while not over.wait(0.1):
            os.utime(path)

    if alive:
        threading.Thread(target=beat, daemon=True).start()
        with pytest.raises(ValueError, match="process 7 on elsewhere since 2026-01-01"), lock.locked(tmp_path):
            pass
        assert json.loads(path.read_text())["machine"] == "elsewhere"
    else:
        with lock.locked(tmp_path):
            assert json.loads(path.read_text())["process"] == os.getpid()
    over.set()


def test_a_sign_of_life_is_given(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.05)
    with lock.locked(tmp_path):
        first = (tmp_path / ".lock").stat().st_mtime_ns
        time.sleep(0.3)
        assert (tmp_path / ".lock").stat().st_mtime_ns > first


def test_many_processes_at_once_hold_it_one_after_the_other(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from robusttune.run.lock import locked\n"
        "folder, done = Path(sys.argv[1]), 0\n"
        "while done < 5:\n"
        "    try:\n"
        "        with locked(folder):\n"
        "            (folder / 'mine').touch(exist_ok=False); time.sleep(0.002); (folder / 'mine').unlink(); done += 1\n"
        "    except ValueError as error: assert 'in use' in str(error)\n"
        "print(done)"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [process.communicate()[0] for process in processes] == ["5\n"] * 3


def test_reading_the_file_in_the_same_process_does_not_free_it(tmp_path):
    with lock.locked(tmp_path):
        (tmp_path / ".lock").read_bytes()
        assert "is in use by another run" in held_by_another(tmp_path)


def test_a_forked_child_that_ends_leaves_the_lock_to_its_parent(tmp_path):
    with lock.locked(tmp_path):
        child = os.fork()
        if child == 0:
            try:
                raise SystemExit
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert (tmp_path / ".lock").exists()
        assert "is in use by another run" in held_by_another(tmp_path)


def test_an_error_at_the_release_does_not_cost_the_result(tmp_path, monkeypatch):
    def read_only(path, **more):
        raise OSError(30, "Read-only file system")

    reached = False
    with monkeypatch.context() as patched:
        patched.setattr(lock.Path, "unlink", read_only)
        with lock.locked(tmp_path):
            reached = True
    assert reached
    assert (tmp_path / ".lock").exists()  # it could not be removed, and is stale
    assert held_by_another(tmp_path) == "held"


def test_without_locks_of_the_system_signs_of_life_tell(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    monkeypatch.setattr(lock, "STALE", 1.0)
    monkeypatch.setattr(lock, "POLL", 0.05)
    monkeypatch.setattr(lock, "BEAT", 0.1)
    refused, try_it = trying(tmp_path, before=lock._held.clear)  # as in another process
    with lock.locked(tmp_path):
        other = threading.Thread(target=try_it)
        other.start()
        other.join()
    assert len(refused) == 1
    with lock.locked(tmp_path):
        pass
