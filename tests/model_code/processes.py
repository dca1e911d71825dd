"""`train` in processes of its own, which can be killed and can form a group; torch is imported once for all of them."""

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from model_code.train.checkpoints import read

SECONDS = 120.0


def _train(argv: list[str], environment: dict[str, str], log: str) -> None:
    os.environ.update(environment)
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    from model_code.train import __main__ as train

    train.limit_threads = lambda environment: None
    sys.exit(train.main(argv, environment))


def start(argv: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> BaseProcess:
    """Start `train`; its output is appended to `log`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["model_code.train.head.strategy", "model_code.train.finetune.strategy"])
    # Not daemonic: fine-tuning starts decoders of its own.
    process = context.Process(target=_train, args=(list(argv), dict(environment or {}), str(log)))
    process.start()
    return process


def wait_for(condition: Callable[[], bool], process: BaseProcess, log: Path) -> bool:
    """Wait until `condition` holds; False if the process ended well before it did."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        if process.exitcode is not None:
            assert process.exitcode == 0, log.read_text()
            return condition()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.002)
    return True


def finish(processes: Sequence[BaseProcess], log: Path) -> None:
    """Wait for all to end well."""
    try:
        for process in processes:
            process.join(SECONDS)
        assert [process.exitcode for process in processes] == [0] * len(processes), log.read_text()
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
                process.join()


def kill(process: BaseProcess) -> None:
    """SIGKILL: nothing in the process gets to tidy up."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def newest_step(folder: Path) -> int:
    """The number of the newest checkpoint of the newest fit below `folder`; -1 where there is none."""
    steps = [int(path.stem.removeprefix("step-")) for path in folder.rglob("step-*.ckpt")]
    return max(steps, default=-1)


def result(folder: Path) -> dict[str, Any]:
    """The progress of the finished fit whose checkpoints are below `folder`."""
    finished = []
    for path in sorted(folder.rglob("step-*.ckpt")):
        state = read(path)
        if "progress" in state and state["progress"]["done"]:
            finished.append(state["progress"])
    assert len(finished) == 1, f"{len(finished)} finished fits in {folder}"
    return finished[0]


def hosts(count: int) -> list[dict[str, str]]:
    """The environments of a group of `count` hosts, all on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    names = [f"127.0.0.{number + 1}" for number in range(count)]
    listed = "[" + ", ".join(f'"{name}"' for name in names) + "]"
    # NCCL believes that these are hosts of their own, and so lets them share the one GPU there may be.
    return [
        {"SM_HOSTS": listed, "SM_CURRENT_HOST": name, "MASTER_PORT": str(port), "NCCL_HOSTID": name}
        for name in names
    ]
