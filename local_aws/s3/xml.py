"""XML as S3 writes and reads it: documents from plain values, plain values from documents."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from typing import Any
from xml.sax.saxutils import escape

from local_aws.s3.errors import S3Error

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
HEADER = '<?xml version="1.0" encoding="UTF-8"?>\n'
LARGEST_DOCUMENT = 8 * 1024 * 1024

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def document(name: str, content: Mapping[str, Any]) -> bytes:
    """Build a document, as in `document("Tagging", {"TagSet": {"Tag": [{"Key": "a"}]}})`.

    A mapping becomes children, a sequence repeats its element. None leaves an element out; booleans are
    `true` and `false`.
    """
    return f'{HEADER}<{name} xmlns="{NAMESPACE}">{_children(content)}</{name}>'.encode("utf-8", "replace")


def _children(content: Mapping[str, Any]) -> str:
    return "".join(_element(name, value) for name, value in content.items())


def _element(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return f"<{name}>{_children(value)}</{name}>"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "".join(_element(name, item) for item in value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    # Without encoding-type=url, S3 too answers characters that XML 1.0 cannot hold as references.
    escaped = _CONTROL.sub(
        lambda match: f"&#x{ord(match.group()):x};", escape(text, {'"': "&quot;", "\r": "&#13;"})
    )
    return f"<{name}>{escaped}</{name}>"


def parse(body: bytes, root: str, repeated: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Parse a document into nested dictionaries without namespaces; elements in `repeated` become lists.

    Raises:
        S3Error: MalformedXML.
    """
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise S3Error("MalformedXML")
    try:
        element = ElementTree.fromstring(body)
    except ElementTree.ParseError:
        raise S3Error("MalformedXML") from None
    if _local(element.tag) != root:
        raise S3Error("MalformedXML")
    value = _value(element, repeated)
    return value if isinstance(value, dict) else {}


def _value(element: ElementTree.Element, repeated: frozenset[str]) -> Any:
    if len(element) == 0:
        return element.text or ""
    result: dict[str, Any] = {}
    for child in element:
        name, value = _local(child.tag), _value(child, repeated)
        if name in repeated:
            result.setdefault(name, []).append(value)
        elif name in result:
            raise S3Error("MalformedXML")
        else:
            result[name] = value
    return result


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def http_time(seconds: float) -> str:
    """`Sat, 31 Jan 2026 12:00:00 GMT`."""
    return formatdate(seconds, usegmt=True)
