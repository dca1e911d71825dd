"""Starting, refusing to start, crashing, draining."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.model_code.serve.running import FIXED, Reply, Server, read_reply, wait_for
from tests.model_code.serve.test_http import post
from tests.model_code.serve.toy_bundle import photo, write_toy, write_toy_archive

RED = photo("red", kind="PNG")


def refusal(*arguments: str) -> str:
    """The one line with which the server refuses to start."""
    done = subprocess.run(
        [sys.executable, "-m", "model_code.serve", "--port", "0", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def label(reply: Reply) -> str:
    return str(reply.json()["predictions"][0]["class"])


def test_serves_an_archive_and_removes_what_it_unpacked(tmp_path: Path) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    with Server(write_toy_archive(tmp_path), tmp_path, *FIXED, TMPDIR=str(scratch)) as server:
        assert label(server.invoke(RED)) == "red"
        assert list(scratch.iterdir())
    assert not list(scratch.iterdir())


def test_measures_when_nothing_is_given(tmp_path: Path) -> None:
    with Server(write_toy(tmp_path / "toy"), tmp_path) as server:
        assert label(server.invoke(RED)) == "red"
        assert "process(es)" in server.errors.read_text()


def test_port_of_sagemaker_is_taken_from_the_environment(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        environment = {**os.environ, "SAGEMAKER_BIND_TO_PORT": str(port)}
        done = subprocess.run(
            [sys.executable, "-m", "model_code.serve", str(write_toy(tmp_path))],
            capture_output=True, text=True, timeout=60, check=False, env=environment,
        )  # fmt: skip
    assert done.returncode == 1
    assert (
        done.stderr
        == f"error: port {port} is in use: choose another with --port, or stop the program that uses it\n"
    )


def test_help_is_useful() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "model_code.serve", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    for word in ("MODEL_DIR", "SAGEMAKER_BIND_TO_PORT", "--max-batch", "/invocations"):
        assert word in done.stdout


def test_refuses_what_is_no_model(tmp_path: Path) -> None:
    assert "no such model" in refusal(str(tmp_path / "nothing"))
    assert "model.json" in refusal(str(tmp_path))
    (tmp_path / "model.tar.gz").write_bytes(b"not an archive")
    assert "model.tar.gz" in refusal(str(tmp_path / "model.tar.gz"))


def test_refuses_a_truncated_archive(tmp_path: Path) -> None:
    archive = write_toy_archive(tmp_path)
    archive.write_bytes(archive.read_bytes()[:-500])
    assert "download it again" in refusal(str(archive))


@pytest.mark.parametrize("name", ["model.onnx", "model.int8.onnx", "model.safetensors"])
def test_refuses_a_tampered_or_missing_file(tmp_path: Path, name: str) -> None:
    toy = write_toy(tmp_path)
    data = bytearray((toy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (toy / name).write_bytes(data)
    assert name in refusal(str(toy))
    (toy / name).unlink()
    assert name in refusal(str(toy))


def test_refuses_a_schema_from_the_future(tmp_path: Path) -> None:
    toy = write_toy(tmp_path)
    card = json.loads((toy / "model.json").read_text())
    (toy / "model.json").write_text(json.dumps({**card, "schema_version": 99}))
    assert "schema_version 99" in refusal(str(toy))
    (toy / "model.json").write_text(json.dumps({**card, "transform": {"resize": 7}}))
    assert "transform" in refusal(str(toy))


def test_refuses_an_archive_that_writes_outside_its_folder(tmp_path: Path) -> None:
    for name, kind in (
        ("../evil", tarfile.REGTYPE),
        ("/tmp/evil", tarfile.REGTYPE),
        ("evil", tarfile.SYMTYPE),
    ):
        archive = tmp_path / "model.tar.gz"
        with gzip.open(archive, "wb") as stream, tarfile.open(fileobj=stream, mode="w") as tar:
            member = tarfile.TarInfo(name)
            member.type = kind
            member.linkname = "/etc"
            tar.addfile(member)
        refusal(str(archive))
    assert not (tmp_path.parent / "evil").exists()


def test_refuses_a_model_that_no_runtime_reproduces(tmp_path: Path) -> None:
    wrong = -8 * np.eye(3)
    toy = write_toy(tmp_path, int8_head=wrong, float_head=wrong)
    done = subprocess.run(
        [sys.executable, "-m", "model_code.serve", str(toy), *FIXED],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "no runtime can serve this model" in done.stderr.splitlines()[-1]


def test_senseless_settings_are_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "model_code.serve", str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "SAGEMAKER_BIND_TO_PORT": "http"},
    )  # fmt: skip
    assert "invalid int value: 'http'" in done.stderr.splitlines()[-1]
    assert "workers must be at least 1" in refusal(str(write_toy(tmp_path)), "--workers", "0")
    assert "port must be" in refusal(str(tmp_path), "--port", "70000")


def test_falls_back_from_int8_loudly(tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy", int8_head=-8 * np.eye(3))
    with Server(toy, tmp_path, *FIXED) as server:
        answer = server.invoke(RED).json()
        assert answer["model"]["runtime"] == "onnx"
        assert answer["predictions"][0]["class"] == "red"
        assert "warning: " in server.errors.read_text()
        assert "cannot serve with onnx-int8" in server.errors.read_text()


def test_torch_is_not_loaded_when_onnx_serves(server: Server) -> None:
    (pid,) = server.children()
    assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()


def test_sigterm_finishes_what_has_begun(tmp_path: Path) -> None:
    with Server(write_toy(tmp_path / "toy", slow=True), tmp_path, *FIXED) as server:
        replies: list[Reply] = []
        # More than two full batches: however slowly the clients start, some have to wait.
        clients = [threading.Thread(target=lambda: replies.append(server.invoke(RED))) for _ in range(32)]
        half = server.raw()
        idle = server.raw()
        half.sendall(post(RED)[:80])
        for client in clients:
            client.start()
        wait_for(lambda: server.metric("serve_queue_photos") >= 3, "requests to wait")
        server.process.send_signal(signal.SIGTERM)
        half.sendall(post(RED)[80:])
        for client in clients:
            client.join()
        assert [label(reply) for reply in replies] == ["red"] * 32
        finished = read_reply(half)
        assert label(finished) == "red"
        assert finished.headers["connection"] == "close"
        assert idle.recv(1) == b""
        half.close()
        idle.close()
        assert server.process.wait(10) == 0


def test_ctrl_c_reaches_every_process_and_ends_no_request(tmp_path: Path) -> None:
    several = [*FIXED[:5], "2", *FIXED[6:]]
    assert several[4] == "--threads"
    with Server(write_toy(tmp_path / "toy"), tmp_path, *several) as server, server.raw() as begun:
        begun.sendall(post(RED)[:80])
        wait_for(lambda: server.metric("serve_connections") >= 2, "the request to be seen")
        (child,) = server.children()
        for pid in (child, server.process.pid):
            os.kill(pid, signal.SIGINT)
        begun.sendall(post(RED)[80:])
        assert label(read_reply(begun)) == "red"
        assert server.process.wait(10) == 0
        assert "warning" not in server.errors.read_text()


def test_a_stop_that_comes_while_a_process_is_made_reaches_it(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from model_code.serve.__main__ import main

def fork(real=os.fork):
    os.kill(os.getpid(), signal.SIGTERM)
    return real()

os.fork = fork
sys.exit(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(write_toy(tmp_path)), "--port", "0", *FIXED],
        capture_output=True, text=True, timeout=25, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_an_access_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    line = refusal(str(write_toy(tmp_path)), "--access-log", str(tmp_path / "missing" / "log"))
    assert "--access-log" in line


def test_a_request_that_came_before_the_signal_is_answered(tmp_path: Path) -> None:
    with Server(write_toy(tmp_path / "toy"), tmp_path, *FIXED) as server:
        (child,) = server.children()
        with server.raw() as known:
            known.sendall(post(RED))
            assert label(read_reply(known)) == "red"
            stop_for_now(child)
            with server.raw() as new:
                for connection in (known, new):
                    connection.sendall(post(RED))
                server.process.send_signal(signal.SIGTERM)
                terminate = 1 << signal.SIGTERM - 1
                wait_for(lambda: int(_status(child, "ShdPnd"), 16) & terminate, "the signal to be handed on")
                os.kill(child, signal.SIGCONT)
                for connection in (known, new):
                    assert label(read_reply(connection)) == "red"
        assert server.process.wait(10) == 0


def stop_for_now(pid: int) -> None:
    """SIGSTOP, and wait: until it has reached each thread, the others go on and accept clients."""
    os.kill(pid, signal.SIGSTOP)

    def stopped() -> bool:
        threads = os.listdir(f"/proc/{pid}/task")
        return all(_status(int(thread), "State").startswith("T") for thread in threads)

    wait_for(stopped, "the process to be stopped")


def _status(pid: int, field: str) -> str:
    """A field of a process's or thread's status, see proc(5); ShdPnd holds a bit per signal that waits for it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split(maxsplit=1)[1] for line in lines if line.startswith(f"{field}:"))


def test_new_clients_are_refused_while_the_old_ones_are_finished(tmp_path: Path) -> None:
    with Server(write_toy(tmp_path / "toy"), tmp_path, *FIXED) as server:
        with server.raw() as begun:
            begun.sendall(post(RED)[:80])
            wait_for(lambda: server.metric("serve_connections") >= 2, "the request to be seen")
            server.process.send_signal(signal.SIGTERM)

            def refused() -> bool:
                try:
                    server.raw().close()
                except ConnectionRefusedError:
                    return True
                return False

            wait_for(refused, "the port to be closed")
            begun.sendall(post(RED)[80:])
            assert label(read_reply(begun)) == "red"
        assert server.process.wait(10) == 0


def test_a_process_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    with Server(write_toy(tmp_path / "toy"), tmp_path, *FIXED, "--drain-timeout", "0.1") as server:
        (child,) = server.children()
        stop_for_now(child)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert not Path(f"/proc/{child}").exists()


def test_a_full_queue_answers_503_and_the_rest_right(tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy", slow=True)
    with Server(toy, tmp_path, *FIXED, "--queue", "4") as server:
        replies: list[Reply] = []
        clients = [threading.Thread(target=lambda: replies.append(server.invoke(RED))) for _ in range(24)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        refused = [reply for reply in replies if reply.status == 503]
        assert refused
        assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
        assert all(label(reply) == "red" for reply in replies if reply.status != 503)
        assert server.request("GET", "/ping").status == 200


def test_bodies_of_clients_that_left_are_given_back(tmp_path: Path) -> None:
    with Server(write_toy(tmp_path / "toy", slow=True), tmp_path, *FIXED) as server:
        clients = [server.raw() for _ in range(20)]
        for client in clients:
            client.sendall(post(RED))
        wait_for(lambda: server.metric("serve_buffered_bytes") >= 3 * len(RED), "requests to wait")
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        wait_for(lambda: server.metric("serve_queue_photos") == 0, "the queue to be empty")
        wait_for(lambda: server.metric("serve_buffered_bytes") == 0, "the bodies to be given back")
        assert 'serve_requests_total{status="499"}' in server.request("GET", "/metrics").body.decode()
        assert label(server.invoke(RED)) == "red"
        assert "error" not in server.errors.read_text()


def test_batches_form_under_load_only(tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy", slow=True)
    one_worker = ("--processes", "1", "--workers", "1", "--threads", "1", "--max-batch", "8")
    with Server(toy, tmp_path, *one_worker) as server:
        for _ in range(2):
            server.invoke(RED)
        assert server.metric("serve_batch_size_sum") == server.metric("serve_batch_size_count") == 2
        clients = [threading.Thread(target=server.invoke, args=(RED,)) for _ in range(9)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert server.metric("serve_batch_size_sum") == 11
        assert server.metric("serve_batch_size_count") < 9


def test_several_processes_share_the_port_and_their_counts(tmp_path: Path) -> None:
    arrangement = ("--processes", "2", "--workers", "1", "--threads", "1", "--max-batch", "1")
    with Server(write_toy(tmp_path / "toy"), tmp_path, *arrangement) as server:
        assert len(server.children()) == 2
        for _ in range(20):
            assert label(server.invoke(RED)) == "red"
        assert server.metric("serve_photos_total") == 20
        assert server.metric("serve_process_starts_total") == 2


def test_a_killed_process_is_replaced(tmp_path: Path) -> None:
    with Server(write_toy(tmp_path / "toy"), tmp_path, *FIXED) as server:
        (first,) = server.children()
        os.kill(first, signal.SIGKILL)
        # The port stays open meanwhile: this request waits for the new process.
        assert label(server.invoke(RED)) == "red"
        (second,) = server.children()
        assert second != first
        assert "restarting" in server.errors.read_text()


def test_ping_tells_of_a_worker_that_hangs_in_native_code(tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy", hangs=True)
    with Server(toy, tmp_path, *FIXED, "--hang-timeout", "0.5", "--drain-timeout", "0.5") as server:
        assert label(server.invoke(RED)) == "red"
        assert server.request("GET", "/ping").status == 200
        with server.raw() as hung:
            hung.sendall(post(photo("white", kind="PNG")))
            wait_for(lambda: server.request("GET", "/ping").status == 503, "the hung worker to be noticed")
        assert server.request("GET", "/ping").reason == "hung"
        assert label(server.invoke(RED)) == "red"


def test_ping_tells_of_another_process_that_hangs(tmp_path: Path) -> None:
    arrangement = ("--processes", "2", "--workers", "1", "--threads", "1", "--max-batch", "1")
    with Server(write_toy(tmp_path / "toy"), tmp_path, *arrangement, "--hang-timeout", "1") as server:
        wait_for(lambda: server.request("GET", "/ping").status == 200, "both processes to be well")
        one, _ = server.children()
        stop_for_now(one)
        try:
            wait_for(
                lambda: server.request("GET", "/ping").status == 503, "the stopped process to be noticed"
            )
        finally:
            os.kill(one, signal.SIGCONT)
        wait_for(lambda: server.request("GET", "/ping").status == 200, "both processes to be well again")


def test_nothing_is_left_when_the_parent_is_killed(tmp_path: Path) -> None:
    server = Server(write_toy(tmp_path / "toy"), tmp_path, *FIXED).ready()
    (child,) = server.children()
    server.stop(signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{child}").exists(), "the server process to end")
