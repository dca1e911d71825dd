"""`make doctor`: what is missing for local use and for AWS, with the command that fixes each."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape

from launcher import preflight, supervisor
from launcher.settings import Secrets, Settings


@dataclass(frozen=True)
class Finding:
    """One check: its subject, what was found, and the fix when it is not fine.

    required: make run does not work without it.
    """

    subject: str
    found: str
    fix: str = ""
    required: bool = False


def print_findings(settings: Settings, console: Console) -> int:
    """Print every check; return 1 when something is missing that make run needs."""
    failed = False
    for title, checks in (("local use", local(settings)), ("AWS", aws(os.environ))):
        console.print(f"[bold]{title}[/]")
        for finding in checks:
            mark, colour = ("ok", "green") if not finding.fix else ("optional", "yellow")
            if finding.fix and finding.required:
                mark, colour = "missing", "red"
            console.print(
                f"  [{colour}]{mark:8}[/] {finding.subject:18} {escape(finding.found)}",
                highlight=False,
                soft_wrap=True,
            )
            if finding.fix:
                console.print(f"{'':30}{escape(finding.fix)}", highlight=False, soft_wrap=True)
            failed |= bool(finding.fix) and finding.required
    return int(failed)


def local(settings: Settings) -> Iterator[Finding]:
    """Yield the checks for make run."""
    yield Finding("Python", f"{sys.version.split()[0]} in {sys.prefix}")
    yield _refused("disk", lambda: preflight.check_disk(settings.home), "enough space")
    if supervisor.read_state(settings.home) is None:
        yield _refused("ports", lambda: preflight.check_ports(settings), "free")
    else:
        yield Finding("ports", "the services of this home are running")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    small = "" if memory > 7 else "close other programs: Airflow and one job need about 6 GB"
    yield Finding("memory", f"{memory:.0f} GB", small)
    gpu = os.path.exists("/proc/driver/nvidia/version")
    yield Finding(
        "GPU", "NVIDIA driver present" if gpu else "none: CPU builds, which is fine for strategy=head"
    )
    reached = _reaches("download.pytorch.org")
    without = "" if reached else "give a file: make run WEIGHTS=mobilenet_v2.pth, or WEIGHTS=none"
    yield Finding("pretrained weights", "can be downloaded" if reached else "no network", without)


def aws(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield the checks for an AWS account."""
    cli = shutil.which("aws")
    yield Finding(
        "AWS CLI",
        cli or "not found",
        "" if cli else "install it: https://aws.amazon.com/cli/ (infra/deploy.sh uses it)",
    )
    yield _credentials()
    yield _settings(environ)
    yield _engine()


def _refused(subject: str, check: Callable[[], None], fine: str) -> Finding:
    try:
        check()
    except preflight.PreflightError as error:
        found, _, fix = str(error).partition(": ")
        return Finding(subject, found, fix, required=True)
    return Finding(subject, fine)


def _reaches(host: str) -> bool:
    try:
        socket.create_connection((host, 443), timeout=3).close()
    except OSError:
        return False
    return True


def _credentials() -> Finding:
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        found = boto3.Session().get_credentials()
    except BotoCoreError as error:
        return Finding("credentials", str(error), "aws configure sso")
    if found is None:
        return Finding(
            "credentials",
            "none",
            "aws configure sso, or run on an instance with the role of infra/airflow.yaml",
        )
    return Finding("credentials", f"found ({found.method})")


def _settings(environ: Mapping[str, str]) -> Finding:
    from ml_pipeline.settings import Settings as Pipeline
    from ml_pipeline.settings import SettingsError

    try:
        chosen = Pipeline.load({**environ, "LOCAL_AWS_URL": ""})
    except SettingsError as error:
        found, _, fix = str(error).partition(": ")
        return Finding("settings", found, f"{fix} (docs/reference/settings.md)")
    return Finding("settings", f"bucket {chosen.bucket} in {chosen.region}")


def _engine() -> Finding:
    for name in ("docker", "podman"):
        if (
            shutil.which(name)
            and subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0
        ):
            return Finding("container engine", name)
    fix = "start Docker, or apt-get install podman: the images for AWS and docker-compose.yaml need one"
    return Finding("container engine", "none answers", fix)


def logs(settings: Settings, name: str) -> int:
    """Follow the log of a service, or of all."""
    names = [f"{name}.log"] if name else sorted(path.name for path in settings.logs.glob("*.log"))
    paths = [settings.logs / one for one in names]
    if not paths or not all(path.is_file() for path in paths):
        known = (
            ", ".join(path.stem for path in sorted(settings.logs.glob("*.log")))
            or "none: make run starts some"
        )
        raise preflight.PreflightError(
            f"no log of {name or 'any service'} in {settings.logs}; there are {known}"
        )
    os.execvp("tail", ["tail", "-n", "50", "-F", *map(str, paths)])


def open_airflow(settings: Settings, console: Console) -> int:
    """Open Airflow's pages in the browser, and print the login."""
    import webbrowser

    kept = Secrets.load(settings.home)
    if kept is None or supervisor.read_state(settings.home) is None:
        raise preflight.PreflightError("nothing is running: make run or make up starts it")
    console.print(f"{settings.airflow_url}  (admin / {kept.admin_password})", highlight=False)
    webbrowser.open(settings.airflow_url)
    return 0
