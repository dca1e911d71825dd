"""The note of a run, from what its tasks returned so far, and how the api-server writes it."""

from __future__ import annotations

from typing import Any

import pytest

from ml_pipeline.dag import notes

PLAN = {"dataset_name": "dogs", "photos": 600, "estimate_usd": 0.12, "endpoint_usd_per_hour": 0.115}
UPLOAD = {"name": "dogs", "version": "1a2b"}
EVALUATE = {"accuracy": 0.912, "accuracy_interval": [0.881, 0.936], "photos": 300}


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ({"plan": PLAN}, ["**dogs**, 600 photos", "about $0.12 planned; the endpoint $0.115 per hour"]),
        ({"plan": PLAN, "upload": UPLOAD}, ["**dogs**, data set version `1a2b`"]),
        ({"evaluate": EVALUATE}, ["91.2% of 300 test photos right (95 % interval 88.1% to 93.6%)"]),
        ({"evaluate": {"accuracy": 0.5, "photos": 2}}, ["50.0% of 2 test photos right"]),
        ({"gate": {"passed": False, "reason": "too low"}}, ["Not deployed: too low"]),
        ({"approve": {"approved": False, "by": "ana"}}, ["Not deployed: rejected by ana"]),
        (
            {"deploy": {"endpoint_name": "dogs"}, "smoke_test": {"agreed": 9, "photos": 9}},
            ["Serves at endpoint **dogs**; 9 of 9 answers as evaluated"],
        ),
        ({"bill": {"usd": 0.01}}, ["Not deployed", "$0.0100 billed"]),
        ({"choose_version": {"dataset_name": "dogs", "version": 3}}, ["**dogs**, model version 3"]),
        ({"take_down": {"endpoint_name": "dogs"}}, ["Took endpoint **dogs** down"]),
        (
            {"sweep": {"dry_run": True, "found": [1], "removed": 0}},
            ["1 unused or broken things found; dry run"],
        ),
        ({"table": {"photos": 5, "unreadable": 1, "table_uri": "s3://b/t.csv"}}, ["5 photos predicted"]),
        (
            {"conclude": {"endpoint_name": "dogs", "number": 2, "verdict": "quiet", "reason": "no drift"}},
            ["**dogs**, look 2: quiet: no drift"],
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_note_says_what_is_known(results: dict[str, Any], words: list[str]) -> None:
    note = notes.text(results)
    assert all(word in note for word in words), note


def test_a_note_fits_airflows_column_with_its_link() -> None:
    note = notes.text({"gate": {"passed": False, "reason": "x" * 5000}}, "http://host/ml-pipeline/#/runs/a")
    assert len(note) <= notes.LONGEST
    assert note.endswith("[Console](http://host/ml-pipeline/#/runs/a)")
    assert notes.text({}, "http://host") == ""
