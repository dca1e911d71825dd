"""Process groups: their logs, folders and ends, also after local_aws itself was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from local_aws.execution import processes
from local_aws.execution.processes import Isolation, ProcessGroup, end_orphans

ENV = {"PATH": os.environ["PATH"]}


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(params=["namespaces", "rewriting"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "rewriting":
        monkeypatch.setattr(processes, "namespaces_supported", lambda: False)
    elif not processes.namespaces_supported():
        pytest.skip("this platform has no mount namespaces for us")
    return str(request.param)


def start(
    tmp_path: Path,
    script: str,
    *,
    lines: list[bytes] | None = None,
    isolation: Isolation | None = None,
    **env: str,
) -> ProcessGroup:
    opt_ml = tmp_path / "ml"
    opt_ml.mkdir(exist_ok=True)
    sink = lines if lines is not None else []
    return ProcessGroup.start(
        ["/bin/sh", "-c", script],
        env={**ENV, **env},
        cwd=opt_ml,
        opt_ml=opt_ml,
        log=sink.append,
        name="test",
        record=tmp_path / "records" / "test",
        isolation=isolation or Isolation(),
    )


def test_exit_status_log_and_record(tmp_path: Path, either: str) -> None:
    lines: list[bytes] = []
    group = start(tmp_path, "echo one; echo two >&2; printf 'a\\rb'; exit 7", lines=lines)
    assert group.wait(10) == 7
    assert lines == [b"one", b"two", b"a", b"b"]
    assert not list((tmp_path / "records").iterdir())


def test_lines_arrive_while_it_runs(tmp_path: Path) -> None:
    lines: list[bytes] = []
    group = start(tmp_path, "echo early; sleep 60", lines=lines)
    wait_until(lambda: lines == [b"early"])
    assert group.poll() is None
    assert json.loads((tmp_path / "records" / "test").read_text())["pid"] == group.pid
    assert group.kill() == -signal.SIGKILL


def test_log_to_a_file(tmp_path: Path) -> None:
    log = tmp_path / "log"
    argv = ["sh", "-c", "echo text"]
    record = tmp_path / "records" / "x"
    group = ProcessGroup.start(argv, env=ENV, cwd=tmp_path, log=log, name="x", record=record)
    assert group.wait(10) == 0
    assert log.read_text() == "text\n"


def test_opt_ml_by_environment_and_argument(tmp_path: Path, either: str) -> None:
    group = start(tmp_path, 'echo hello > "$SM_MODEL_DIR/out"', SM_MODEL_DIR="/opt/ml/model")
    (tmp_path / "ml" / "model").mkdir()
    assert group.wait(10) == 0
    assert (tmp_path / "ml" / "model" / "out").read_text() == "hello\n"


def test_opt_stays_visible_and_the_host_unchanged(tmp_path: Path) -> None:
    if not processes.namespaces_supported():
        pytest.skip("this platform has no mount namespaces for us")
    before = sorted(os.listdir("/opt"))
    lines: list[bytes] = []
    assert start(tmp_path, "ls /opt; echo --; cd .. && pwd; touch /opt/ml/mine", lines=lines).wait(10) == 0
    inside = lines[: lines.index(b"--")]
    assert sorted({*before, "ml"}) == sorted(line.decode() for line in inside)
    assert lines[-1] == b"/opt"
    assert sorted(os.listdir("/opt")) == before
    assert (tmp_path / "ml" / "mine").exists()


def test_hosts_hidden_and_read_only(tmp_path: Path) -> None:
    if not processes.namespaces_supported():
        pytest.skip("this platform has no mount namespaces for us")
    secret = tmp_path / "others"
    secret.mkdir()
    (secret / "file").write_text("secret")
    isolation = Isolation(hosts={"algo-1": "127.0.0.1"}, hidden=[secret], writable=[], drop_privileges=True)
    script = (
        f"grep -c algo-1 /etc/hosts; ls {secret} 2>/dev/null | wc -l; touch {tmp_path}/x || echo refused; "
        "touch /opt/ml/ok && echo allowed; mount -t tmpfs none /opt/ml 2>/dev/null || echo no mount"
    )
    lines: list[bytes] = []
    start(tmp_path, script, lines=lines, isolation=isolation).wait(10)
    assert [line.strip() for line in lines if b"touch" not in line] == [
        b"1",
        b"0",
        b"refused",
        b"allowed",
        b"no mount",
    ]


def test_terminate_reaches_the_program_then_kills(tmp_path: Path) -> None:
    lines: list[bytes] = []
    group = start(
        tmp_path, "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done", lines=lines
    )
    wait_until(lambda: lines == [b"up"])
    assert group.terminate(10) == 3
    assert lines[-1] == b"bye"
    lines.clear()
    stubborn = start(tmp_path, "trap '' TERM; echo up; while :; do sleep 0.05; done", lines=lines)
    wait_until(lambda: lines == [b"up"])
    assert stubborn.terminate(0.2) == -signal.SIGKILL


def test_descendants_that_left_the_group_are_ended(tmp_path: Path) -> None:
    lines: list[bytes] = []
    group = start(tmp_path, "setsid sh -c 'echo $$; exec sleep 300' & wait", lines=lines)
    wait_until(lambda: lines)
    stray = int(lines[0])
    assert alive(stray)
    group.kill()
    assert not alive(stray)


def test_a_background_child_ends_with_its_program(tmp_path: Path) -> None:
    lines: list[bytes] = []
    assert start(tmp_path, "sleep 300 & echo $!; exit 0", lines=lines).wait(10) == 0
    assert not alive(int(lines[0]))


def test_a_missing_program_says_so(tmp_path: Path) -> None:
    lines: list[bytes] = []
    argv = ["no-such-program"]
    record = tmp_path / "records" / "x"
    group = ProcessGroup.start(argv, env=ENV, cwd=tmp_path, log=lines.append, name="x", record=record)
    assert group.wait(10) == 127
    assert b"no-such-program" in lines[0]


OWNER = """
import sys, time
from pathlib import Path
from local_aws.execution.processes import ProcessGroup
root = Path(sys.argv[1])
group = ProcessGroup.start(["sh", "-c", "echo $$; exec sleep 300"], env={"PATH": "/usr/bin:/bin"}, cwd=root,
    log=root / "log", name="sleeper", record=root / "records" / "sleeper")
time.sleep(300)
"""


def start_owner(tmp_path: Path) -> tuple[subprocess.Popen[bytes], int]:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)])
    log = tmp_path / "log"
    wait_until(
        lambda: log.exists() and log.read_text().strip() and (tmp_path / "records" / "sleeper").exists()
    )
    return owner, int(log.read_text())


def test_killing_local_aws_ends_its_groups(tmp_path: Path) -> None:
    owner, job = start_owner(tmp_path)
    owner.kill()
    owner.wait()
    wait_until(lambda: not alive(job))


def test_orphans_of_a_killed_supervisor_are_found(tmp_path: Path) -> None:
    owner, job = start_owner(tmp_path)
    supervisor = json.loads((tmp_path / "records" / "sleeper").read_text())["pid"]
    os.kill(supervisor, signal.SIGSTOP)
    owner.kill()
    owner.wait()
    assert alive(job)
    assert end_orphans(tmp_path / "records") == ["sleeper"]
    assert not alive(job)
    assert not alive(supervisor)


def test_a_reused_pid_is_never_killed(tmp_path: Path) -> None:
    bystander = subprocess.Popen(["sleep", "300"])
    try:
        (tmp_path / "old").write_text(json.dumps({"pid": bystander.pid, "born": 1.0, "name": "old"}))
        assert end_orphans(tmp_path) == []
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
