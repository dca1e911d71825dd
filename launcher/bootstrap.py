"""Builds the virtual environment from requirements.lock, once for each lock. Needs only the standard library.

Runs under whatever Python `make` finds, so it must stay readable by old ones: they get a clear message, not a
SyntaxError.
"""

# ruff: noqa: UP031
# mypy: disable-error-code="no-untyped-def, no-untyped-call, union-attr"

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys

STAMP_FILE = "ml-pipeline.stamp"
LOCK_FILE = "ml-pipeline.lock"
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NEEDED_FREE_GB = 6


def fail(message):
    """Exit with one line."""
    sys.exit("error: " + message)


def check_machine(venv):
    """Refuse a wrong interpreter or a disk that is too full, in one line."""
    if sys.version_info[:2] != (3, 11):
        fail(
            "Python 3.11 is needed and %s is Python %d.%d: install 3.11, "
            "or name it with make PYTHON=/path/to/python3.11"
            % (sys.executable, sys.version_info[0], sys.version_info[1])
        )
    free = shutil.disk_usage(os.path.dirname(os.path.abspath(venv))).free / 1e9
    if free < NEEDED_FREE_GB:
        fail("the packages need %d GB and %.1f GB are free: free some space" % (NEEDED_FREE_GB, free))


def fingerprint():
    """Digest of everything that the environment is made from."""
    digest = hashlib.sha256(sys.version.encode())
    for name in ("requirements.lock", "pyproject.toml"):
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    digest.update(ROOT.encode())  # the editable install points here
    return digest.hexdigest()


def pip(venv, *arguments):
    """Run pip, showing how far it is; what it printed is shown only if it failed."""
    command = [os.path.join(venv, "bin", "python"), "-m", "pip", "--disable-pip-version-check"]
    process = subprocess.Popen(
        command + list(arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    lines = []
    collected = 0
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Collecting "):
            collected += 1
            show("%d packages found" % collected)
        elif line.startswith("Installing collected packages"):
            show("installing %d packages" % collected)
    if process.wait() != 0:
        sys.stderr.write("".join(lines[-20:]))
        fail("pip failed (its reason is above): check the network or the package index, then run make again")


def show(text):
    """One line that is overwritten on a terminal; nowhere else is it worth the space."""
    if sys.stdout.isatty():
        print("\r%-40s" % text, end="\n" if text.startswith("installing") else "", flush=True)


def create(venv):
    """Create the environment; the stamp is written last, so that an interrupted set-up is repeated."""
    print("setting up Python packages in %s (a few minutes, once)" % venv, flush=True)
    if subprocess.call([sys.executable, "-m", "venv", venv]) != 0:
        fail("python -m venv failed: on Debian and Ubuntu, apt-get install python3.11-venv")
    pip(venv, "install", "--progress-bar", "off", "-r", "requirements.lock")
    pip(venv, "install", "--no-deps", "--no-build-isolation", "-e", ".")


def lock(venv):
    """Resolve the direct dependencies anew and write what came out."""
    pip(venv, "install", "--upgrade", "-r", "requirements.in", "-r", "requirements-dev.in")
    freeze = [os.path.join(venv, "bin", "pip"), "freeze", "--exclude-editable"]
    frozen = subprocess.check_output(freeze, text=True)
    with open(os.path.join(ROOT, "requirements.lock"), "w") as file:
        # A local version ("2.13.0+cpu") names one build of one index; the lock must hold on every machine.
        file.write("".join(line.split("+")[0].rstrip() + "\n" for line in frozen.splitlines()))


def is_current(venv):
    """Return true when the environment was completed from the current lock and project file."""
    try:
        with open(os.path.join(venv, STAMP_FILE)) as stamp:
            return stamp.read() == fingerprint()
    except FileNotFoundError:
        return False


def starts_launcher(venv):
    """Return true when an environment of any age starts the launcher; a half-built one does not."""
    python = os.path.join(venv, "bin", "python")
    command = [python, "-c", "import launcher.__main__"]
    return os.path.exists(python) and subprocess.call(command, cwd=ROOT, stderr=subprocess.DEVNULL) == 0


@contextlib.contextmanager
def one_at_a_time(venv):
    """Hold the lock: of two commands that find no environment, the second waits and uses the first's."""
    os.makedirs(venv, exist_ok=True)
    with open(os.path.join(venv, LOCK_FILE), "w") as file:  # the kernel frees it however we end
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another make is setting up %s: waiting for it" % venv, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build(venv):
    """Create the environment and stamp it at the end; an older stamp is removed first."""
    check_machine(venv)
    wanted = fingerprint()
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(venv, STAMP_FILE))
    create(venv)
    with open(os.path.join(venv, STAMP_FILE), "w") as stamp:
        stamp.write(wanted)


def main():
    """Create the environment unless it is current."""
    venv = os.path.abspath(sys.argv[-1])
    if "--lock" in sys.argv:
        return lock(venv)

    def is_ready():
        return is_current(venv) or ("--any" in sys.argv and starts_launcher(venv))

    if not is_ready():
        with one_at_a_time(venv):
            if not is_ready():
                build(venv)
    return None


if __name__ == "__main__":
    main()
