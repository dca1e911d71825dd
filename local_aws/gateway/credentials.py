"""Find the one credential of a request: in its Authorization header or its query, as SigV4 or (S3 only) SigV2."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote, unquote_plus

from local_aws.errors import AwsError
from local_aws.gateway.responses import Environ

_FIELD = re.compile(r"^\s*(Credential|SignedHeaders|Signature)=(.*?)\s*$", re.DOTALL)
ALGORITHM = "AWS4-HMAC-SHA256"


class Place(Enum):
    """The part of a request that holds its credential."""

    NONE = "none"
    HEADER = "header"
    QUERY = "query"


@dataclass(frozen=True)
class Credential:
    """A request's credential as the client states it; nothing is verified yet.

    Args:
        version: 4 or 2, the version of AWS's signature process; 0 for anonymous requests.
        date, region, service: the scope of SigV4, "" for SigV2.
        time: X-Amz-Date (`20260131T120000Z`), or the Expires of a SigV2 URL.
        expires: X-Amz-Expires in seconds, None in a header.
        headers: names of the signed headers, in the client's order.
    """

    place: Place = Place.NONE
    version: int = 0
    access_key: str = ""
    date: str = ""
    region: str = ""
    service: str = ""
    signature: str = ""
    time: str = ""
    expires: str | None = None
    token: str = ""
    headers: tuple[str, ...] = ()
    algorithm: str = ""


ANONYMOUS = Credential()


def credential_of(environ: Environ) -> Credential:
    """Return the credential of a request.

    Raises:
        AwsError: the request holds several credentials, which services could read differently.
    """
    header = str(environ.get("HTTP_AUTHORIZATION", "")).strip()
    text = str(environ.get("QUERY_STRING", ""))
    query = _query(text) if "X-Amz-" in text or "AWSAccessKeyId" in text or "x-amz-" in text else {}
    in_query = "X-Amz-Credential" in query or "X-Amz-Algorithm" in query
    in_old_query = "AWSAccessKeyId" in query
    if (bool(header) and not header.startswith("Bearer ")) + in_query + in_old_query > 1:
        raise AwsError(
            "InvalidArgument",
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string "
            "parameter or the Authorization header should be specified",
        )
    if in_query:
        scope = _scope(query.get("X-Amz-Credential", ""))
        return Credential(
            Place.QUERY, 4, *scope,
            signature=query.get("X-Amz-Signature", ""),
            time=query.get("X-Amz-Date", ""),
            expires=query.get("X-Amz-Expires", ""),
            token=query.get("X-Amz-Security-Token", ""),
            headers=_names(query.get("X-Amz-SignedHeaders", "")),
            algorithm=query.get("X-Amz-Algorithm", ""),
        )  # fmt: skip
    token = str(environ.get("HTTP_X_AMZ_SECURITY_TOKEN", ""))
    if in_old_query:
        return Credential(
            Place.QUERY, 2, query["AWSAccessKeyId"],
            signature=query.get("Signature", ""),
            time=query.get("Expires", ""),
            token=query.get("x-amz-security-token", token),
        )  # fmt: skip
    if header.startswith("AWS "):
        access_key, _, signature = header[4:].strip().rpartition(":")
        return Credential(Place.HEADER, 2, access_key, signature=signature, token=token)
    if header.startswith("AWS4-"):
        algorithm, _, rest = header.partition(" ")
        fields: dict[str, str] = {}
        for part in rest.split(","):
            found = _FIELD.match(part)
            if found is None:
                continue
            if found.group(1) in fields:
                raise AwsError(
                    "IncompleteSignature", f"Authorization header gives {found.group(1)} more than once."
                )
            fields[found.group(1)] = found.group(2)
        return Credential(
            Place.HEADER, 4, *_scope(fields.get("Credential", "")),
            signature=fields.get("Signature", ""),
            time=str(environ.get("HTTP_X_AMZ_DATE", "")),
            token=token,
            headers=_names(fields.get("SignedHeaders", "")),
            algorithm=algorithm,
        )  # fmt: skip
    return ANONYMOUS


def _scope(text: str) -> tuple[str, str, str, str]:
    """Return access key, date, region and service; only the access key of a malformed scope."""
    parts = text.split("/")
    if len(parts) < 5:
        return parts[0], "", "", ""
    return "/".join(parts[:-4]), parts[-4], parts[-3], parts[-2].lower()


def _query(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in text.split("&"):
        name, _, value = pair.partition("=")
        name = unquote_plus(name)
        if name in found and (
            name.startswith("X-Amz-") or name in ("AWSAccessKeyId", "Signature", "Expires")
        ):
            raise AwsError("InvalidArgument", f"The query gives {name} more than once.")
        # A SigV2 signature is base64, whose + some clients leave unencoded.
        found[name] = unquote(value)
    return found


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.lower() for name in text.split(";") if name)
