"""The sandbox from inside: what a job of root and one of another user can see, write and signal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from local_aws.execution import isolation, processes
from local_aws.execution.isolation import Support, confined
from local_aws.execution.processes import ProcessGroup

PROBE = """
import ctypes, glob, json, os, subprocess, sys
state, home, pid = sys.argv[1:4]
def reads(path):
    try:
        return bool(os.listdir(path) if os.path.isdir(path) else open(path).read())
    except OSError:
        return False
def writes(path):
    try:
        open(path, "a").close()
        return True
    except OSError:
        return False
def signals(pid):
    try:
        os.kill(pid, 0)
        return True
    except OSError:
        return False
def fails(*command):
    return subprocess.run(command, capture_output=True).returncode != 0
settings = ["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/drop_caches",
            "/proc/sysrq-trigger", "/sys/kernel/uevent_helper"]
print(json.dumps({
    "reads": [path for path in (state, home, state + "/credentials", "/run/secret-of-the-host") if reads(path)],
    "writes": [path for path in ("/etc/passwd", "/usr/local/x", home + "/x") if writes(path)],
    "settings": [path for path in settings if os.path.exists(path) and os.access(path, os.W_OK)],
    "signals": signals(int(pid)),
    "processes": len(glob.glob("/proc/[0-9]*")),
    "unmounts": [path for path in (state, home, "/proc/sys") if not fails("umount", path)],
    "again": not fails("unshare", "-Urm", "sh", "-c", f"umount {home}; ls {home} | grep ."),
    "mounts": not fails("mount", "-t", "tmpfs", "x", "/mnt"),
    "tmp": sorted(os.listdir("/tmp")),
    "shm": writes("/dev/shm/mine"),
    "own": writes("/opt/ml/mine") and writes("/tmp/mine"),
    "uid": os.getuid(),
}))
"""


def probe(folder: Path, interpreter: str) -> dict[str, Any]:
    """Run the probe in a job's sandbox, next to secrets of the host."""
    state, home, ml = folder / "state", folder / "home", folder / "state/jobs/one"
    for made in (ml / "tmp", home):
        made.mkdir(parents=True)
    (state / "credentials").write_text("secret")
    (home / ".netrc").write_text("secret")
    (ml / "probe.py").write_text(PROBE)
    os.environ["HOME"] = str(home)
    lines: list[bytes] = []
    group = ProcessGroup.start(
        [interpreter, "/opt/ml/probe.py", str(state), str(home), str(os.getpid())],
        env={"PATH": os.defpath},
        cwd=ml,
        opt_ml=ml,
        log=lines.append,
        name="probe",
        record=folder / "state/run/probe",
        isolation=confined(state, ml / "tmp", interpreter=interpreter),
    )
    group.wait(60)
    try:
        return dict(json.loads(lines[-1]))
    except (IndexError, ValueError):
        raise AssertionError(b"\n".join(lines).decode()) from None


def assert_confined(seen: dict[str, Any]) -> None:
    assert seen["reads"] == []
    assert seen["writes"] == []
    assert seen["settings"] == []
    assert seen["unmounts"] == []
    assert not seen["signals"]
    assert not seen["again"]
    assert not seen["mounts"]
    assert seen["processes"] <= 4
    assert seen["own"]
    assert seen["shm"]


def test_a_job_of_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0 or not processes.namespaces_supported():
        pytest.skip("needs root and mount namespaces")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert_confined(probe(tmp_path, sys.executable))


def test_a_job_of_a_user(tmp_path: Path) -> None:
    """Run as an unprivileged user where the tests run as root, with a python that this user can read."""
    if not processes.namespaces_supported():
        pytest.skip("this platform has no mount namespaces for us")
    if os.geteuid() != 0:
        assert_confined(probe(tmp_path, sys.executable))
        return
    python, packages = "/usr/bin/python3", [entry for entry in sys.path if entry.endswith("site-packages")]
    script = (
        "import json, pathlib, sys; from tests.local_aws.execution.test_sandbox import probe; "
        "print(json.dumps(probe(pathlib.Path(sys.argv[1]), sys.executable)))"
    )
    here = str(Path(__file__).parents[3])
    work = Path("/tmp") / f"probe-{os.getpid()}"
    work.mkdir()
    os.chown(work, 65534, 65534)
    try:
        done = subprocess.run(
            [python, "-c", script, str(work)],
            env={
                "PATH": os.defpath,
                "PYTHONPATH": ":".join([here, *packages]),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            user=65534,
            group=65534,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            text=True,
        )
    finally:
        subprocess.run(["rm", "-rf", str(work)], check=True)
    if "ModuleNotFoundError" in done.stderr or "ImportError" in done.stderr:
        pytest.skip(
            f"{python} cannot use these packages as an unprivileged user: {done.stderr.splitlines()[-1]}"
        )
    assert done.returncode == 0, done.stderr
    assert_confined(json.loads(done.stdout.splitlines()[-1]))


def test_root_inside_owns_files_of_other_users(tmp_path: Path) -> None:
    if processes.support() is not Support.OWN_USERS:
        pytest.skip("only root can give a job users of its own")
    folder = tmp_path / "ml"
    (folder / "tmp").mkdir(parents=True)
    script = """
        cd /tmp && echo x >f && chown 503:50 f && stat -c %u:%g f &&
        tar --owner=503 -cf a.tar f && tar xf a.tar && id -u
    """
    lines: list[bytes] = []
    group = ProcessGroup.start(
        ["/bin/sh", "-c", script],
        env={"PATH": os.defpath},
        cwd=folder,
        opt_ml=folder,
        log=lines.append,
        name="chown",
        record=tmp_path / "run/chown",
        isolation=confined(tmp_path, folder / "tmp"),
    )
    assert group.wait(30) == 0, lines
    assert lines == [b"503:50", b"0"]
    assert (folder / "tmp/f").stat().st_uid == isolation.identity()[0] + 503  # type: ignore[index]


def test_a_project_installed_in_place_shows_its_packages_only() -> None:
    roots = isolation.python_roots(sys.executable)
    project = Path(__file__).parents[3]
    assert Path(sys.prefix) in roots
    assert project not in roots


def test_another_user_where_there_are_no_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can run a job as another user")
    folder = Path(f"/tmp/other-user-{os.getpid()}")
    ml = folder / "state/jobs/one"
    ml.mkdir(parents=True)
    (folder / "state").chmod(0o700)
    (folder / "state/credentials").write_text("secret")
    (folder / "state/credentials").chmod(0o600)
    monkeypatch.setattr(processes, "support", lambda: Support.OTHER_USER)
    lines: list[bytes] = []
    try:
        group = ProcessGroup.start(
            [
                "/bin/sh",
                "-c",
                f'id -u; cat {folder}/state/credentials || echo refused; touch /opt/ml/x; ls "$ML"',
            ],
            env={"PATH": os.defpath, "ML": "/opt/ml"},
            cwd=ml,
            opt_ml=ml,
            log=lines.append,
            name="other",
            record=folder / "state/run/other",
            isolation=confined(folder / "state", ml),
        )
        group.wait(30)
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    assert lines[0] == str(isolation.JOB_USER).encode()
    assert b"refused" in lines
    assert b"secret" not in lines
