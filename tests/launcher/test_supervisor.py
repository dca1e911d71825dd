"""The supervisor with real child processes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from launcher import supervisor
from launcher.services import Service
from launcher.settings import Settings
from launcher.supervisor import Supervisor, next_backoff

SLEEPER = (sys.executable, "-c", "import time; time.sleep(600)")


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.02)
    return found


@pytest.fixture
def running(tmp_path):
    """Starts supervisors in threads; stops them and checks that nothing is left."""
    started = []

    def start(*services):
        made = Supervisor(services, {**os.environ, "ML_PIPELINE_SUPERVISED": str(tmp_path)}, tmp_path, {})
        thread = threading.Thread(target=made.run, args=(0.02,))
        thread.start()
        started.append((made, thread))
        return made

    yield start
    for made, thread in started:
        made.stopping.set()
        thread.join(30)
    assert supervisor.left_processes(tmp_path, None) == []


def state(home):
    try:
        return json.loads((home / supervisor.STATE_FILE).read_text())["children"]
    except FileNotFoundError:
        return {}


def test_a_killed_child_is_started_again(running, tmp_path):
    running(Service("sleeper", SLEEPER))
    first = wait_for(lambda: state(tmp_path).get("sleeper", {}).get("pid"))
    os.kill(first, signal.SIGKILL)
    again = wait_for(lambda: (child := state(tmp_path)["sleeper"])["pid"] not in (0, first) and child)
    assert again["restarts"] == 1
    assert again["last_exit"] == -signal.SIGKILL
    assert "starting again in 1 s" in (tmp_path / "logs" / "sleeper.log").read_text()


def test_what_a_dead_child_forked_is_ended(running, tmp_path):
    forker = f"import subprocess, time; subprocess.Popen({list(SLEEPER)!r}); time.sleep(600)"
    running(Service("forker", (sys.executable, "-c", forker)))
    first = wait_for(lambda: state(tmp_path).get("forker", {}).get("pid"))
    (grandchild,) = wait_for(lambda: psutil.Process(first).children())
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE)


def test_stop_ends_a_child_that_ignores_sigterm(running, tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "GRACE_SECONDS", 0.2)
    deaf = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    made = running(Service("deaf", (sys.executable, "-c", deaf)))
    log = tmp_path / "logs" / "deaf.log"
    wait_for(lambda: log.exists() and "deaf" in log.read_text())
    child = psutil.Process(state(tmp_path)["deaf"]["pid"])
    made.stopping.set()
    wait_for(lambda: not child.is_running())
    wait_for(lambda: not (tmp_path / supervisor.STATE_FILE).exists())


def test_backoff_doubles_to_a_cap_and_forgets_after_a_long_life():
    waits = [0.0]
    for _ in range(7):
        waits.append(next_backoff(waits[-1], lived_seconds=1))
    assert waits[1:] == [1, 2, 4, 8, 16, 30, 30]
    assert next_backoff(30, lived_seconds=120) == 1


def test_children_of_a_killed_supervisor_are_found_and_ended(tmp_path):
    orphan = subprocess.Popen(SLEEPER, env={**os.environ, "ML_PIPELINE_SUPERVISED": str(tmp_path)})
    stranger = subprocess.Popen(SLEEPER)
    try:
        killed = supervisor.stop_everything(Settings(home=tmp_path))
        assert killed == [orphan.pid]
        wait_for(lambda: not psutil.pid_exists(orphan.pid))
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_renamed_orphan_is_found_by_its_session(tmp_path):
    orphan = subprocess.Popen(SLEEPER, start_new_session=True)  # without the mark, as after setproctitle
    child = {"pid": orphan.pid, "create_time": psutil.Process(orphan.pid).create_time()}
    record = {"pid": 1 << 22, "create_time": 0.0, "children": {"api-server": child}}
    (tmp_path / supervisor.STATE_FILE).write_text(json.dumps(record))
    assert supervisor.stop_everything(Settings(home=tmp_path)) == [orphan.pid]
    assert not psutil.pid_exists(orphan.pid)


def test_a_reused_pid_is_not_taken_for_the_supervisor(tmp_path):
    record = {"pid": os.getpid(), "create_time": time.time() - 10_000, "children": {}}
    (tmp_path / supervisor.STATE_FILE).write_text(json.dumps(record))
    assert supervisor.read_state(tmp_path) is None
