"""docker-compose.yaml, checked as far as it can be without an engine."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ml_pipeline import settings as pipeline_settings
from tests.docker import compose

new_env = compose.script("new_env.py")
OWN_IMAGES = ("ml-pipeline-airflow", "ml-pipeline-notebook")


@pytest.fixture(scope="module")
def env() -> dict[str, str]:
    return compose.read_env(new_env.filled((compose.ROOT / ".env.example").read_text()))


@pytest.fixture(scope="module")
def document(env: dict[str, str]) -> dict[str, Any]:
    return compose.load(env)


@pytest.fixture(scope="module")
def services(document: dict[str, Any]) -> dict[str, Any]:
    return document["services"]


def test_file_has_the_shape_of_the_compose_specification(document: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(compose.SCHEMA).validate(document)


def test_compose_itself_accepts_the_file(env: dict[str, str], tmp_path: Path) -> None:
    client = shutil.which("docker")
    if client is None or subprocess.run([client, "compose", "version"], capture_output=True).returncode != 0:
        pytest.skip("the docker compose client is not installed here")
    settings = tmp_path / "env"
    settings.write_text("".join(f"{name}={value}\n" for name, value in env.items()))
    command = [client, "compose", "--file", str(compose.FILE), "--env-file", str(settings)]
    done = subprocess.run([*command, "config", "--quiet"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted({*new_env.SECRETS} - {"NOTEBOOK_TOKEN"}))
def test_an_unset_secret_stops_everything(env: dict[str, str], name: str) -> None:
    with pytest.raises(compose.MissingVariableError, match=f"{name} is empty; write .env"):
        compose.load({**env, name: ""})


def test_no_secret_is_written_in_the_repository() -> None:
    example = compose.read_env((compose.ROOT / ".env.example").read_text())
    assert {name: example[name] for name in new_env.SECRETS} == dict.fromkeys(new_env.SECRETS, "")


def test_example_and_file_name_the_same_variables() -> None:
    example = compose.read_env((compose.ROOT / ".env.example").read_text())
    assert set(example) == compose.variables()


def test_every_setting_of_the_pipeline_can_be_given(services: dict[str, Any]) -> None:
    source = Path(pipeline_settings.__file__).read_text()
    names = {f"ML_PIPELINE_{name}" for name in re.findall(r'read\("(\w+)"', source)}
    assert names <= set(services["airflow-scheduler"]["environment"])


@pytest.mark.parametrize(
    ("given", "setting", "source"),
    [("", "", "./plugins/ml_pipeline/costs/prices.toml"), ("./team.toml", "/prices.toml", "./team.toml")],
)
def test_prices_of_a_team_reach_the_tasks(env: dict[str, str], given: str, setting: str, source: str) -> None:
    services = compose.load({**env, "ML_PIPELINE_PRICES_FILE": given})["services"]
    for name in ("airflow-scheduler", "airflow-worker"):
        service = services[name]
        (mount,) = [m for m in service["volumes"] if isinstance(m, dict) and m["target"] == "/prices.toml"]
        assert (service["environment"]["ML_PIPELINE_PRICES_FILE"], mount["source"]) == (setting, source)
        assert mount["read_only"]


def test_images_are_pinned(services: dict[str, Any]) -> None:
    for name, service in services.items():
        repository, _, tag = service["image"].partition(":")
        assert re.fullmatch(r"\d+\.\d+(\.\d+)?(-\w+)?(@sha256:[0-9a-f]{64})?", tag), (
            f"{name}: {service['image']}"
        )
        assert ("@" in tag) == (repository == "postgres"), "pinned by digest where the digest is known"
        assert ("build" in service) == (repository in OWN_IMAGES)


def test_named_paths_exist(document: dict[str, Any], services: dict[str, Any]) -> None:
    mounts = [mount for s in services.values() for mount in s.get("volumes", [])]
    named = {mount.split(":")[0] for mount in mounts if isinstance(mount, str)}
    assert named == set(document["volumes"])
    assert {network for s in services.values() for network in s["networks"]} == set(document["networks"])
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        if build := service.get("build"):
            assert (compose.ROOT / build["context"] / build["dockerfile"]).is_file()
        for word in [*service.get("command", []), *service.get("healthcheck", {}).get("test", [])]:
            for path in re.findall(r"(?:docker|plugins)/[\w./-]+", word):
                assert (compose.ROOT / path).is_file(), path


def test_every_service_but_the_one_shot_is_watched_and_comes_back(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert ("healthcheck" in service) == (name != "airflow-init")
        assert service["restart"] == ("no" if name == "airflow-init" else "unless-stopped")


def test_a_service_waits_only_for_what_its_profile_starts(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            other_profiles = set(services[other].get("profiles", []))
            optional = how.get("required") is False
            assert optional or other_profiles <= set(service.get("profiles", [])), f"{name} -> {other}"


def test_containers_share_one_set_of_secrets(services: dict[str, Any]) -> None:
    airflow = [s["environment"] for n, s in services.items() if n.startswith("airflow-")]
    for name in ("AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API__SECRET_KEY"):
        assert len({environment[name] for environment in airflow}) == 1
    assert services["postgres"]["environment"]["POSTGRES_PASSWORD"] == airflow[0]["POSTGRES_PASSWORD"]


def test_local_aws_gets_its_own_key_and_no_other_secret(
    env: dict[str, str], services: dict[str, Any]
) -> None:
    text = str(services["local-aws"])
    own = {"LOCAL_AWS_ACCESS_KEY_ID", "LOCAL_AWS_SECRET_ACCESS_KEY"}
    assert {name for name in new_env.SECRETS if env[name] in text} == own
    assert "'--auth', 'required'" in text
    assert services["local-aws"]["networks"] == ["services"]


def test_the_notebook_gets_a_token_and_the_clients_key_and_no_other_secret(
    env: dict[str, str], services: dict[str, Any]
) -> None:
    notebook = services["notebook"]
    own = {"LOCAL_AWS_ACCESS_KEY_ID", "LOCAL_AWS_SECRET_ACCESS_KEY", "NOTEBOOK_TOKEN"}
    assert {name for name in new_env.SECRETS if env[name] in str(notebook)} == own
    assert notebook["environment"]["JUPYTER_TOKEN"] == env["NOTEBOOK_TOKEN"]
    assert notebook["ports"] == ["127.0.0.1:8888:8888"]
    assert notebook["networks"] == ["services"]
    assert (compose.ROOT / "local_aws/clients/loopback/sitecustomize.py").is_file()


def test_the_notebooks_command_parses(services: dict[str, Any]) -> None:
    labapp = importlib.import_module("jupyterlab.labapp")
    python, flag, module, *arguments = services["notebook"]["command"]
    assert (python, flag, module) == ("python", "-m", "jupyterlab")
    app = labapp.LabApp()
    app.parse_command_line(arguments)
    assert app.config.ServerApp.port == 8888
    assert app.config.ServerApp.ip == "0.0.0.0"


def test_database_and_broker_are_private(document: dict[str, Any], services: dict[str, Any]) -> None:
    assert document["networks"]["database"] == {"internal": True}
    for name in ("postgres", "redis"):
        assert services[name]["networks"] == ["database"]
        assert "ports" not in services[name]


def test_no_service_runs_as_root(services: dict[str, Any]) -> None:
    dockerfile = (compose.ROOT / "docker/airflow/Dockerfile").read_text()
    for stage in ("airflow", "notebook"):
        content = re.split(rf"^FROM .* AS {stage}$", dockerfile, flags=re.M)[1].split("\nFROM ")[0]
        assert re.findall(r"^USER (\S+)", content, re.M)[-1] == "50000:0"
    for service in services.values():
        assert "build" in service or service["user"] in ("postgres", "redis")


def test_airflow_commands_parse(services: dict[str, Any]) -> None:
    from airflow.cli.cli_parser import get_parser

    for name, service in services.items():
        command = service.get("command", [])
        if command[:1] != ["airflow"]:
            continue
        # The celery group is there only when Celery's executor is configured: test_stack.py runs it.
        if command[1] != "celery":
            assert get_parser().parse_args(command[1:]), name


def test_local_aws_command_parses(services: dict[str, Any]) -> None:
    from local_aws import cli

    python, flag, module, *arguments = services["local-aws"]["command"]
    assert (python, flag) == ("python", "-m")
    assert importlib.util.find_spec(module)
    parsed = cli._parser().parse_args(arguments)
    assert (parsed.host, parsed.port) == ("0.0.0.0", 4566)
    assert str(parsed.state) in str(services["local-aws"]["volumes"])


def test_health_checks_ask_where_the_service_listens(services: dict[str, Any]) -> None:
    for name, port in {
        "airflow-apiserver": 8080,
        "airflow-scheduler": 8974,
        "local-aws": 4566,
        "notebook": 8888,
    }.items():
        assert f"http://127.0.0.1:{port}/" in str(services[name]["healthcheck"]["test"])
    scheduler = services["airflow-scheduler"]["environment"]
    assert scheduler["AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT"] == "8974"
