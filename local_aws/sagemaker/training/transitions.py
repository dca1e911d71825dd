"""SecondaryStatusTransitions: the status history of a training job."""

from __future__ import annotations

import time

from local_aws.state.resources import Document


def transition(document: Document, secondary: str, message: str, ended: bool = False) -> None:
    """Enter a secondary status and end the one before; `ended` also gives the new one an EndTime."""
    now = time.time()
    history = document.setdefault("SecondaryStatusTransitions", [])
    if history and history[-1]["Status"] == secondary and not ended:
        history[-1]["StatusMessage"] = message
        return
    if history and "EndTime" not in history[-1]:
        history[-1]["EndTime"] = now
    entry = {"Status": secondary, "StartTime": now, "StatusMessage": message}
    if ended:
        entry["EndTime"] = now
    history.append(entry)
    document["SecondaryStatus"] = secondary
