"""Shards to embeddings: `python -m model_code.embed --help`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from model_code.data import shards
from model_code.data.shards import ShardError
from model_code.data.transform import Transform, for_architecture
from model_code.embed.embedding import EmbedError, embed
from model_code.embed.embeddings import NO_WEIGHTS, Embedder
from model_code.embed.forward import RUNTIMES, best_forward
from model_code.networks.backbone import build_backbone
from model_code.networks.weights import ArchitectureError, find_weights
from model_code.process.inputs import optional

_INPUT = Path("/opt/ml/processing/input")
_OUTPUT = Path("/opt/ml/processing/output")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m model_code.embed",
        description="Compute the embeddings of the photos in shards, one safetensors file per shard. "
        "Shards that have a file in the output folder are skipped.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--shards", type=Path, default=_INPUT / "shards", help="folder with .tar shards")
    parser.add_argument(
        "--weights",
        type=Path,
        default=_INPUT / "weights",
        help="state_dict file or safetensors, or a folder with one; without it the backbone is untrained",
    )
    parser.add_argument(
        "--output", type=Path, default=_OUTPUT / "embeddings", help="folder for the embeddings"
    )
    parser.add_argument("--architecture", default="mobilenet_v2", help="torchvision's name, or timm:<name>")
    parser.add_argument(
        "--views", type=int, default=1, help="views of each training photo: itself, mirror image, crops"
    )
    parser.add_argument("--transform", help="JSON of a transform; default: the architecture's own")
    parser.add_argument("--batch_size", type=int, help="views per forward pass; default: by processor")
    parser.add_argument("--runtime", choices=RUNTIMES, default="auto", help="what runs the backbone")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        paths = shards.shards_in(arguments.shards)
        weights = find_weights(optional(arguments, parser, "weights"))
        transform = (
            Transform.from_dict(json.loads(arguments.transform))
            if arguments.transform
            else for_architecture(arguments.architecture)
        )
        digest = weights.sha256 if weights else NO_WEIGHTS
        embedder = Embedder(arguments.architecture, digest, transform, arguments.views)
        print(
            f"embedder={embedder.id} architecture={embedder.architecture} weights={digest[:12]}", flush=True
        )
        # Importing and exporting take seconds: nothing of it when there is nothing to do.
        if not paths:
            print(f"no shards in {arguments.shards}: nothing to do", flush=True)
            return 0
        forward = best_forward(
            build_backbone(arguments.architecture, weights.path if weights else None),
            transform,
            arguments.runtime,
        )
        rate = embed(paths, arguments.output, embedder, forward, arguments.batch_size)
    except (ArchitectureError, EmbedError, ShardError, FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if rate:
        print(f"photos_per_second={rate:.1f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
