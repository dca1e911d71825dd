"""Photos of S3 to a data set version, in a job of its own: `python -m model_code.data.versions.prepare --help`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from model_code.data.manifest import ManifestError
from model_code.data.source import DatasetError
from model_code.data.versions import order as orders
from model_code.data.versions.corrections import correct
from model_code.data.versions.draft import Draft
from model_code.data.versions.journal import Journal
from model_code.data.versions.make import Made, make
from model_code.data.versions.order import Listed, Order
from model_code.process.progress import Bars

_INPUT = Path("/opt/ml/processing/input")
MADE = "made.json"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m model_code.data.versions.prepare",
        description="Make the next version of a data set from photos that were listed in S3 and are on this disk: the "
        "same bytes as an upload from the Airflow worker makes. The pointer to the version is not written.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    inputs = {
        "order": f"folder with {orders.NAME} and {orders.LISTING}",
        "photos": "folder with the files of the source",
        "reviewed": "folder with reviewed photos, by SHA-256; absent where the order names none",
        "parent": "folder with the files of the newest version; absent where there is none",
        "journal": "folder with what jobs before this one have done",
    }
    for name, use in inputs.items():
        parser.add_argument(f"--{name}", type=Path, default=_INPUT / name, help=use)
    parser.add_argument(
        "--output", type=Path, default=Path("/opt/ml/processing/output"),
        help="folder for shards, thumbnails, version and journal",
    )  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = _parser().parse_args(argv)
    output: Path = arguments.output
    # The disk of the job is where there is room; and a file that is complete only changes its name.
    with tempfile.TemporaryDirectory(prefix="prepare-", dir=output.parent) as scratch:
        tempfile.tempdir = scratch
        try:
            started = time.monotonic()
            made = _make(arguments)
        except (DatasetError, ManifestError, ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        finally:
            tempfile.tempdir = None
    # A job that goes on reads only the rest: its rate says nothing.
    if made["read"] and not any(arguments.journal.glob("looks-*")):
        print(f"photos_per_second={made['read'] / (time.monotonic() - started):.1f}", flush=True)
    return 0


def _make(arguments: argparse.Namespace) -> Made:
    output: Path = arguments.output
    for name in ("shards", "thumbnails", "version", "journal"):
        (output / name).mkdir(parents=True, exist_ok=True)
    order = Order.from_json((arguments.order / orders.NAME).read_bytes())
    store = Draft(output, order.name, order.bucket, order.parent, arguments.parent, order.shards)
    source = Listed(order, arguments.order / orders.LISTING, arguments.photos, arguments.reviewed)
    made = make(
        store,
        source,
        order.options,
        correct(order.decisions, frozenset(order.forgotten)),
        Bars(),
        Journal(output / "journal", arguments.journal, order.shards),
    )
    (output / "version" / MADE).write_text(json.dumps(made))
    return made


if __name__ == "__main__":
    sys.exit(main())
