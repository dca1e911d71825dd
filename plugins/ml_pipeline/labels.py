"""Bring labels back: `python -m ml_pipeline.labels --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ml_pipeline.aws.clients import AwsAccess
from ml_pipeline.settings import Settings
from ml_pipeline.watching import truth
from ml_pipeline.watching.truth import LabelError
from model_code.data.versions.store import check_name


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ml_pipeline.labels",
        description="Store the true classes of served photos, by InferenceId or by the SHA-256 of the photo's bytes. "
        "The next look of `watch` reports the true accuracy of what it finds among them.",
    )
    parser.add_argument("dataset", help="name of the data set that the endpoint serves")
    parser.add_argument("file", help='lines of {"id": ..., "label": ...} or id,label; - reads standard input')
    arguments = parser.parse_args(argv)
    try:
        check_name(arguments.dataset)
        text = sys.stdin.read() if arguments.file == "-" else Path(arguments.file).read_text(encoding="utf-8")
        settings = Settings.load()
        s3 = AwsAccess(settings.aws_conn_id).client("s3")
        where, count = truth.store(s3, settings.bucket, arguments.dataset, truth.parse(text.splitlines()))
    except (LabelError, OSError, ValueError) as error:
        print(f"labels: {error}", file=sys.stderr)
        return 1
    print(f"stored {count} labels at {where}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
