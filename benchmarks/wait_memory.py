"""`wait-memory`: memory and CPU of 1,000 waits in one process, without Airflow's database: a triggerer's own share.

The waits poll a server on loopback every 30 s, which says that their jobs go on. The peer is the same loop with clients
of its own for each wait, measured with 60 of them. The last line is JSON; figure is the megabytes of the process,
ratio the megabytes of one wait with its own clients over those of one wait here.

    python -m benchmarks.wait_memory [--waits 1000]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from typing import Any

import psutil

PEER_WAITS, POLL_SECONDS, WATCH_SECONDS, MOST_MEGABYTES = 60, 30.0, 30.0, 1500


async def measure(waits: int, shared: bool) -> dict[str, float]:
    """Let `waits` wait; megabytes before and with them, cores while they poll."""
    from aiohttp import web

    from ml_pipeline.aws.clients import AwsAccess
    from ml_pipeline.settings import airflow_connection
    from ml_pipeline.triggers.job import JobTrigger

    calls = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        description = {"ProcessingJobName": "job", "ProcessingJobStatus": "InProgress"}
        logs: dict[str, Any] = {"logStreams": [], "events": []}
        target = request.headers.get("X-Amz-Target", "")
        return web.json_response(description if target.startswith("SageMaker") else logs)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    os.environ["AIRFLOW_CONN_AWS_DEFAULT"] = airflow_connection(f"http://127.0.0.1:{port}")

    async def wait(number: int) -> None:
        # Waits share clients of equal access.
        own = None if shared else {"user_agent_extra": f"wait-{number}"}
        access = AwsAccess(botocore_config=own).to_dict()
        trigger = JobTrigger(
            kind="processing", job_name=f"job-{number}", poll_seconds=POLL_SECONDS, access=access
        )
        async for event in trigger.run():
            sys.exit(f"a wait ended: {event}")

    process = psutil.Process()
    before = process.memory_full_info().uss
    waiting = [asyncio.create_task(wait(number)) for number in range(waits)]
    while calls < 2 * waits:
        await asyncio.sleep(0.1)
    cpu, began = sum(process.cpu_times()[:2]), time.monotonic()
    await asyncio.sleep(WATCH_SECONDS)
    cores = (sum(process.cpu_times()[:2]) - cpu) / (time.monotonic() - began)
    after = process.memory_full_info().uss
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await runner.cleanup()
    return {"megabytes": after / 1e6, "each": (after - before) / 1e6 / waits, "cores": cores}


def main() -> None:
    """Measure both in processes of their own, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--waits", type=int, default=1000)
    parser.add_argument("--only", choices=["shared", "own"], help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.only:
        print(json.dumps(asyncio.run(measure(chosen.waits, chosen.only == "shared"))))
        return
    found = {}
    for only, waits in (("shared", chosen.waits), ("own", PEER_WAITS)):
        argv = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "benchmarks.wait_memory",
            "--only",
            only,
            "--waits",
            str(waits),
        ]
        said = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout
        found[only] = json.loads(said.splitlines()[-1])
        one = found[only]
        memory = f"{one['megabytes']:8.0f} MB {one['each']:8.2f} MB each"
        print(f"{waits:5d} waits, {only:6} clients {memory} {one['cores']:8.1%} of a core")
    result = {
        "name": "wait-memory",
        "figure": round(found["shared"]["megabytes"]),
        "unit": f"MB, {chosen.waits} waits in one process",
        "limit": MOST_MEGABYTES,
        "peers": {"clients of their own": round(found["own"]["each"] * chosen.waits)},
        "ratio": round(found["own"]["each"] / found["shared"]["each"], 1),
        "conditions": {"cores": round(found["shared"]["cores"], 3), "poll_s": POLL_SECONDS, "watched_s": WATCH_SECONDS},
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
