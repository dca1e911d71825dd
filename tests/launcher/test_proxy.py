"""A machine behind a proxy reaches its own services."""

import json
import os
import subprocess
import sys

import psutil
import pytest

from launcher import supervisor
from launcher.preflight import free_port
from launcher.settings import REPOSITORY, keep_off_proxy
from tests.web_server import sends, web_server

PROXY = "http://proxy.example:3128"
BOTH = "127.0.0.1,localhost"


@pytest.mark.parametrize(
    ("given", "upper", "lower"),
    [
        ({}, None, None),  # on macOS no_proxy alone would hide the system's proxy
        ({"HTTP_PROXY": ""}, None, None),
        ({"HTTP_PROXY": PROXY}, BOTH, BOTH),
        ({"all_proxy": PROXY}, BOTH, BOTH),
        ({"http_proxy": PROXY, "NO_PROXY": "a.example, localhost"}, "a.example,localhost,127.0.0.1", None),
        ({"http_proxy": PROXY, "NO_PROXY": "a", "no_proxy": "b"}, f"a,{BOTH}", f"b,{BOTH}"),
        ({"http_proxy": PROXY, "NO_PROXY": "*"}, "*", "*"),  # "*" among others means nothing
    ],
)
def test_loopback_joins_what_is_there(given, upper, lower):
    environ = dict(given)
    keep_off_proxy(environ)
    assert environ.get("NO_PROXY") == upper
    assert environ.get("no_proxy") == (lower or upper)
    again = dict(environ)
    keep_off_proxy(again)
    assert again == environ


def test_the_launcher_asks_the_services_and_not_the_proxy(tmp_path):
    named = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ml_pipeline_home")
    environ = {name: value for name, value in os.environ.items() if name.lower() not in named}
    environ |= {"HTTP_PROXY": f"http://127.0.0.1:{free_port()}", "ML_PIPELINE_HOME": str(tmp_path)}
    with web_server({"/_local_aws/health": sends(b'{"status": "ok"}')}) as url:
        port = int(url.rpartition(":")[2])
        state = {
            "pid": os.getpid(), "create_time": psutil.Process().create_time(), "children": {},
            "ports": {"airflow": port, "local_aws": port},
        }  # fmt: skip
        (tmp_path / supervisor.STATE_FILE).write_text(json.dumps(state))
        done = subprocess.run(
            [sys.executable, "-m", "launcher", "status"], cwd=REPOSITORY, env=environ, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    assert "local_aws  status ok" in done.stdout, done.stdout
    assert "ProxyError" not in done.stdout
