"""`edit-run`: from a saved edit of a training script to its result through the SDK's ModelTrainer on local_aws.

The limit is the same script run by hand; both start it in a fresh process, alternating, on the same machine.
ModelTrainer uploads the folder, and local_aws starts a job with its own /opt/ml. The SDK looks every 5 s whether it has
ended; under `local-aws run` and `make notebook` it looks every half second. --plain measures without that. The SDK's
import, which a notebook pays once, is not in the figure: it is printed next to it.

    python -m benchmarks.edit_run [--rounds N] [--plain]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from local_aws.clients import environment
from local_aws.clients.pytest_plugin import LocalAws

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.13-cpu"
ROLE = "arn:aws:iam::123456789012:role/edit-run"
SCRIPT = """
import os
import torch

edition = {edition}
layer = torch.nn.Linear(8, 2)
optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
data, labels = torch.randn(256, 8), torch.randint(0, 2, (256,))
for _ in range(20):
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(layer(data), labels)
    loss.backward()
    optimizer.step()
torch.save(layer.state_dict(), os.path.join(os.environ["SM_MODEL_DIR"], "model.pt"))
print("edition", edition, "loss", loss.item())
"""


def main() -> None:
    """Measure, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plain", action="store_true", help="wait as the SDK does without `local-aws run`")
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.folder:
        measure(chosen.folder, chosen.rounds, chosen.plain)
        return
    with tempfile.TemporaryDirectory(prefix="edit-run-") as folder:
        running = LocalAws(Path(folder, "state"), ("--auth", "required"))
        running.start()
        own = running.environment
        environ = {**os.environ, **own} if chosen.plain else environment.for_command(own, os.environ)
        try:
            subprocess.run(
                [sys.executable, "-m", "benchmarks.edit_run", *sys.argv[1:], "--in", folder],
                env=environ, check=True,
            )  # fmt: skip
        finally:
            running.stop()


def measure(folder: Path, rounds: int, plain: bool) -> None:
    """Run the script by hand and through ModelTrainer, in the environment of a client."""
    started = time.perf_counter()
    import sagemaker.train  # noqa: F401
    from sagemaker.core.helper.session_helper import Session

    from local_aws.clients.session import session as loopback

    imported = time.perf_counter() - started
    boto = loopback()
    boto.client("s3").create_bucket(Bucket="edit-run")
    session = Session(boto_session=boto, default_bucket="edit-run")
    source = folder / "source"
    source.mkdir()
    (folder / "model").mkdir()
    alone, trained = [], []
    train(session, source, -1)  # the first one writes the state folder's files and Python's bytecode
    for edition in range(rounds):
        (source / "train.py").write_text(SCRIPT.format(edition=edition))
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "train.py"], cwd=source, check=True,
            env={**os.environ, "SM_MODEL_DIR": str(folder / "model")},
        )  # fmt: skip
        alone.append(time.perf_counter() - started)
        trained.append(train(session, source, edition))
    print(f"\n{'round':<8}{'script alone':>14}{'ModelTrainer':>14}{'added':>10}   seconds")
    for number, (script, job) in enumerate(zip(alone, trained, strict=True)):
        print(f"{number:<8}{script:14.2f}{job:14.2f}{job - script:10.2f}")
    added = statistics.median(job - script for script, job in zip(alone, trained, strict=True))
    print(f"first import of the SDK: {imported:.2f} s")
    result = {
        "name": "edit-run",
        "figure": round(added, 2),
        "unit": "s that ModelTrainer adds to a script, median",
        "limit": round(statistics.median(alone), 2),
        "peers": {},
        "ratio": round(statistics.median(trained) / statistics.median(alone), 2),
        "conditions": {
            "rounds": rounds, "waits": "every 5 s" if plain else "as under local-aws run",
            "trained_s": [round(s, 2) for s in trained], "import_s": round(imported, 1),
            "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1),
            "ratio": "ModelTrainer over the script alone",
        },
    }  # fmt: skip
    print(json.dumps(result))


def train(session: Any, source: Path, edition: int) -> float:
    """Seconds of one `train()` with an edited script, as a notebook's cell does it."""
    from sagemaker.core.training.configs import Compute, SourceCode
    from sagemaker.train import ModelTrainer

    (source / "train.py").write_text(SCRIPT.format(edition=edition))
    started = time.perf_counter()
    trainer = ModelTrainer(
        sagemaker_session=session,
        training_image=IMAGE,
        role=ROLE,
        source_code=SourceCode(source_dir=str(source), entry_script="train.py"),
        compute=Compute(instance_type="ml.m5.large", instance_count=1),
        base_job_name="edit-run",
    )
    trainer.train()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
