"""Parses requests into photos and options: content types, base64 JSON, JSON lines. Fetches and executes nothing."""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl

from model_code.data.limits import SNIFFED_BYTES, sniff
from model_code.serve.http.messages import HttpError, Request

# Sent by clients that do not declare a type: SageMaker's own default, and none at all.
UNTYPED = frozenset(
    {"", "application/octet-stream", "application/x-image", "application/x-www-form-urlencoded"}
)
JSON_TYPES = frozenset({"application/json", "text/json"})
LINES_TYPES = frozenset(
    {"application/jsonlines", "application/x-jsonlines", "application/jsonl", "application/x-ndjson"}
)
CUSTOM_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
ALL = "all"

_PHOTO_KEYS = ("b64", "image", "photo", "data", "image_bytes", "bytes")
_LIST_KEYS = ("instances", "images", "photos", "inputs")
_URL_KEYS = ("url", "uri", "image_url", "s3", "s3_uri")

_MOST_VALUES, _VALUES_PER_PHOTO = 100_000, 16
"""Most JSON values in a request, and per photo allowed; beyond, it is refused unparsed: a megabyte of `{},{},` would
take 25 MB.
"""
_QUERY_FIELDS = 32


class Format(StrEnum):
    """Media types of answers."""

    JSON = "application/json"
    JSONLINES = "application/jsonlines"
    CSV = "text/csv"
    PNG = "image/png"


@dataclass(frozen=True)
class Options:
    """Options of one request.

    Args:
        top_k: Classes per photo, best first; None for all.
        explain: Add a class-activation heat map.
        target: The class to explain; None for the predicted one.
        set: Add the set of classes that holds the true one nine times in ten.
    """

    top_k: int | None = 5
    explain: bool = False
    target: str | None = None
    set: bool = False


@dataclass(frozen=True, slots=True)
class Encoded:
    """A photo as base64 text, decoded by a worker: decoding a thousand at once would block every other client.

    Args:
        where: Its name in error messages.
    """

    text: str
    where: str

    def decode(self) -> bytes:
        """Return the photo's bytes.

        Raises:
            HttpError: 400, it is not base64, or nothing.
        """
        text = self.text
        if text.startswith("data:"):
            text = text.partition(",")[2]
        if "-" in text or "_" in text:
            text = text.translate(_URL_SAFE)
        try:
            photo = _strict_base64(text)
        except ValueError:
            try:  # wrapped lines and missing padding are common and harmless
                bare = text.translate(_NO_SPACE).rstrip("=")
                photo = _strict_base64(bare + "=" * (-len(bare) % 4))
            except ValueError as error:
                raise HttpError(400, "base64", f"{self.where}: not base64: {str(error)[:100]}") from error
        if not photo:
            raise HttpError(400, "empty", f"{self.where}: the photo is empty")
        return photo


_URL_SAFE = str.maketrans("-_", "+/")
_NO_SPACE = dict.fromkeys(map(ord, " \t\r\n\v\f"))


def _strict_base64(text: str) -> bytes:
    return binascii.a2b_base64(text, strict_mode=True)


Photo = bytes | Encoded | HttpError
"""A photo's file, as received or in base64; the error if a line of a batch cannot be parsed."""


@dataclass(frozen=True)
class Query:
    """A parsed /invocations request.

    Args:
        photos: In the order of the request.
        lines: True if the answer is line by line, where a bad photo fails only its line.
        single: True if the request was a single photo.
    """

    photos: tuple[Photo, ...]
    options: Options
    format: Format
    lines: bool = False
    single: bool = False


def read(request: Request, default_top_k: int, max_photos: int) -> Query:
    """Parse a request.

    Raises:
        HttpError: 4xx, with what to send instead.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HttpError(
            415, "content_encoding", "compressed bodies are not supported: send the photo's own bytes"
        )
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    options = _options(request, Options(top_k=default_top_k))
    accept = request.headers.get("accept", "")
    if not request.body:
        raise HttpError(400, "empty", "the body is empty: send a photo, or JSON holding base64 photos")
    # The bytes decide, not the media type: neither JSON nor JSON lines can begin like a photo.
    if media.startswith("image/") or media in UNTYPED or sniff(request.body[:SNIFFED_BYTES]):
        return Query((request.body,), options, negotiate(accept, Format.JSON, options), single=True)
    if media in JSON_TYPES:
        photos, options = _read_json(request.body, options, max_photos)
        return Query(photos, options, negotiate(accept, Format.JSON, options), single=len(photos) == 1)
    if media in LINES_TYPES:
        lines = _read_lines(request.body, max_photos)
        return Query(lines, options, negotiate(accept, Format.JSONLINES, options), lines=True)
    raise HttpError(
        415,
        "content_type",
        f"the body is not a photo, and content type {media[:100]!r} is not supported: send the photo's own bytes, "
        "application/json or application/jsonlines",
    )


def negotiate(accept: str, natural: Format, options: Options) -> Format:
    """Return the best format of an Accept header (RFC 9110, section 12.5.1); `natural` if the client accepts any.

    Raises:
        HttpError: 406 if no format fits.
    """
    if not accept or accept == "*/*":
        return natural
    ranges = sorted(
        (_media_range(item) for item in accept.split(",") if item.strip()),
        key=lambda item: item[1],
        reverse=True,
    )
    for media, quality in ranges:
        if quality <= 0:
            continue
        if media in ("*/*", "application/*", natural):
            return natural
        if media == "image/*" and options.explain:
            return Format.PNG
        if media == "text/*":
            return Format.CSV
        if media in _ACCEPTED:
            return _ACCEPTED[media]
    raise HttpError(406, "accept", f"cannot answer with {accept[:100]!r}: accept {', '.join(Format)}")


_ACCEPTED = {str(kind): kind for kind in Format} | {
    "application/x-jsonlines": Format.JSONLINES,
    "application/jsonl": Format.JSONLINES,
    "application/x-ndjson": Format.JSONLINES,
}


def _media_range(item: str) -> tuple[str, float]:
    media, *parameters = (part.strip().lower() for part in item.split(";"))
    quality = 1.0
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                quality = float(parameter[2:])
            except ValueError:
                quality = 0.0
    return media, quality


def _options(request: Request, options: Options) -> Options:
    """Options of the query string, and of SageMaker's custom attributes: all that InvokeEndpoint passes on."""
    attributes = request.headers.get(CUSTOM_ATTRIBUTES)
    if attributes:
        # The attributes are free text of the client: only known options are used.
        pairs = (part.partition("=") for part in attributes.replace(";", ",").split(","))
        found = {key.strip(): value.strip() for key, sep, value in pairs if sep and key.strip() in _OPTIONS}
        options = with_options(options, found)
    if request.query:
        try:
            fields = dict(parse_qsl(request.query, max_num_fields=_QUERY_FIELDS))
        except ValueError as error:
            raise HttpError(400, "option", f"more than {_QUERY_FIELDS} options in the query") from error
        options = with_options(options, fields)
    return options


_OPTIONS = ("top_k", "explain", "class", "set")


def with_options(options: Options, given: Mapping[str, Any]) -> Options:
    """`options` updated with the known options of `given`.

    Raises:
        HttpError: 400 when a value is out of range.
    """
    top_k, explain, target, members = (given.get(name) for name in _OPTIONS)
    if top_k is not None:
        options = replace(options, top_k=_top_k(top_k))
    if explain is not None:
        options = replace(options, explain=_switch("explain", explain))
    if target is not None:
        options = replace(options, target=str(target))
    if members is not None:
        options = replace(options, set=_switch("set", members))
    return options


def _switch(name: str, value: Any) -> bool:
    if str(value).lower() not in ("0", "1", "true", "false"):
        raise HttpError(400, "option", f"{name} must be true or false")
    return str(value).lower() in ("1", "true")


def _top_k(value: Any) -> int | None:
    if value == ALL:
        return None
    text = str(value)
    if isinstance(value, bool | float) or not text.isdecimal() or len(text) > 6 or int(text) < 1:
        raise HttpError(400, "option", "top_k must be a number from 1, or all")
    return int(text)


def _read_json(body: bytes, options: Options, max_photos: int) -> tuple[tuple[Encoded, ...], Options]:
    _check_values(body, max_photos)
    document = _parse(body)
    if isinstance(document, dict):
        parameters = document.get("parameters")
        if isinstance(parameters, dict):
            options = with_options(options, parameters)
        for key in _LIST_KEYS:
            if key in document:
                document = document[key]
                break
    items = document if isinstance(document, list) else [document]
    if not items:
        raise HttpError(400, "empty", "there is no photo in the list")
    if len(items) > max_photos:
        raise _too_many(max_photos)
    single = not isinstance(document, list)
    return tuple(
        _photo(item, "the request" if single else f"item {n}") for n, item in enumerate(items)
    ), options


def _read_lines(body: bytes, max_photos: int) -> tuple[Encoded | HttpError, ...]:
    _check_values(body, max_photos)
    lines = [found.group() for found in islice(_LINE.finditer(body), max_photos + 1)]
    if len(lines) > max_photos:
        raise _too_many(max_photos)
    if not lines:
        raise HttpError(400, "empty", "there is no line in the body")
    photos: list[Encoded | HttpError] = []
    for number, line in enumerate(lines):
        try:
            photos.append(_photo(_parse(line), f"line {number}"))
        except HttpError as error:
            photos.append(error)
    return tuple(photos)


_LINE = re.compile(rb"\S[^\n]*")
"""A line that is not blank, without leading space."""


def _check_values(body: bytes, max_photos: int) -> None:
    """Refuse a body that would exceed its limits only after filling the memory."""
    most = max(_MOST_VALUES, _VALUES_PER_PHOTO * max_photos)
    if body.count(b",") + body.count(b"{") + body.count(b"[") > most:
        raise HttpError(413, "too_many_values", f"more than {most} JSON values in one request: send several")


def _parse(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HttpError(400, "json", f"the body is not JSON: {str(error)[:120]}") from error


def _photo(item: Any, where: str) -> Encoded:
    """Return the photo of one instance: base64 text, or an object that holds it under one of `_PHOTO_KEYS`."""
    if isinstance(item, str):
        if item.startswith(("http://", "https://", "s3://", "file://", "ftp://")):
            raise _no_urls(where)
        return Encoded(item, where)
    if isinstance(item, dict):
        for key in _PHOTO_KEYS:
            if key in item:
                inner = item[key]
                return _photo(inner if not isinstance(inner, dict) else inner.get("b64"), where)
        if any(key in item for key in _URL_KEYS):
            raise _no_urls(where)
    raise HttpError(400, "instance", f'{where}: a photo is base64 text, or an object like {{"b64": "..."}}')


def _no_urls(where: str) -> HttpError:
    return HttpError(400, "url", f"{where}: URLs are never fetched: send the photo's bytes as base64")


def _too_many(limit: int) -> HttpError:
    return HttpError(413, "too_many_photos", f"more than {limit} photos in one request: send several")
