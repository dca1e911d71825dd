"""A model of Airflow: workers and triggerers that die, users that clear and mark, runs that race for an endpoint."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from airflow.sdk.bases.operator import TriggerFailureReason
from airflow.sdk.exceptions import TaskDeferred
from airflow.sdk.module_loading import import_string

from ml_pipeline.errors import RETRIES, FreeRetryPolicy, PaidWorkRetryPolicy
from ml_pipeline.triggers.ownership import is_over
from tests.simulator.world import World

DAG = "train_and_deploy"


class WorkerKilled(BaseException):
    """The worker is gone in the middle of its work."""


@dataclass
class Task:
    """A task of a run.

    Attributes:
        make: Makes the operator, in each worker process anew.
        teardown: Runs in any case, and after five tries without faults: an outage ends at last.
        skip: There is nothing to do.
    """

    task_id: str
    make: Callable[[Run], Any]
    teardown: bool = False
    skip: Callable[[Run], bool] = lambda run: False
    state: str = "none"
    try_number: int = 0
    max_tries: int = RETRIES
    xcoms: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None


@dataclass
class Run:
    """A DAG run: tasks one after another, then teardowns."""

    run_id: str
    tasks: list[Task]
    over: bool = False
    over_at: float = 0.0

    def task(self, task_id: str) -> Task:
        return next(task for task in self.tasks if task.task_id == task_id)


class Scheduler:
    """Drives runs through the real operators and triggers.

    Args:
        world: Its random generator decides on everything, so a seed replays.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.runs: list[Run] = []
        self.at_work: list[tuple[Run, Task]] = []
        self._ready: list[Callable[[], None]] = []
        world.hook = self.hook

    def hook(self, call: str) -> None:
        """Kill the worker that makes this call, or let another one work first."""
        if not self.at_work:
            return
        run, task = self.at_work[-1]
        chance = self.world.random.random()
        if chance < 0.01 and not (task.teardown and task.try_number > 5):
            self.world.note(f"worker of {run.run_id}/{task.task_id} dies at {call}")
            raise WorkerKilled
        if chance < 0.15 and self._ready and len(self.at_work) < 3:
            self._ready.pop(self.world.random.randrange(len(self._ready)))()

    def is_over(self, run_id: str) -> bool:
        return all(run.over for run in self.runs if run.run_id == run_id)

    def has_ended(self, run_id: str) -> bool:
        return any(run.over for run in self.runs if run.run_id == run_id)

    async def drive(self, run: Run) -> None:
        """Run all tasks, then the teardowns."""
        await asyncio.sleep(self.world.random.uniform(0, self.world.random.choice([5, 600])))
        failed = False
        for task in run.tasks:
            if failed and not task.teardown:
                task.state = "upstream_failed"
                continue
            if task.skip(run):
                task.state = "skipped"
                continue
            await self._task(run, task)
            failed = failed or task.state != "success"
        run.over, run.over_at = True, self.world.now

    async def _task(self, run: Run, task: Task) -> None:
        while True:
            task.try_number += 1
            task.xcoms.clear()
            task.state = "running"
            outcome = await self._work(run, task, None)
            while isinstance(outcome, TaskDeferred):
                outcome = await self._defer(run, task, outcome)
            if outcome is None:
                return
            task.state = "up_for_retry"
            await asyncio.sleep(outcome)

    async def _work(self, run: Run, task: Task, resume: tuple[str, dict[str, Any]] | None) -> Any:
        """Let a worker try: a TaskDeferred, a pause before the next try, or None if the task has ended."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def step() -> None:
            future.set_result(self._try(run, task, resume))

        self._ready.append(step)
        asyncio.get_running_loop().call_later(self.world.random.uniform(0, 5), self._one_step, step)
        return await future

    def _one_step(self, step: Callable[[], None]) -> None:
        if step in self._ready:
            self._ready.remove(step)
            step()

    def _try(self, run: Run, task: Task, resume: tuple[str, dict[str, Any]] | None) -> Any:
        operator, context = task.make(run), self.context(run, task)
        faults = self.world.faults
        if task.teardown and task.try_number > 5:
            self.world.faults = 0.0
        self.at_work.append((run, task))
        try:
            if self.world.disk_full[0] <= self.world.now < self.world.disk_full[1]:
                raise OSError(errno.ENOSPC, "No space left on device")
            result = operator.resume_execution(*resume, context) if resume else operator.execute(context)
        except TaskDeferred as deferred:
            task.state = "deferred"
            return deferred
        except WorkerKilled as killed:
            if self.world.random.random() < 0.5:
                return self._retry(task, killed)  # kill -9
            self.at_work.pop()
            self.at_work.append((run, Task("kill", task.make, teardown=True, try_number=9)))
            try:
                operator.on_kill()
            except Exception as error:
                self.world.note(f"on_kill failed: {error}")
            return self._retry(task, killed)
        except Exception as error:
            return self._retry(task, error)
        finally:
            self.at_work.pop()
            self.world.faults = faults
        task.state = "success"
        task.xcoms["return_value"] = result
        self.world.note(f"{run.run_id}/{task.task_id} succeeded")
        return None

    def _retry(self, task: Task, error: BaseException) -> float | None:
        if isinstance(error, AttributeError | NameError | TypeError):
            raise error  # the simulator lacks something, or the product is at fault: nothing of it was tried
        task.error = error
        if isinstance(error, WorkerKilled):
            pause = 10.0 if task.try_number <= task.max_tries else None
        else:
            policy = FreeRetryPolicy() if task.teardown else PaidWorkRetryPolicy()
            decision = policy.evaluate(error, task.try_number, task.max_tries)
            retried = decision.action.value == "retry" and task.try_number <= task.max_tries
            pause = decision.retry_delay.total_seconds() if retried and decision.retry_delay else None
        task.state = "failed" if pause is None else "up_for_retry"
        self.world.note(f"{task.task_id} try {task.try_number}: {type(error).__name__} {error}: {task.state}")
        return pause

    async def _defer(self, run: Run, task: Task, deferred: TaskDeferred) -> Any:
        """Wait as triggerers do: serialized, restarted, duplicated, timed out, cleared, marked."""
        path, arguments = deferred.trigger.serialize()
        stored = json.dumps(arguments)
        loop, random = asyncio.get_running_loop(), self.world.random
        timeout = deferred.timeout.total_seconds() if deferred.timeout else 1e9
        deadline = loop.time() + timeout
        while True:
            triggers = [import_string(path)(**json.loads(stored)) for _ in range(random.choice([1, 1, 1, 2]))]
            for trigger in triggers:
                trigger._task_instance = SimpleNamespace(run_id=run.run_id, task_id=task.task_id)
            waits = {asyncio.create_task(_first(trigger)) for trigger in triggers}
            fate = random.choices(["none", "restart", "clear", "mark"], [10, 4, 2, 2])[0]
            patience = random.uniform(0, 1500) if fate != "none" else deadline - loop.time()
            done, left = await asyncio.wait(
                waits, timeout=max(0.0, min(patience, deadline - loop.time())), return_when="FIRST_COMPLETED"
            )
            for wait in left:
                wait.cancel()
            if done:
                event = next(iter(done)).result()
                task.state = "running"
                return await self._work(run, task, (deferred.method_name, {"event": event}))
            if loop.time() >= deadline:
                self.world.note(f"{run.run_id}/{task.task_id} timed out")
                return await self._work(
                    run, task, ("__fail__", {"error": TriggerFailureReason.TRIGGER_TIMEOUT})
                )
            self.world.note(f"{run.run_id}/{task.task_id}: {fate}")
            if fate == "restart":
                await asyncio.sleep(random.uniform(0, 120))
                continue
            task.state = "failed" if fate == "mark" else "none"
            for trigger in triggers:
                await self._kill(trigger)
            if fate == "mark":
                return None
            task.max_tries = task.try_number + RETRIES
            return 1.0

    async def _kill(self, trigger: Any) -> None:
        try:
            await trigger.on_kill()
        except Exception as error:
            self.world.note(f"on_kill failed: {error}")

    def states(self, ti: Any) -> dict[str, dict[str, str | None]]:
        """Return the execution API's answer about a task."""
        run = next(run for run in self.runs if run.run_id == ti.run_id)
        state = run.task(ti.task_id).state
        return {ti.run_id: {ti.task_id: None if state == "none" else state}}

    async def task_is_over(self, ti: Any) -> bool:
        return is_over(self.states(ti), ti.run_id)

    def context(self, run: Run, task: Task) -> Any:
        ti = SimpleNamespace(
            dag_id=DAG,
            run_id=run.run_id,
            task_id=task.task_id,
            map_index=-1,
            try_number=task.try_number,
            max_tries=task.max_tries,
            xcom_push=lambda key, value: task.xcoms.__setitem__(key, value),
            xcom_pull=lambda task_ids, key="return_value", map_indexes=None: run.task(task_ids).xcoms.get(
                key
            ),
            get_task_states=lambda **_: self.states(SimpleNamespace(run_id=run.run_id, task_id=task.task_id)),
        )
        dag_run = SimpleNamespace(dag_id=DAG, run_id=run.run_id, start_date=datetime.now(UTC))
        return {"ti": ti, "dag_run": dag_run, "params": {}}


async def _first(trigger: Any) -> Any:
    async for event in trigger.run():
        return event.payload
    raise AssertionError("the trigger ended without an event")
