"""Runs a DAG once, in this process: `python -m tests.e2e.one_run '<params as JSON>' [DAG]`.

The default DAG is `train_and_deploy`.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module

from airflow.utils.state import DagRunState


def main() -> None:
    """Exit with 1 unless the run succeeds."""
    dag = import_module(f"dags.{(*sys.argv[2:], 'train_and_deploy')[0]}").dag
    # dag.test() of Airflow 3.3 cannot end the run of a DAG that has a deadline: it takes the alert for its id.
    dag.deadline = None
    run = dag.test(run_conf=json.loads(sys.argv[1]))
    sys.exit(run.state != DagRunState.SUCCESS)


if __name__ == "__main__":
    main()
