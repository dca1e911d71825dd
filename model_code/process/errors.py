"""The text of an error on one line."""

from __future__ import annotations

import re

_LONGEST = 200
# Such as <_io.BytesIO object at 0x7f...>: it differs from run to run, and is no business of a client.
_OBJECT = re.compile(r"<[^<>]* at 0x[0-9a-fA-F]+>")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 200 characters and without the address of an object.

    An error without a message gives the name of its class.
    """
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return _OBJECT.sub("the file", line)[:_LONGEST]
