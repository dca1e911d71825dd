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
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time

STAMP_FILE = "ml-pipeline.stamp"
LOCK_FILE = "ml-pipeline.lock"
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OLDEST, NEWEST = (3, 11), (3, 13)
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# Measured on Linux x86_64 with Python 3.11: GB to download, GB on disk, minutes at 100 Mbit/s on 2 cores.
CPU_BUILD, CUDA_BUILD = (0.9, 2.8, 4), (3.6, 8.0, 10)


def fail(message):
    """Exit with one line."""
    sys.exit("error: " + message)


def check_python():
    """Refuse an interpreter outside the supported range."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        fail(
            "Python %d.%d to %d.%d is needed and %s is Python %d.%d: install one of them, "
            "or name it with make PYTHON=/path/to/python3.11"
            % (OLDEST + NEWEST + (sys.executable, sys.version_info[0], sys.version_info[1]))
        )


def check_disk(venv, needed):
    """Refuse a disk that the packages would fill; `needed` in GB. An environment that is there counts as space."""
    have = shutil.disk_usage(os.path.dirname(os.path.abspath(venv))).free / 1e9 + installed_gb(venv)
    if have < needed:
        fail("the packages need %.1f GB and %.1f GB are free: free some space" % (needed, have))


def installed_gb(venv):
    """GB of an existing environment."""
    total = 0
    for folder, _, names in os.walk(venv):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total / 1e9


def wants_cuda(environ=os.environ):
    """Return true for CUDA builds of torch: GPU=1, or an NVIDIA driver is present and GPU is not 0."""
    asked = environ.get("GPU", "")
    if asked not in ("", "0", "1"):
        fail("GPU=%s is neither 0 nor 1: GPU=1 installs CUDA builds, GPU=0 CPU builds" % asked)
    return asked == "1" or (asked == "" and os.path.exists("/proc/driver/nvidia/version"))


def has_cuda_wheels():
    """Return true where PyPI's torch is a CUDA build: Linux on x86_64."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def fingerprint():
    """Return the digest of everything that the environment is built from."""
    digest = hashlib.sha256(sys.version.encode())
    for name in ("requirements.lock", "requirements-cuda.lock", "pyproject.toml"):
        with open(os.path.join(ROOT, name), "rb") as file:
            # The settings of linters and tests follow [tool.ruff]: they change no environment.
            digest.update(file.read().partition(b"[tool.ruff]")[0])
    digest.update(ROOT.encode())  # the editable install points here
    digest.update(b"cuda" if wants_cuda() else b"cpu")
    return digest.hexdigest()


def pip(venv, *arguments, **options):
    """Run pip with progress; print its output only when it fails, and return false then if `may_fail`."""
    command = [os.path.join(venv, "bin", "python"), "-m", "pip", "--disable-pip-version-check"]
    # The lock pins everything; a constraint of the machine would only make pip refuse the hashes.
    environ = dict(os.environ, PIP_CONSTRAINT=os.devnull)
    process = subprocess.Popen(
        command + list(arguments),
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
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
    if process.wait() == 0:
        return True
    if not options.get("may_fail"):
        sys.stderr.write("".join(lines[-20:]))
        fail("pip failed (its reason is above): check the network or the package index, then run make again")
    return False


def show(text):
    """One line that is overwritten on a terminal; nowhere else is it worth the space."""
    if sys.stdout.isatty():
        print("\r%-40s" % text, end="\n" if text.startswith("installing") else "", flush=True)


def split_lock(text):
    """Return (torch's entry, the others) of a lock; an entry may continue on further lines."""
    entries = re.split(r"\n(?=[A-Za-z0-9])", text)
    torch = [entry for entry in entries if entry.startswith("torch==")]
    return "\n".join(torch) + "\n", "\n".join(entry for entry in entries if entry not in torch) + "\n"


def create(venv):
    """Create the environment; the stamp is written last, so that an interrupted set-up is repeated."""
    cuda = wants_cuda() and has_cuda_wheels()
    download, disk, minutes = CUDA_BUILD if cuda else CPU_BUILD
    print(
        "setting up Python packages in %s, once: %s builds, at most %.1f GB to download, %.1f GB on disk, "
        "about %d minutes" % (venv, "CUDA" if cuda else "CPU", download, disk, minutes),
        flush=True,
    )
    began = time.time()
    empty_if_other_python(venv)
    if subprocess.call([sys.executable, "-m", "venv", venv]) != 0:
        fail("python -m venv failed: on Debian and Ubuntu, apt-get install python3-venv")
    with open(os.path.join(ROOT, "requirements.lock")) as file:
        torch, others = split_lock(file.read())
    with tempfile.TemporaryDirectory() as folder:
        hashed = ["install", "--progress-bar", "off", "--no-deps", "--require-hashes", "-r"]
        install_torch(venv, [*hashed, write(folder, "torch.lock", torch)], cuda)
        pip(venv, *hashed, write(folder, "others.lock", others))
        if has_cuda_wheels() and not is_cpu_build(venv):
            check_disk(venv, CUDA_BUILD[1])
            pip(venv, *hashed, "requirements-cuda.lock")
    pip(venv, "install", "--no-deps", "--no-build-isolation", "-e", ".")
    print("done: %.1f GB in %d s" % (installed_gb(venv), time.time() - began), flush=True)


def write(folder, name, text):
    """Write a file; return its path."""
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        file.write(text)
    return path


def install_torch(venv, hashed, cuda):
    """Install torch from PyTorch's CPU index, or from the default index for CUDA and where that fails."""
    if not cuda and has_cuda_wheels():
        quickly = ["--index-url", CPU_INDEX, "--retries", "1", "--timeout", "20"]
        if pip(venv, *(hashed + quickly), may_fail=True):
            return
        print(
            "%s cannot be reached, or has no build of the lock: the default index is used, whose CUDA build of "
            "torch needs %.1f GB more" % (CPU_INDEX, CUDA_BUILD[0] - CPU_BUILD[0]),
            flush=True,
        )
    pip(venv, *hashed)


def is_cpu_build(venv):
    """Return true when the installed torch needs no CUDA libraries."""
    code = "import importlib.metadata as m; print(m.version('torch'))"
    version = subprocess.check_output([os.path.join(venv, "bin", "python"), "-c", code], text=True)
    return "+cpu" in version


def empty_if_other_python(venv):
    """Remove the files of an environment that another minor version of Python made."""
    lib = os.path.join(venv, "lib")
    wanted = "python%d.%d" % sys.version_info[:2]
    if os.path.isdir(lib) and os.listdir(lib) != [wanted]:
        for name in os.listdir(venv):
            path = os.path.join(venv, name)
            if name != LOCK_FILE:
                shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.remove(path)


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
    with open(os.path.join(venv, LOCK_FILE), "w") as file:  # the kernel releases it however this process ends
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another make is setting up %s: waiting for it" % venv, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build(venv):
    """Create the environment and stamp it at the end; an older stamp is removed first."""
    check_python()
    check_disk(venv, (CUDA_BUILD if wants_cuda() and has_cuda_wheels() else CPU_BUILD)[1])
    wanted = fingerprint()
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(venv, STAMP_FILE))
    create(venv)
    with open(os.path.join(venv, STAMP_FILE), "w") as stamp:
        stamp.write(wanted)


def main():
    """Create the environment unless it is current."""
    venv = os.path.abspath(sys.argv[-1])

    def is_ready():
        return is_current(venv) or ("--any" in sys.argv and starts_launcher(venv))

    if not is_ready():
        with one_at_a_time(venv):
            if not is_ready():
                build(venv)


if __name__ == "__main__":
    main()
