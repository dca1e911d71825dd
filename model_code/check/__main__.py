"""Check photos and labels before paying for training: `python -m model_code.check --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from model_code.check import page, run
from model_code.check.material import CheckError, collect
from model_code.data.manifest import ManifestError, read_dataset, read_manifest
from model_code.data.shards import ShardError, shards_in
from model_code.data.versions.looks import read_paths
from model_code.embed import __main__ as embed
from model_code.embed.embeddings import EmbeddingsError
from model_code.process.cores import cores
from model_code.process.inputs import optional

_INPUT = Path("/opt/ml/processing/input")
_OUTPUT = Path("/opt/ml/processing/output")
_FAILURES = (CheckError, EmbeddingsError, ManifestError, ShardError, FileNotFoundError)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; its defaults are SageMaker's folders of a processing job."""
    arguments = argparse.ArgumentParser(
        prog="python -m model_code.check",
        description="Find suspected wrong labels, near-duplicates, photos and classes that are hard to learn. "
        "Writes check.json, findings.jsonl and data_report.html.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    arguments.add_argument("--shards", type=Path, default=_INPUT / "shards", help="folder with .tar shards")
    arguments.add_argument(
        "--embeddings", type=Path, default=_INPUT / "embeddings", help="folder with their embeddings"
    )
    arguments.add_argument(
        "--dataset", type=Path, default=_INPUT / "dataset", help="manifest.json or its folder; may be absent"
    )
    arguments.add_argument("--output", type=Path, default=_OUTPUT / "check", help="folder for the findings")
    arguments.add_argument(
        "--thumbnails", type=int, default=24, metavar="N", help="photos shown per kind of finding; 0: none"
    )
    arguments.add_argument("--workers", type=int, default=cores(), help="cores to use")
    arguments.add_argument(
        "--embed",
        action="store_true",
        help="embed the shards into --embeddings first, with the arguments of model_code.embed; a check that then "
        "fails is reported, and the exit status is that of embedding",
    )
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status: 0, or 1 with the reason on stderr."""
    options = parser()
    arguments, others = options.parse_known_args(argv)
    if not arguments.embed:
        if others:
            options.error(f"unrecognized arguments: {' '.join(others)}")
        return check(arguments, options)
    folders = ["--shards", str(arguments.shards), "--output", str(arguments.embeddings)]
    status = embed.main([*folders, *others])
    if status == 0 and _is_whole(arguments):
        check(arguments, options)
    return status


def _is_whole(arguments: argparse.Namespace) -> bool:
    """Return True unless the manifest lists shards that this job did not get."""
    with suppress(FileNotFoundError, ManifestError):
        listed = {shard.sha256 for shard in read_manifest(arguments.dataset).shards}
        if missing := listed - {path.stem for path in shards_in(arguments.shards)}:
            print(
                f"{len(missing)} shards are embedded already: the check is left to a job that has all",
                flush=True,
            )
            return False
    return True


def check(arguments: argparse.Namespace, options: argparse.ArgumentParser) -> int:
    """Find, write, and print the counts as `name=value`."""
    try:
        dataset = optional(arguments, options, "dataset")
        named = read_dataset(dataset)
        classes = read_manifest(dataset).classes if dataset is not None and named is not None else ()
        material = collect(arguments.embeddings, arguments.shards, classes, read_paths(dataset))
        findings = run.find(material, max(1, arguments.workers))
        document = run.document(material, findings, named)
        photos = run.thumbnails(material, document, max(0, arguments.thumbnails))
        html = page.render(document, photos, max(0, arguments.thumbnails))
        run.write(arguments.output, document, run.lines(material, findings), html)
    except _FAILURES as error:
        print(f"check: {error}", file=sys.stderr, flush=True)
        return 1
    duplicates = document["near_duplicates"]
    print(
        f"suspects={document['suspects']['count']} suspect_share={document['suspects']['share']:.4f} "
        f"near_duplicates={duplicates['pairs']} across_classes={duplicates['across_classes']} "
        f"across_splits={duplicates['across_splits']}",
        flush=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
