"""Waits of one process share their clients; polls do not come at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiobotocore.session import get_session

from ml_pipeline.aws.clients import AwsAccess
from ml_pipeline.triggers import base, clients
from ml_pipeline.triggers.clients import Clients
from ml_pipeline.triggers.job import JobTrigger
from tests.ml_pipeline.fake_sagemaker import client_error


@dataclass
class Seen:
    """The services of the clients that were opened and closed, with the connection."""

    opened: list[tuple[str, str | None]] = field(default_factory=list)
    closed: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Real clients, which are never called."""
    found = Seen()

    @asynccontextmanager
    async def client(one: tuple[str, str | None]) -> AsyncIterator[Any]:
        key = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
        async with get_session().create_client(one[0], region_name="us-east-1", **key) as made:
            found.opened.append(one)
            yield made
        found.closed.append(one)

    async def async_client(self: AwsAccess, service: str) -> Any:
        return client((service, self.aws_conn_id))

    monkeypatch.setattr(AwsAccess, "async_client", async_client)
    return found


def test_a_thousand_waits_share_one_client_of_each_service(seen: Seen) -> None:
    ours = [("sagemaker", "aws_default"), ("logs", "aws_default")]

    async def run() -> None:
        waits = [Clients(AwsAccess()) for _ in range(1000)]
        for service in ("sagemaker", "logs"):
            held = await asyncio.gather(*(wait.get(service) for wait in waits))
            assert len({id(client) for client in held}) == 1
        assert seen.opened == ours
        other = Clients(AwsAccess("another"))
        await other.get("sagemaker")
        await other.close()
        for wait in waits[1:]:
            await wait.close()
        assert seen.closed == [("sagemaker", "another")]
        await waits[0].close()
        assert seen.closed[1:] == ours
        await waits[0].get("sagemaker")
        await waits[0].close()

    asyncio.run(run())
    assert seen.opened == [*ours, ("sagemaker", "another"), ours[0]]


@pytest.mark.parametrize(("age", "fresh"), [(0.0, True), (3600.0, False)], ids=["old", "just opened"])
def test_a_failed_client_is_replaced_once(
    seen: Seen, monkeypatch: pytest.MonkeyPatch, age: float, fresh: bool
) -> None:
    monkeypatch.setattr(clients, "_RENEWED_AFTER_SECONDS", age)

    async def run() -> None:
        async with AsyncExitStack() as stack:
            waits = [Clients(AwsAccess()) for _ in range(3)]
            for wait in waits:
                stack.push_async_callback(wait.close)
            first = [await wait.get("sagemaker") for wait in waits]
            for wait in waits[:2]:
                await wait.close(renew=True)
            second = [await wait.get("sagemaker") for wait in waits]
            assert (second[0] is not first[0]) == fresh
            assert second[0] is second[1]
            assert second[2] is first[2]

    asyncio.run(run())
    assert len(seen.opened) == (2 if fresh else 1)


def test_polls_are_spread_and_throttling_slows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    class Throttled(JobTrigger):
        async def poll(self, clients: Clients) -> Any:
            if len(pauses) < 3:
                raise client_error("ThrottlingException", "slow down")
            return {"done": True} if len(pauses) == 40 else None

    monkeypatch.setattr(base.asyncio, "sleep", sleep)
    trigger = Throttled(kind="training", job_name="train-1", poll_seconds=30.0, access=AwsAccess().to_dict())

    async def run() -> None:
        async for _ in trigger.run():
            return

    asyncio.run(run())
    low, high = 1 - base._JITTER, 1 + base._JITTER
    assert all(60 * low <= pause <= 60 * high for pause in pauses[:3])
    assert all(30 * low <= pause <= 30 * high for pause in pauses[3:])
    assert len(set(pauses)) == len(pauses)
