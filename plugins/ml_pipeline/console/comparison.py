"""Two versions of a model compared."""

from __future__ import annotations

from ml_pipeline.console.evaluations import answers, evaluation
from ml_pipeline.console.models import version_of
from ml_pipeline.console.store import Absent, Store
from ml_pipeline.requests.types import Document

_FLIPPED, _LISTED = 60, 60


def compare(store: Store, group: str, left: int, right: int) -> Document:
    """Return how two versions differ: figures, classes, and the test photos that only one gets right.

    Raises:
        Absent: One of the two, or its evaluation, is gone.
    """
    one, other = version_of(store, group, left), version_of(store, group, right)
    before = evaluation(store, one["metadata"].get("evaluation_uri", ""))
    after = evaluation(store, other["metadata"].get("evaluation_uri", ""))
    recall = {row["name"]: row for row in before["classes"]}
    changed = [
        {
            "name": row["name"],
            "before": recall[row["name"]]["recall"],
            "after": row["recall"],
            "photos": row["photos"],
        }
        for row in after["classes"]
        if row["name"] in recall
        and None not in (row["recall"], recall[row["name"]]["recall"])
        and row["recall"] != recall[row["name"]]["recall"]
    ]
    names = {row["name"] for row in after["classes"]}
    return {
        "left": one,
        "right": other,
        "changed": sorted(changed, key=lambda row: -abs(row["after"] - row["before"]))[:_LISTED],
        "added": sorted(names - set(recall))[:_LISTED],
        "removed": sorted(set(recall) - names)[:_LISTED],
        **_flips(store, one, other),
    }


def _flips(store: Store, one: Document, other: Document) -> Document:
    try:
        before = answers(store, one["metadata"].get("predictions_uri", ""))
        after = answers(store, other["metadata"].get("predictions_uri", ""))
    except Absent as absent:
        return {"flipped": [], "flips_missing": str(absent)}
    flipped = [
        {"key": key, "class": answer.label, "before": before[key].prediction, "after": answer.prediction}
        for key, answer in after.items()
        if key in before and before[key].wrong != answer.wrong
    ]
    return {"flipped": flipped[:_FLIPPED], "flips": len(flipped), "flips_missing": None}
