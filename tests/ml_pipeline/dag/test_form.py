"""Layout of the params of every DAG in Airflow's trigger form."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ml_pipeline.dag import params
from ml_pipeline.dag.form import CHOICES, ESSENTIALS

FORMS = params.forms()


def test_the_first_section_holds_what_people_need() -> None:
    form = params.train_and_deploy()
    assert tuple(form)[:8] == ESSENTIALS
    assert [param.schema["section"] for param in form.values()][:8] == ["Start here"] * 8


@pytest.mark.parametrize("dag_id", FORMS)
def test_a_section_that_is_left_is_not_opened_again(dag_id: str) -> None:
    """The form shows each section once, in the order of the params; params without one come first."""
    sections = [param.schema.get("section") for param in FORMS[dag_id]().values()]
    assert len(set(sections)) == 1 + sum(a != b for a, b in pairwise(sections))


@pytest.mark.parametrize("dag_id", FORMS)
def test_no_field_is_invalid_before_it_is_edited(dag_id: str) -> None:
    for name, param in FORMS[dag_id]().items():
        types = param.schema["type"]
        nullable = "null" in ([types] if isinstance(types, str) else types)
        assert nullable or param.value not in (None, ""), name
        if param.value == "":  # the form sends null for it
            param.resolve(None)


@pytest.mark.parametrize("dag_id", FORMS)
def test_every_field_is_described_and_every_choice_has_words(dag_id: str) -> None:
    for name, param in FORMS[dag_id]().items():
        assert param.schema.get("title"), name
        assert param.schema.get("description_md"), name
        if name in CHOICES and "enum" in param.schema:
            wanted = {"null" if value is None else str(value) for value in param.schema["enum"]}
            assert wanted <= set(param.schema["values_display"]), name


def test_a_default_of_the_team_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PIPELINE_DEFAULTS", '{"data": "s3://team/photos"}')
    form = params.train_and_deploy()
    assert next(iter(form)) == "data"
    assert form["data"].value == "s3://team/photos"
