"""Photos in a folder or a table to a data set version in a folder: `python -m model_code.data --help`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from model_code.data.manifest import ManifestError, read_manifest
from model_code.data.records import Fractions
from model_code.data.scan import local_source
from model_code.data.source import DatasetError
from model_code.data.versions.make import Options, make
from model_code.data.versions.store import ConcurrentUpload, FolderStore
from model_code.process.progress import Bars


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m model_code.data",
        description="Make the next version of a data set from local photos: shards, manifest.json and photos.jsonl in "
        "the layout of the bucket. Only what changed since the last version is read and written.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "photos", help="folder with one folder per class, or a table (.csv, .tsv, .jsonl, .manifest)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("datasets-out"), help="folder for datasets/<name>/"
    )
    parser.add_argument("--name", default="photos", help="name of the data set")
    parser.add_argument("--seed", type=int, default=0, help="shuffles the split of a new data set")
    parser.add_argument("--valid", type=float, default=0.1, help="fraction of each class for validation")
    parser.add_argument("--test", type=float, default=0.1, help="fraction of each class for the test")
    parser.add_argument("--force", action="store_true", help="read every file again")
    parser.add_argument(
        "--no-group-lookalikes",
        action="store_true",
        help="let photos of the same picture go to different splits",
    )
    return parser


def _lay_out(store: FolderStore, version: str) -> Path:
    """Link the shards of the version into channel folders `train`, `valid` and `test`, and return their parent."""
    folder = Path(store.uri(f"versions/{version}"))
    manifest = read_manifest(folder / "manifest.json")
    for shard in manifest.shards:
        link = folder / str(shard.split) / f"{shard.sha256}.tar"
        link.parent.mkdir(exist_ok=True)
        if not link.exists():
            os.link(store.uri(f"shards/{link.name}"), link)
    return folder


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code. The last line printed is the summary as JSON."""
    arguments = _parser().parse_args(argv)
    try:
        options = Options(
            seed=arguments.seed,
            fractions=Fractions(arguments.valid, arguments.test),
            group_lookalikes=not arguments.no_group_lookalikes,
            force=arguments.force,
        )
        store = FolderStore(arguments.output, arguments.name)
        made = make(store, local_source(arguments.photos), options, progress=Bars())
        folder = _lay_out(store, made["version"])
    except (DatasetError, ManifestError, ConcurrentUpload, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for example in made["rejected_examples"]:
        print(f"left out {example['path']}: {example['reason']}")
    print(*made["changes"], sep="\n", end="\n" if made["changes"] else "")
    print(f"channels: {folder}/train, valid, test; manifest.json next to them")
    print(json.dumps(made, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
