"""Correct labels by hand: `python -m ml_pipeline.corrections --help`."""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Sequence

from ml_pipeline.aws.clients import Client, command_client
from ml_pipeline.dataset import corrections
from ml_pipeline.dataset.corrections import Action, Correction, CorrectionError
from ml_pipeline.settings import Settings, SettingsError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ml_pipeline.corrections",
        description="Read and write the log of corrections of a data set. The next version of the data set applies it.",
    )
    parser.add_argument("dataset", help="name of the data set")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="print the corrections that count, one JSON object per line")
    for action, text in (
        (Action.LABEL, "give photos another class"),
        (Action.REJECT, "leave photos out of the data set"),
        (Action.KEEP, "take back earlier corrections of photos"),
    ):
        command = commands.add_parser(action.value, help=text)
        if action is Action.LABEL:
            command.add_argument("label", help="the right class")
        command.add_argument("photos", nargs="+", help="SHA-256, or key (its first 20 digits), of each photo")
        command.add_argument("--who", default=getpass.getuser(), help="who decides (default: %(default)s)")
        command.add_argument("--why", default="", help="the reason, in your words")
    return parser


def main(argv: Sequence[str] | None = None, s3: Client = None) -> int:
    """Run the command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        settings = Settings.load()
        client = s3 or command_client(settings, "s3")
        if arguments.command == "list":
            for entry in corrections.load(client, settings.bucket, arguments.dataset).newest().values():
                print(corrections.to_line(entry))
            return 0
        entries = [
            Correction(
                sha256,
                Action(arguments.command),
                getattr(arguments, "label", None),
                arguments.who,
                corrections.now(),
                arguments.why,
            )
            for sha256 in _full(client, settings.bucket, arguments.dataset, arguments.photos)
        ]
        uri = corrections.append(client, settings.bucket, arguments.dataset, entries)
    except (CorrectionError, SettingsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"{len(entries)} corrections written to {uri}; the next version of {arguments.dataset} applies them"
    )
    return 0


def _full(s3: Client, bucket: str, name: str, photos: Sequence[str]) -> list[str]:
    """Return the SHA-256 of each photo, found by its key among the photos of the newest version.

    Raises:
        CorrectionError: A photo is not in it.
    """
    from ml_pipeline.dataset.place import Place

    version, _ = Place(s3, bucket, name).newest()
    if version is None:
        raise CorrectionError(f"there is no data set {name!r} in {bucket}; see datasets/ in the bucket")
    known = {sha256[:20]: sha256 for sha256 in version.known_splits}
    for photo in photos:
        if known.get(photo[:20], "")[: len(photo)] != photo or len(photo) < 20:
            raise CorrectionError(
                f"{photo!r} is not a photo of {name!r}: give its key or SHA-256, as in predictions.jsonl"
            )
    return [known[photo[:20]] for photo in photos]


if __name__ == "__main__":
    sys.exit(main())
