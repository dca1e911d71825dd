"""SecondaryStatusTransitions: the history that a training job keeps of itself."""

from __future__ import annotations

import time

from local_aws.state.resources import Document


def transition(document: Document, secondary: str, message: str, ended: bool = False) -> None:
    """Enter a secondary status: the one before gets its EndTime, and the new one too when the job has
    ended.
    """
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
