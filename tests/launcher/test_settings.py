"""Settings are read once and refused in one line."""

import itertools
import json
import stat
from dataclasses import asdict
from pathlib import Path

import pytest

from launcher.settings import Secrets, Settings, SettingsError, airflow_environment


def test_defaults_come_from_the_repository():
    settings = Settings.from_environ({})
    assert settings.home.name == ".run"
    assert settings.trials == 12
    assert settings.weights is None


@pytest.mark.parametrize(
    ("environ", "fix"),
    [
        ({"TRIALS": "many"}, "TRIALS=12"),
        ({"TRIALS": "0"}, "from 1 to 500"),
        ({"AIRFLOW_PORT": "70000"}, "from 1 to 65535"),
        ({"WEIGHTS": "/no/such/file.pth"}, "give a state_dict file, imagenet or none"),
        ({"CONF": "{"}, "CONF is not JSON"),
        ({"CONF": "[1]"}, "must be a JSON object"),
    ],
)
def test_a_bad_setting_names_its_fix(environ, fix):
    with pytest.raises(SettingsError) as error:
        Settings.from_environ(environ)
    assert fix in str(error.value)
    assert "\n" not in str(error.value)


def test_relative_folders_are_resolved_before_another_process_reads_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Settings.from_environ({"DATA": "photos"}).data == tmp_path / "photos"


def test_secrets_are_made_once_and_private(tmp_path):
    made = Secrets.load_or_create(tmp_path)
    assert Secrets.load_or_create(tmp_path) == made
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600


def test_secrets_are_independent_and_those_of_an_earlier_release_are_kept(tmp_path):
    made = Secrets.load_or_create(tmp_path)
    environ = airflow_environment(Settings(home=tmp_path), made)
    keys = [
        environ[name]
        for name in (
            "AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API__SECRET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET",
            "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
        )
    ] + [made.admin_password]  # fmt: skip
    # None is derived from another: neither equal, nor its reverse, nor a part of it.
    for one, other in itertools.permutations(keys, 2):
        assert one not in other
        assert one[::-1] not in other
    earlier = {name: value for name, value in asdict(made).items() if name != "session"}
    (tmp_path / "secrets.json").write_text(json.dumps(earlier))
    now = Secrets.load_or_create(tmp_path)
    assert {name: value for name, value in asdict(now).items() if name != "session"} == earlier
    assert Secrets.load_or_create(tmp_path) == now
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600


def test_every_component_shares_one_address_and_one_secret(tmp_path):
    settings = Settings(home=tmp_path, local_aws_port=4999)
    environ = airflow_environment(settings, Secrets.load_or_create(tmp_path))
    assert environ["LOCAL_AWS_URL"] == environ["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4999"
    connection = json.loads(environ["AIRFLOW_CONN_AWS_DEFAULT"])
    assert connection["extra"]["endpoint_url"] == "http://127.0.0.1:4999"
    assert Path(environ["AIRFLOW__CORE__DAGS_FOLDER"]).is_dir()
