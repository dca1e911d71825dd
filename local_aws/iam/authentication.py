"""`--auth required`: verify the signature of every request before any service sees it."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from datetime import UTC, datetime

from local_aws.errors import AwsError
from local_aws.gateway.bodies import buffered
from local_aws.gateway.credentials import ALGORITHM, Credential, Place
from local_aws.gateway.responses import Environ, StartResponse, WsgiApp, drain, iso_time, respond_error
from local_aws.iam import secrets
from local_aws.iam.secrets import KnownKey, SecretKeys
from local_aws.iam.signatures import signing_key, sigv2, sigv2_of, sigv4
from local_aws.moto_bridge.apps import protocol
from local_aws.s3.errors import S3Error
from local_aws.s3.http import ChunkSigner, bucket_of_host
from local_aws.s3.post_form import Form, is_form

SKEW_SECONDS = 900
LONGEST_EXPIRY_SECONDS = 7 * 86400
UNSIGNED = "UNSIGNED-PAYLOAD"
_SIGNED_CHUNKS = ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER")
_UNSIGNED_CHUNKS = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. "
    "Check your key and signing method."
)
_FIX = ' This is local_aws; use its key: eval "$(local-aws env --state DIR)"'


class Authentication:
    """A WSGI app in front of a service that lets through requests with a valid signature.

    Args:
        keys: the known access keys.
        app: the service.
        has_gate: requests to S3 without a credential go on to the gate, which lets through what a bucket policy allows
            to anyone.
    """

    def __init__(self, keys: SecretKeys, app: WsgiApp, has_gate: bool = False) -> None:
        self._keys, self._app, self._has_gate = keys, app, has_gate

    def start(self) -> None:
        """Start the service behind."""
        getattr(self._app, "start", lambda: None)()

    def stop(self) -> None:
        """Stop the service behind."""
        getattr(self._app, "stop", lambda: None)()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Refuse a request with a wrong signature; hand others on to the service behind."""
        service: str = environ["local_aws.service"]
        try:
            # The form of a browser's POST carries the signature: the S3 app verifies it by `verify_form`.
            credential: Credential = environ["local_aws.credential"]
            is_judged_later = is_form(environ) or (self._has_gate and credential.place is Place.NONE)
            if not (service == "s3" and is_judged_later):
                verify(environ, credential, self._keys)
        except AwsError as error:
            drain(environ["wsgi.input"])
            return respond_error(start_response, error, "rest-xml" if service == "s3" else protocol(service))
        return self._app(environ, start_response)


def verify(environ: Environ, credential: Credential, keys: SecretKeys) -> None:
    """Check the signature of a request.

    Raises:
        AwsError: it is missing, malformed, expired, of an unknown key, or wrong.
    """
    service: str = environ["local_aws.service"]
    if credential.place is Place.NONE:
        raise missing(service)
    known = _key(credential, keys, service)
    if credential.version == 2:
        _verify_v2(environ, credential, known, service)
        return
    if credential.algorithm != ALGORITHM:
        raise _malformed(
            service, f"local_aws verifies {ALGORITHM} only, not {credential.algorithm or 'no algorithm'}."
        )
    if not credential.signature or "host" not in credential.headers:
        raise _malformed(service, "The request needs a signature over its Host header.")
    _check_scope(credential, environ, service)
    _check_time(credential, service)
    _check_headers(environ, credential, service)
    payload = _payload(environ, credential, service)
    if not _any_equal(credential.signature, sigv4(known.secret, credential, environ, payload)):
        raise _mismatch(service)
    if payload in _SIGNED_CHUNKS:
        key = signing_key(known.secret, credential.date, credential.region, credential.service)
        scope = f"{credential.date}/{credential.region}/{credential.service}/aws4_request"
        environ["local_aws.chunk_signer"] = ChunkSigner(key, credential.time, scope, credential.signature)


def verify_form(form: Form, keys: SecretKeys) -> str:
    """Check the policy signature of a browser's POST to S3; return its access key.

    Raises:
        AwsError: it is missing, of an unknown key, or wrong.
    """
    fields = form.fields
    policy = fields.get("policy", "")
    if not policy:
        raise S3Error("AccessDenied")
    if "awsaccesskeyid" in fields:
        credential = Credential(
            Place.QUERY, 2, fields["awsaccesskeyid"], token=fields.get("x-amz-security-token", "")
        )
        known = _key(credential, keys, "s3")
        wanted, found = sigv2_of(known.secret, policy.encode()), fields.get("signature", "")
    else:
        parts = fields.get("x-amz-credential", "").split("/")
        if len(parts) != 5 or fields.get("x-amz-algorithm") != ALGORITHM or parts[3] != "s3":
            raise S3Error("AccessDenied", "Bucket POST must contain a field named 'X-Amz-Credential'.")
        credential = Credential(
            Place.QUERY,
            4,
            parts[0],
            parts[1],
            parts[2],
            parts[3],
            token=fields.get("x-amz-security-token", ""),
        )
        known = _key(credential, keys, "s3")
        key = signing_key(known.secret, parts[1], parts[2], parts[3])
        wanted = hmac.new(key, policy.encode(), "sha256").hexdigest()
        found = fields.get("x-amz-signature", "")
    if not _equal(found, wanted):
        raise _mismatch("s3")
    return credential.access_key


def missing(service: str) -> AwsError:
    """Return AWS's answer to an anonymous request."""
    if service == "s3":
        return S3Error("AccessDenied")
    if service == "ec2":
        return _auth_failure()
    text = "Missing Authentication Token"
    if _is_json(service):
        return AwsError("MissingAuthenticationTokenException", text, 400)
    return AwsError("MissingAuthenticationToken", f"Request is missing Authentication Token: {text}", 403)


def unknown_key(service: str, access_key: str) -> AwsError:
    """Return AWS's answer to an access key that does not exist."""
    if service == "s3":
        if not access_key:
            return S3Error("AccessDenied")
        text = f"The AWS Access Key Id you provided does not exist in our records.{_FIX}"
        return AwsError("InvalidAccessKeyId", text, status=403, fields={"AWSAccessKeyId": access_key})
    if service == "ec2":
        return _auth_failure()
    return _invalid_token(service)


def _key(credential: Credential, keys: SecretKeys, service: str) -> KnownKey:
    known = keys.find(credential.access_key) if credential.access_key else None
    if known is None:
        raise unknown_key(service, credential.access_key)
    if not _equal(credential.token, known.token):
        if service == "s3":
            raise AwsError("InvalidToken", "The provided token is malformed or otherwise invalid.", 400)
        raise _invalid_token(service)
    if known.expires is not None and known.expires < secrets.now():
        text = "The security token included in the request is expired"
        if service == "s3":
            raise AwsError("ExpiredToken", "The provided token has expired.", 400)
        raise (
            AwsError("ExpiredTokenException", text, 400)
            if _is_json(service)
            else AwsError("ExpiredToken", text, 403)
        )
    return known


def _verify_v2(environ: Environ, credential: Credential, known: KnownKey, service: str) -> None:
    if service != "s3":
        raise _malformed(service, "local_aws verifies Signature Version 2 for S3 only.")
    if credential.place is Place.QUERY:
        if not credential.time.isascii() or not credential.time.isdigit():
            raise S3Error("AccessDenied", "Invalid date (should be seconds since epoch)")
        _check_end(float(credential.time))
    else:
        _check_skew(str(environ.get("HTTP_X_AMZ_DATE") or environ.get("HTTP_DATE", "")), service)
    wanted = sigv2(
        known.secret,
        credential,
        environ,
        bucket_of_host(str(environ.get("HTTP_HOST", "")), environ.get("local_aws.hosts", ())),
    )
    if not _equal(credential.signature, wanted):
        raise _mismatch(service)


def _check_scope(credential: Credential, environ: Environ, service: str) -> None:
    """Refuse a scope without region or service; the router has read the service from this scope."""
    known = {service, "sagemaker" if service == "sagemaker-runtime" else service}
    if not (credential.date and credential.region) or credential.service not in known:
        raise _malformed(service, "The Credential must be <key>/<date>/<region>/<service>/aws4_request.")
    if credential.region != environ["local_aws.region"] or not credential.time.startswith(credential.date):
        raise _malformed(service, "The date of the Credential differs from X-Amz-Date.")


def _check_time(credential: Credential, service: str) -> None:
    if credential.place is Place.HEADER:
        _check_skew(credential.time, service)
        return
    expires = credential.expires or ""
    if not (expires.isascii() and expires.isdigit() and 1 <= int(expires) <= LONGEST_EXPIRY_SECONDS):
        text = "X-Amz-Expires must be between 1 and 604800 seconds (a week)."
        raise AwsError("AuthorizationQueryParametersError", text, 400)
    begin = _moment(credential.time, service)
    if begin > secrets.now() + SKEW_SECONDS:
        raise S3Error("AccessDenied", "Request is not yet valid")
    _check_end(begin + int(expires))


def _check_end(end: float) -> None:
    if end < secrets.now():
        shown = {"Expires": iso_time(end), "ServerTime": iso_time(secrets.now())}
        raise S3Error("AccessDenied", "Request has expired", **shown)


def _check_skew(text: str, service: str) -> None:
    if abs(_moment(text, service) - secrets.now()) <= SKEW_SECONDS:
        return
    if service == "s3":
        raise AwsError(
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            403,
        )
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    raise _mismatch(service, f"Signature expired: {text} is more than 15 min. away from {stamp}")


def _moment(text: str, service: str) -> float:
    for form in ("%Y%m%dT%H%M%SZ", "%a, %d %b %Y %H:%M:%S GMT", "%a, %d %b %Y %H:%M:%S +0000"):
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()
        except ValueError:
            continue
    raise _malformed(service, "AWS authentication requires a valid Date or x-amz-date header")


def _check_headers(environ: Environ, credential: Credential, service: str) -> None:
    """Refuse x-amz-* headers without a signature: the holder of a presigned URL could add a copy source."""
    present = {name[5:].replace("_", "-").lower() for name in environ if name.startswith("HTTP_X_AMZ_")}
    free = present - set(credential.headers)
    if credential.place is Place.QUERY and environ.get("HTTP_X_AMZ_CONTENT_SHA256") == UNSIGNED:
        free.discard("x-amz-content-sha256")
    if free:
        text = f"There were headers present in the request which were not signed: {', '.join(sorted(free))}"
        raise S3Error("AccessDenied", text) if service == "s3" else _mismatch(service, text)


def _payload(environ: Environ, credential: Credential, service: str) -> str:
    """Return the payload hash that the signature covers, checked against the body where S3 does not do so later."""
    stated = str(environ.get("HTTP_X_AMZ_CONTENT_SHA256", ""))
    if service == "s3":
        if credential.place is Place.QUERY:
            return stated or UNSIGNED
        if len(stated) == 64 or stated in (UNSIGNED, _UNSIGNED_CHUNKS, *_SIGNED_CHUNKS):
            return stated
        raise AwsError(
            "InvalidRequest", "Missing required header for this request: x-amz-content-sha256", 400
        )
    if credential.place is Place.QUERY and service != "sts":
        return hashlib.sha256(buffered(environ)).hexdigest()
    actual = hashlib.sha256(buffered(environ)).hexdigest()
    if stated and stated != actual:
        raise _mismatch(service, "The x-amz-content-sha256 header does not match the body.")
    return actual


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def _any_equal(found: str, wanted: Iterable[str]) -> bool:
    return any(_equal(found, one) for one in wanted)


def _mismatch(service: str, text: str = _MISMATCH) -> AwsError:
    if service == "ec2":
        return _auth_failure()
    if _is_json(service):
        return AwsError("InvalidSignatureException", text + _FIX, 400)
    return AwsError("SignatureDoesNotMatch", text + _FIX, 403)


def _malformed(service: str, text: str) -> AwsError:
    if service == "s3":
        return AwsError("AuthorizationHeaderMalformed", f"The authorization header is malformed; {text}", 400)
    return AwsError("IncompleteSignatureException" if _is_json(service) else "IncompleteSignature", text, 400)


def _auth_failure() -> AwsError:
    text = f"AWS was not able to validate the provided access credentials.{_FIX}"
    return AwsError("AuthFailure", text, 401)


def _invalid_token(service: str) -> AwsError:
    text = f"The security token included in the request is invalid.{_FIX}"
    if _is_json(service):
        return AwsError("UnrecognizedClientException", text, 400)
    return AwsError("InvalidClientTokenId", text, 403)


def _is_json(service: str) -> bool:
    return service != "s3" and protocol(service) in ("json", "rest-json")
