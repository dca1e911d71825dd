"""`dag-parse`: CPU seconds to parse each DAG file, as the DAG processor does.

Airflow is imported beforehand; the file and its own imports are not. The bar is 0.3 s of CPU for any file.

The peer is a file with nothing but the imports and one task each of the Amazon provider's own SageMaker
operators. Airflow's own share, which no file can be parsed without, is that of a DAG with one task and no import
but Airflow's. The last line is JSON: {"name", "figure", "unit", "limit", "peers", "ratio", "conditions"}; figure
is the slowest file's, ratio is limit / figure.

    python -m benchmarks.dag_parse [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

LIMIT_SECONDS = 0.3
DAGS = Path(__file__).resolve().parent.parent / "dags"

# The DAG processor forks for every file from a process that has imported Airflow, but no DAG's modules.
_PROBE = """
import gc, sys, time
from airflow.dag_processing.dagbag import DagBag
import airflow.sdk, airflow.providers.standard.operators.python
gc.collect()  # what Airflow's own import left is not the file's to sweep up; a DAG processor did that long ago
start = time.process_time()
bag = DagBag(sys.argv[1])
spent = time.process_time() - start
assert bag.dags and not bag.import_errors, bag.import_errors
print(spent)
"""

_PEER = """
from airflow.sdk import DAG
from airflow.providers.amazon.aws.operators.sagemaker import (
    SageMakerEndpointConfigOperator, SageMakerEndpointOperator, SageMakerModelOperator, SageMakerProcessingOperator,
    SageMakerTrainingOperator, SageMakerTuningOperator,
)

with DAG("stock", schedule=None):
    for operator in (
        SageMakerProcessingOperator, SageMakerTuningOperator, SageMakerTrainingOperator, SageMakerModelOperator,
        SageMakerEndpointConfigOperator, SageMakerEndpointOperator,
    ):
        operator(task_id=operator.__name__, config={})
"""


_BARE = """
from airflow.sdk import DAG, task

with DAG("bare", schedule=None):
    @task
    def nothing() -> None:
        pass

    nothing()
"""
_PEERS = {"stock": _PEER, "bare": _BARE}


def main() -> None:
    """Measure, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="parses of each file; the median counts")
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as home:
        for name, source in _PEERS.items():
            (Path(home) / f"{name}.py").write_text(source)
        files = [*sorted(DAGS.glob("[!_]*.py")), *(Path(home) / f"{name}.py" for name in _PEERS)]
        spent = {path.stem: parse_seconds(path, Path(home), repeats) for path in files}
    for name, seconds in spent.items():
        print(f"{name:24} {seconds:6.3f} s of CPU")
    stock, bare = spent.pop("stock"), spent.pop("bare")
    slowest = max(spent, key=lambda name: spent[name])
    result = {
        "name": "dag-parse",
        "figure": round(spent[slowest], 3),
        "unit": "s of CPU, slowest file",
        "limit": LIMIT_SECONDS,
        "peers": {"stock SageMaker operators": round(stock, 3), "Airflow's own share": round(bare, 3)},
        "ratio": round(LIMIT_SECONDS / spent[slowest], 3),
        "conditions": f"{slowest}, median of {repeats}, {os.cpu_count()} cores, Python {sys.version.split()[0]}",
    }
    print(json.dumps(result))


def parse_seconds(path: Path, home: Path, repeats: int) -> float:
    """CPU seconds of one parse in a fresh process, the median of `repeats`."""
    environment = {**os.environ, "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    # Modules are compiled once and not with every parse; the file itself always is.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-W", "ignore", "-c", _PROBE, str(path)]
    runs = [
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        for _ in range(repeats)
    ]
    return statistics.median(float(output.splitlines()[-1]) for output in runs)


if __name__ == "__main__":
    main()
