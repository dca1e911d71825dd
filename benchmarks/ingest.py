"""`ingest`: photos looked at per second from an S3 that adds 40 ms to each object, and from one that adds nothing.

The S3 is a small server of its own process, which holds the photos in memory. The limits are measured in the same run:
the same client fetching without decoding, the same decoder on photos in memory, and both of these at once, on the cores
that they share with the server. `figure` is photos/s with delay on
small photos; `ratio` is figure over 40, the rate of one worker per core on 2 cores at 40 ms per object.

    python -m benchmarks.ingest [--photos 1500] [--large 240] [--rounds 3]
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import socket
import statistics
import threading
import time
import xml.sax.saxutils
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection

import boto3
import numpy as np
from botocore.config import Config
from PIL import Image

from benchmarks._shared import need, shared
from ml_pipeline.aws.clients import CONNECTIONS
from ml_pipeline.dataset.sources import S3Folder
from model_code.data import scan
from model_code.data.source import Candidate
from model_code.data.versions.columns import Findings
from model_code.process.cores import cores
from model_code.process.parallel import ordered_map

DELAY = 0.04
BEFORE = 40.0
CLASSES = ("one", "two")
WIDTHS = (9, 9, 11, 12, 7)


def main() -> None:
    """Measure both kinds of photos, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=1500, help="photos of 224 pixels")
    parser.add_argument("--large", type=int, default=240, help="drawn photos of 12 megapixels")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each kind; the median counts")
    arguments = parser.parse_args()
    results = {
        "224 px": measure(small_photos(arguments.photos), arguments.rounds),
        "12 MP": measure(large_photos(arguments.large), arguments.rounds),
    }
    print(
        f"{'photos':8} {'delayed':>9} {'direct':>9} {'fetch only':>11} {'decode only':>12} {'both':>7}   photos/s"
    )
    for name, rates in results.items():
        five = (rates.delayed, rates.direct, rates.fetch, rates.decode, rates.both)
        print(f"{name:8} " + " ".join(f"{rate:{width}.0f}" for rate, width in zip(five, WIDTHS, strict=True)))
    ours = results["224 px"]
    print(
        json.dumps(
            {
                "name": "ingest",
                "figure": round(ours.delayed, 1),
                "unit": "photos/s",
                "limit": round(min(ours.fetch, ours.decode), 1),
                "peers": {
                    f"{name}: {kind}": round(value, 3)
                    for name, rates in results.items()
                    for kind, value in (
                        ("of the rate without delay", rates.delayed / rates.direct),
                        ("of the limit", rates.delayed / min(rates.fetch, rates.decode)),
                        ("of both limits at once", rates.delayed / rates.both),
                    )
                },
                "ratio": round(ours.delayed / BEFORE, 2),
                "conditions": {
                    "delay_ms": DELAY * 1000,
                    "cores": cores(),
                    "load": round(os.getloadavg()[0], 1),
                    "photos": arguments.photos,
                    "large": arguments.large,
                    "rounds": arguments.rounds,
                },
            }
        )
    )


@dataclass(frozen=True)
class Rates:
    """Photos per second: looked at with and without delay, only fetched (with delay), only decoded, both at once."""

    delayed: float
    direct: float
    fetch: float
    decode: float
    both: float


def measure(photos: Mapping[str, bytes], rounds: int) -> Rates:
    """The median rates of some photos, each kind in turn, so that other load slows all of them."""
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(dict(photos), there), daemon=True
    )
    server.start()
    url = f"http://127.0.0.1:{here.recv()}"
    s3 = boto3.client(
        "s3", "us-east-1", endpoint_url=url, aws_access_key_id="x", aws_secret_access_key="x",
        config=Config(s3={"addressing_style": "path"}, max_pool_connections=CONNECTIONS),
    )  # fmt: skip
    candidates = [Candidate(key, key.split("/")[0], len(data)) for key, data in photos.items()]

    def look(bucket: str) -> None:
        assert scan.look(S3Folder(s3, f"s3://{bucket}/"), Findings()).read == len(photos)

    def fetch() -> None:
        source = S3Folder(s3, "s3://delayed/")
        assert sum(1 for _ in ordered_map(source.read, photos, source.requests)) == len(photos)

    def decode() -> None:
        found = ordered_map(lambda item: scan.examine(item, photos[item.path]), candidates, cores())
        assert sum(1 for _ in found) == len(photos)

    def both() -> None:
        with ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(fetch), pool.submit(decode)]:
                future.result()

    looks = [lambda: look("delayed"), lambda: look("direct")]
    steps: list[Callable[[], None]] = [*looks, fetch, decode, both]
    seconds: list[list[float]] = [[] for _ in steps]
    try:
        for _ in range(rounds):
            for step, taken in zip(steps, seconds, strict=True):
                started = time.perf_counter()
                step()
                taken.append(time.perf_counter() - started)
    finally:
        server.terminate()
        server.join()
    return Rates(*(len(photos) / statistics.median(taken) for taken in seconds))


def small_photos(count: int) -> dict[str, bytes]:
    """Photos of Stanford Dogs at 224 pixels."""
    folder = shared("data/stanford-dogs")
    need(folder)
    paths = sorted(folder.rglob("*.jpg"))[:: max(1, len(list(folder.rglob("*.jpg"))) // count)][:count]
    return {f"{CLASSES[n % 2]}/{n:06d}.jpg": path.read_bytes() for n, path in enumerate(paths)}


def large_photos(count: int) -> dict[str, bytes]:
    """Drawn photos of 4000 x 3000 pixels, each different."""
    photos = {}
    for number in range(count):
        numbers = np.random.default_rng(number)
        patches = Image.fromarray(numbers.integers(0, 256, (60, 80, 3), np.uint8)).resize((4000, 3000))
        buffer = io.BytesIO()
        patches.save(buffer, "JPEG", quality=90)
        photos[f"{CLASSES[number % 2]}/{number:06d}.jpg"] = buffer.getvalue()
    return photos


def serve(photos: dict[str, bytes], ready: Connection) -> None:
    """An S3 of two buckets, `direct` and `delayed`, with the same photos; it takes as little CPU as it can."""

    def answer(connection: socket.socket) -> None:
        got = b""
        while data := connection.recv(1 << 16):
            got += data
            if not got.endswith(b"\r\n\r\n"):
                continue
            bucket, _, key = got.split(b" ", 2)[1].decode().partition("?")[0].lstrip("/").partition("/")
            got = b""
            body = photos[key] if key else listing(bucket, photos).encode()
            if key and bucket == "delayed":
                time.sleep(DELAY)
            head = f'HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nETag: "{len(body)}"\r\n\r\n'
            connection.sendmsg([head.encode()], [], socket.MSG_MORE)
            connection.sendall(body)

    with socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS) as server:
        ready.send(server.getsockname()[1])
        while True:
            threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()


def listing(bucket: str, photos: Mapping[str, bytes]) -> str:
    """The answer to ListObjectsV2, in one page."""
    items = "".join(
        f"<Contents><Key>{xml.sax.saxutils.escape(key)}</Key><Size>{len(data)}</Size><ETag>{len(data)}</ETag></Contents>"
        for key, data in photos.items()
    )
    return (
        f"<ListBucketResult><Name>{bucket}</Name><IsTruncated>false</IsTruncated>{items}</ListBucketResult>"
    )


if __name__ == "__main__":
    main()
