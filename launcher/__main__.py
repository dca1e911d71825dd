"""The commands of the Makefile: `python -m launcher run | up | status | logs | open | doctor | ...`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys

from rich.console import Console
from rich.markup import escape

from launcher import preflight, supervisor
from launcher import run as main_job
from launcher.settings import Settings, keep_off_proxy


def parser() -> argparse.ArgumentParser:
    """Build the parser of the commands."""
    arguments = argparse.ArgumentParser(prog="python -m launcher", description=__doc__)
    commands = arguments.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="start everything and run train_and_deploy")
    commands.add_parser("up", help="start everything, without a run")
    commands.add_parser("status", help="show the services and the result of the last run")
    predict = commands.add_parser("predict", help="classify photos with the deployed endpoint")
    predict.add_argument("image", nargs="*", help="photos, or folders of photos")
    predict.add_argument("--endpoint", help="endpoint name; by default the last run's, or the only one")
    look = commands.add_parser(
        "watch", help="look at what the endpoints were asked, now and from now on every hour"
    )
    look.add_argument("--endpoint", default="", help="endpoint name; by default all")
    deploy = commands.add_parser("deploy", help="deploy a model version from the registry")
    deploy.add_argument("version", nargs="?", default="", help="its number; by default the newest approved")
    rollback = commands.add_parser("rollback", help="deploy the model version before the one in service")
    for command in (deploy, rollback):
        command.add_argument("--dataset", default="", help="data set; by default the only one with a model")
        command.add_argument("--endpoint", default="", help="endpoint; by default the data set's")
    logs = commands.add_parser("logs", help="follow the logs of the services")
    logs.add_argument("--service", default="", help="one of them, such as scheduler; default: all")
    commands.add_parser("open", help="open Airflow in the browser")
    commands.add_parser("doctor", help="show what is missing for local use and for AWS, and how to fix it")
    commands.add_parser("notebook", help="start JupyterLab with the project's notebooks")
    commands.add_parser("stop", help="stop every process of the run; finished work is kept")
    commands.add_parser("clean", help="stop, then remove everything that runs wrote")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit status, 2 for an error that is shown as one line."""
    chosen = parser().parse_args(argv)
    keep_off_proxy(os.environ)  # every service inherits it
    # A pipe or a log file has no width: 80 columns would cut the table of trials.
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        settings = Settings.from_environ(os.environ)
        return _run_command(chosen, settings, console)
    except _one_line_errors() as error:
        Console(stderr=True, soft_wrap=True).print(f"[red]error[/]: {escape(str(error))}", highlight=False)
        return 2


def _run_command(chosen: argparse.Namespace, settings: Settings, console: Console) -> int:
    try:
        return _COMMANDS[chosen.command](settings, console, chosen)
    except KeyboardInterrupt:
        up = supervisor.read_state(settings.home) is not None
        goes_on = "the services and the run continue (make status shows them, make stop ends them)"
        console.print(f"\ninterrupted; {goes_on if up else 'nothing is running'}")
        return 130


def _one_line_errors() -> tuple[type[Exception], ...]:
    from launcher.airflow_api import AirflowError
    from model_code.data.source import DatasetError

    return (*main_job.SHOWN_AS_ONE_LINE, AirflowError, DatasetError, OSError)


def _run(settings: Settings, console: Console, _: argparse.Namespace) -> int:
    return main_job.run(settings, console)


def _up(settings: Settings, console: Console, _: argparse.Namespace) -> int:
    settings = main_job.bring_up(settings, console)
    main_job.wait_for_dag(main_job.connect(settings), settings, console)
    main_job.print_addresses(settings, console)
    return 0


def _status(settings: Settings, console: Console, _: argparse.Namespace) -> int:
    from launcher.status import print_status

    return print_status(settings, console)


def _watch(settings: Settings, console: Console, chosen: argparse.Namespace) -> int:
    from launcher.dag_runs import watch

    return watch(settings, console, chosen.endpoint)


def _predict(settings: Settings, console: Console, chosen: argparse.Namespace) -> int:
    from launcher.predict import predict

    return predict(settings, console, chosen.image, chosen.endpoint)


def _deploy(settings: Settings, console: Console, chosen: argparse.Namespace) -> int:
    from launcher.dag_runs import deploy

    version = "previous" if chosen.command == "rollback" else chosen.version
    names = {"dataset_name": chosen.dataset, "endpoint_name": chosen.endpoint}
    return deploy(settings, console, {"version": version, **names})


def _notebook(settings: Settings, console: Console, _: argparse.Namespace) -> int:
    from launcher.notebook import notebook

    return notebook(settings, console)


def _logs(settings: Settings, _: Console, chosen: argparse.Namespace) -> int:
    from launcher.doctor import logs

    return logs(settings, chosen.service)


def _open(settings: Settings, console: Console, _: argparse.Namespace) -> int:
    from launcher.doctor import open_airflow

    return open_airflow(settings, console)


def _doctor(settings: Settings, console: Console, _: argparse.Namespace) -> int:
    from launcher.doctor import print_findings

    return print_findings(settings, console)


def _stop(settings: Settings, console: Console, _: argparse.Namespace) -> int:
    was_up = supervisor.read_state(settings.home) is not None
    with console.status("stopping"):
        left = supervisor.stop_everything(settings)
    console.print("stopped" if was_up or left else "nothing was running")
    return 0


def _clean(settings: Settings, console: Console, _: argparse.Namespace) -> int:
    if not preflight.is_home(settings.home):
        console.print(f"nothing to remove: {settings.home} is not the folder of a run")
        return 0
    with console.status("stopping"):
        supervisor.stop_everything(settings)
    shutil.rmtree(settings.home)
    console.print(f"removed {settings.home}")
    return 0


_COMMANDS = {
    "run": _run, "up": _up, "status": _status, "predict": _predict, "deploy": _deploy, "rollback": _deploy,
    "logs": _logs, "open": _open, "doctor": _doctor,
    "watch": _watch, "notebook": _notebook, "stop": _stop, "clean": _clean,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
