"""`python -m local_aws start | stop | status | reset | logs | interrupt`."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from local_aws.execution import images
from local_aws.execution.isolation import Support
from local_aws.gateway.doors import addresses
from local_aws.settings import DEFAULT_HOST, DEFAULT_PORT, DEFAULT_REGION, Settings, StartupError, parse_quota
from local_aws.state import folder as state_folder
from local_aws.state.folder import CREDENTIALS

START_SECONDS = 60
STOP_SECONDS = 60


def main(argv: list[str] | None = None) -> int:
    """Run one verb; return 0, or 1 after one line on standard error."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.verb(arguments) or 0)
    except StartupError as error:
        print(f"local_aws: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="local_aws",
        description="An AWS on loopback that runs SageMaker jobs, endpoints and EC2 commands.",
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    start = _verb(verbs, "start", _start, "start local_aws and return when it answers")
    start.add_argument(
        "--images",
        type=Path,
        default=images.CATALOG,
        help="images.toml: how to run each image; by default AWS's public images, run by this interpreter",
    )
    start.add_argument(
        "--port",
        type=int,
        default=DEFAULT_PORT,
        help="port to listen on, 0 for any free one; written to DIR/port",
    )
    start.add_argument(
        "--host", default=DEFAULT_HOST,
        help="address to listen on; other machines that reach it can run commands here with DIR/credentials",
    )  # fmt: skip
    start.add_argument("--region", default=DEFAULT_REGION)
    start.add_argument(
        "--cores",
        type=int,
        default=os.cpu_count() or 1,
        help="cores that jobs share; further jobs stay pending",
    )
    start.add_argument(
        "--quota",
        action="append",
        default=[],
        metavar="TYPE=N",
        help="allow at most N instances of a type at once",
    )
    start.add_argument(
        "--iam", choices=["off", "enforce"], default="off",
        help="enforce: evaluate policies; jobs have the rights of their role, DIR/credentials those of the account",
    )  # fmt: skip
    start.add_argument(
        "--auth", choices=["off", "required"], default=None,
        help="required: verify signatures against DIR/credentials and keys issued by IAM and STS; off: accept any "
        "credentials. Default: required with --iam enforce or an address that is not loopback, else off",
    )  # fmt: skip
    start.add_argument(
        "--allow-origin", action="append", default=[], metavar="ORIGIN",
        help="let web pages of this origin call local_aws (CORS); repeat for more",
    )  # fmt: skip
    start.add_argument("--foreground", action="store_true", help="run in this terminal")
    start.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])

    _verb(verbs, "stop", _stop, "stop local_aws and everything it runs")
    status = _verb(verbs, "status", _status, "show what is running")
    status.add_argument("--json", action="store_true", help="print JSON")
    reset = _verb(verbs, "reset", _reset, "stop local_aws and delete its state")
    reset.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    logs = _verb(verbs, "logs", _logs, "print its own log, or a job's")
    logs.add_argument("name", nargs="?", help="name of a job or endpoint")
    logs.add_argument("--follow", "-f", action="store_true")
    env = _verb(verbs, "env", _env, 'print the exports for a shell: eval "$(local-aws env --state DIR)"')
    env.add_argument("--region", default=DEFAULT_REGION)
    run = _verb(
        verbs,
        "run",
        _run,
        "run a command against local_aws: local-aws run --state DIR -- COMMAND",
    )
    run.add_argument("--region", default=DEFAULT_REGION)
    run.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="the command and its arguments"
    )
    interrupt = _verb(verbs, "interrupt", _interrupt, "interrupt a managed spot training job, as AWS may")
    interrupt.add_argument("name", help="a training job")
    return parser


def _verb(verbs: Any, name: str, function: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="the state folder")
    parser.set_defaults(verb=function)
    return parser


def _start(arguments: argparse.Namespace) -> None:
    settings = Settings(
        state=arguments.state.absolute(),
        images=arguments.images.absolute(),
        port=arguments.port,
        host=arguments.host,
        region=arguments.region,
        cores=arguments.cores,
        quotas=dict(parse_quota(text) for text in arguments.quota),
        log_level=arguments.log_level,
        enforce_iam=arguments.iam == "enforce",
        require_auth=None if arguments.auth is None else arguments.auth == "required",
        hosts=frozenset(addresses(os.environ)),
        origins=frozenset(arguments.allow_origin),
    )
    if arguments.foreground:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]  # a profile of a real account that is not there would fail the imports
        from local_aws.daemon import run

        logging.basicConfig(
            level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        run(settings)
        return
    _start_in_background(settings)
    print(f"local_aws answers at {_url(settings.state)} (log: {settings.state / state_folder.LOG})")
    print(credentials_line(settings))
    isolation = Support[(_ask(settings.state, "health") or {}).get("isolation", "NONE")]
    if isolation not in (Support.OWN_USERS, Support.OWN_FILES):
        print(f"jobs, endpoints and instances are not isolated ({isolation.value}); see docs/security.md")


def credentials_line(settings: Settings) -> str:
    """Return the line that says which credentials local_aws accepts."""
    if settings.verifies:
        return f"clients sign with the key in {settings.state / CREDENTIALS} (AWS_SHARED_CREDENTIALS_FILE)"
    return "it accepts any credentials, of every process on this machine; --auth required verifies signatures"


def _start_in_background(settings: Settings) -> None:
    state_folder.prepare_state(settings.state)
    images.load(settings.images)
    with state_folder.locked(settings.state):  # refuses, and says which one runs, if one does
        state_folder.forget(settings.state)
    argv = [sys.executable, "-m", "local_aws", "start", "--foreground"]
    argv += ["--state", str(settings.state), "--images", str(settings.images), "--port", str(settings.port)]
    argv += ["--host", settings.host, "--region", settings.region]
    argv += ["--cores", str(settings.cores), "--log-level", settings.log_level]
    argv += ["--iam", "enforce" if settings.enforce_iam else "off"]
    if settings.require_auth is not None:
        argv += ["--auth", "required" if settings.require_auth else "off"]
    for origin in sorted(settings.origins):
        argv += ["--allow-origin", origin]
    for instance_type, limit in settings.quotas.items():
        argv += ["--quota", f"{instance_type}={limit}"]
    log = settings.state / state_folder.LOG
    with log.open("ab") as file:
        os.fchmod(file.fileno(), 0o600)
        begin = file.tell()
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    deadline = time.monotonic() + START_SECONDS
    while _ask(settings.state, "health") is None:
        if process.poll() is not None:
            raise StartupError(_reason(log, begin))
        if time.monotonic() > deadline:
            process.terminate()
            raise StartupError(f"no answer within {START_SECONDS} s; see {log}")
        time.sleep(0.05)


def _reason(log: Path, begin: int) -> str:
    """Return why a background start failed: its own one-line message, or where to look."""
    lines = log.read_bytes()[begin:].decode("utf-8", "replace").splitlines()
    message = next((line for line in reversed(lines) if line.startswith("local_aws: ")), "")
    return message.removeprefix("local_aws: ") or f"it exited at once; see {log}"


def _stop(arguments: argparse.Namespace) -> None:
    print("stopped" if stop(arguments.state.absolute()) else "local_aws is not running")


def stop(state: Path) -> bool:
    """Stop the local_aws of a state folder and wait for it to exit.

    Returns:
        False when none is running.

    Raises:
        StartupError: the process cannot be found or does not exit.
    """
    if not state_folder.is_locked(state):
        return False
    pid = state_folder.read_number(state / state_folder.PID)
    if pid is None:
        raise StartupError(f"{state} is locked but has no {state_folder.PID} file: it is starting; try again")
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):  # it may just have ended
            os.kill(pid, number)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            if not state_folder.is_locked(state):
                return True
            time.sleep(0.05)
    raise StartupError(f"{state} is still locked, though its process {pid} was killed")


def _status(arguments: argparse.Namespace) -> int:
    state = arguments.state.absolute()
    document = _ask(state, "status")
    if document is None:
        print(f"local_aws is not running on {state}")
        return 1
    if arguments.json:
        print(json.dumps(document, indent=2))
        return 0
    from local_aws.status import render

    print(render(document))
    return 0


def _reset(arguments: argparse.Namespace) -> None:
    state = arguments.state.absolute()
    if not state.exists():
        print(f"{state} does not exist: nothing to reset")
        return
    if not (state / state_folder.LOCK).exists():
        raise StartupError(
            f"{state} is not a state folder of local_aws (it holds no {state_folder.LOCK} file)"
        )
    if (
        not arguments.yes
        and input(f"Delete every object, job and endpoint in {state}? [y/N] ").lower() != "y"
    ):
        raise StartupError("nothing was deleted")
    stop(state)
    shutil.rmtree(state)
    print(f"deleted {state}")


def _logs(arguments: argparse.Namespace) -> int:
    state = arguments.state.absolute()
    from local_aws.logs.reader import print_file, print_job

    if arguments.name:
        return print_job(state, arguments.name, follow=arguments.follow)
    return print_file(state / state_folder.LOG, follow=arguments.follow)


def _env(arguments: argparse.Namespace) -> None:
    from local_aws.clients import environment

    print(
        environment.exports(environment.variables(arguments.state.absolute(), arguments.region, os.environ))
    )


def _run(arguments: argparse.Namespace) -> int:
    from local_aws.clients import environment

    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise StartupError(
            "no command: write it after --, for example: local-aws run --state DIR -- python train.py"
        )
    values = environment.variables(arguments.state.absolute(), arguments.region, os.environ)
    try:
        os.execvpe(command[0], command, environment.for_command(values, os.environ))
    except OSError as error:
        raise StartupError(f"{command[0]} cannot be started: {error.strerror}") from error


def _interrupt(arguments: argparse.Namespace) -> int:
    answer = _ask(arguments.state.absolute(), f"interrupt/{arguments.name}", method="POST")
    if answer is None:
        raise StartupError(f"local_aws is not running on {arguments.state}")
    print(answer["message"])
    return 0 if answer.get("interrupted") else 1


def _url(state: Path) -> str:
    return state_folder.read_text(state / state_folder.URL)


def _ask(state: Path, page: str, method: str = "GET") -> Any:
    """Fetch an admin page of the running local_aws; None while nothing answers."""
    url = _url(state)
    if not url or not state_folder.is_locked(state):
        return None
    request = urllib.request.Request(
        f"{url}/_local_aws/{page}", method=method, data=b"" if method == "POST" else None,
        headers={"Authorization": f"Bearer {state_folder.read_text(state / state_folder.TOKEN)}"},
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        return None if error.code == 503 else json.load(error)
    except OSError:
        return None
