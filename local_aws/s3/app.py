"""S3's REST API as a WSGI app over an `S3Store`."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from xml.sax.saxutils import escape

from local_aws.errors import AwsError
from local_aws.gateway.responses import Environ, StartResponse, drain, iso_time
from local_aws.s3 import notifications, post_form, xml
from local_aws.s3.api import bucket, configuration, multipart, objects
from local_aws.s3.errors import S3Error, not_implemented
from local_aws.s3.http import Request, Response
from local_aws.s3.notifications import Notifications, Send
from local_aws.s3.post_form import Admit
from local_aws.s3.store import S3Store

logger = logging.getLogger(__name__)

Handler = Callable[[S3Store, Request], Response]

_STATUS = {
    200: "200 OK",
    201: "201 Created",
    204: "204 No Content",
    206: "206 Partial Content",
    303: "303 See Other",
    304: "304 Not Modified",
    400: "400 Bad Request",
    403: "403 Forbidden",
    404: "404 Not Found",
    405: "405 Method Not Allowed",
    409: "409 Conflict",
    411: "411 Length Required",
    412: "412 Precondition Failed",
    416: "416 Range Not Satisfiable",
    500: "500 Internal Server Error",
    501: "501 Not Implemented",
    503: "503 Slow Down",
}


class S3App:
    """The WSGI app.

    Args:
        send: `send(queue ARN, body)` delivers event notifications; without it they are refused.
        admit: checks the signature and rights of a browser's POST; without it any is accepted.
    """

    def __init__(self, store: S3Store, send: Send | None = None, admit: Admit | None = None) -> None:
        self.store = store
        self._admit = admit
        self._notifications = Notifications(store, send)
        self._bucket_handlers: dict[tuple[str, str], Handler] = {
            ("GET", ""): _list_objects,
            ("PUT", ""): bucket.create_bucket,
            ("HEAD", ""): bucket.head_bucket,
            ("DELETE", ""): bucket.delete_bucket,
            ("GET", "location"): bucket.get_location,
            ("GET", "versioning"): bucket.get_versioning,
            ("PUT", "versioning"): bucket.put_versioning,
            ("GET", "versions"): bucket.list_versions,
            ("GET", "uploads"): multipart.list_uploads,
            ("POST", "delete"): bucket.delete_objects,
            ("POST", ""): self._post_object,
            ("GET", "notification"): notifications.get_configuration,
            ("PUT", "notification"): self._notifications.put_configuration,
            **configuration.handlers(),
        }
        self._object_handlers: dict[tuple[str, str], Handler] = {
            ("GET", ""): objects.get_object,
            ("HEAD", ""): objects.head_object,
            ("PUT", ""): objects.put_object,
            ("DELETE", ""): objects.delete_object,
            ("GET", "acl"): configuration.get_acl,
            ("PUT", "acl"): configuration.put_acl,
            ("GET", "tagging"): objects.get_tags,
            ("PUT", "tagging"): objects.put_tags,
            ("DELETE", "tagging"): objects.delete_tags,
            ("GET", "attributes"): objects.get_attributes,
            ("POST", "uploads"): multipart.create_upload,
            ("PUT", "uploadId"): multipart.put_part,
            ("POST", "uploadId"): multipart.complete_upload,
            ("DELETE", "uploadId"): multipart.abort_upload,
            ("GET", "uploadId"): multipart.list_parts,
        }

    def start(self) -> None:
        """Begin to deliver notifications."""
        self._notifications.start()

    def stop(self) -> None:
        """Deliver what waits, and close the store."""
        self._notifications.stop()
        self.store.close()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one S3 request, errors included."""
        path, method = environ.get("PATH_INFO", ""), environ["REQUEST_METHOD"]
        try:
            request = Request.from_environ(environ)
            _check_expiry(request.query)
            response = self._handler(request)(self.store, request)
        except AwsError as error:
            drain(environ["wsgi.input"])
            response = _error_response(error, path)
        except Exception:
            logger.exception("S3 failed to answer %s %s", method, path)
            drain(environ["wsgi.input"])
            message = "We encountered an internal error; local_aws's log says why."
            response = _error_response(AwsError("InternalError", message, 500), path)
        return _send(response, method, start_response)

    def _post_object(self, store: S3Store, request: Request) -> Response:
        """POST Object: an upload by a form, checked against its policy where it has one."""
        form = post_form.read_form(request)
        if self._admit is not None:
            self._admit(form)
        if "policy" in form.fields:
            post_form.check_policy(form)
        put = post_form.stored_request(form, request)
        stored = objects.put_object(store, put)
        return post_form.answer(form, request, put.key, stored.headers["ETag"])

    def _handler(self, request: Request) -> Handler:
        if not request.bucket:
            if request.method == "GET":
                return bucket.list_buckets
            raise S3Error("MethodNotAllowed", Method=request.method, ResourceType="SERVICE")
        table = self._object_handlers if request.key else self._bucket_handlers
        subresource = request.subresource
        handler = table.get((request.method, subresource))
        if handler is not None:
            return handler
        if subresource:
            raise not_implemented(f"{request.method} ?{subresource}")
        raise S3Error(
            "MethodNotAllowed", Method=request.method, ResourceType="OBJECT" if request.key else "BUCKET"
        )


def _list_objects(store: S3Store, request: Request) -> Response:
    if request.query.get("list-type") == "2":
        return bucket.list_objects_v2(store, request)
    return bucket.list_objects(store, request)


def _check_expiry(query: Mapping[str, str]) -> None:
    """Presigned URLs end (SigV4: date plus seconds; SigV2: a moment). Raises AccessDenied."""
    end: float | None = None
    if "X-Amz-Expires" in query and "X-Amz-Date" in query:
        try:
            begin = datetime.fromisoformat(query["X-Amz-Date"])
            end = begin.timestamp() + int(query["X-Amz-Expires"])
        except ValueError:
            raise S3Error("AccessDenied", "Invalid date (should be seconds since epoch)") from None
    elif query.get("Expires", "").isdigit() and "Signature" in query:
        end = int(query["Expires"])
    if end is not None and time.time() > end:
        raise S3Error(
            "AccessDenied",
            "Request has expired",
            Expires=iso_time(end),
            ServerTime=iso_time(time.time()),
        )


def _error_response(error: AwsError, path: str) -> Response:
    if error.status == 304:
        return Response(304)
    fields = "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in error.fields.items())
    body = (
        f"{xml.HEADER}<Error><Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message>{fields}"
        f"<Resource>{escape(path)}</Resource><RequestId>{uuid.uuid4().hex[:16].upper()}</RequestId></Error>"
    )
    return Response.xml(body.encode("utf-8", "replace"), getattr(error, "headers", {}), error.status)


def _send(response: Response, method: str, start_response: StartResponse) -> Iterable[bytes]:
    request_id = uuid.uuid4().hex
    headers = {
        "x-amz-request-id": request_id[:16].upper(),
        "x-amz-id-2": request_id,
        "Server": "AmazonS3",
        **response.headers,
    }
    body = response.body
    if isinstance(body, bytes) and "Content-Length" not in headers and response.status not in (204, 304):
        headers["Content-Length"] = str(len(body))
    start_response(_STATUS.get(response.status, f"{response.status} Error"), list(headers.items()))
    if method == "HEAD" or response.status in (204, 304):
        close = getattr(body, "close", None)
        if close is not None:
            close()
        return []
    return [body] if isinstance(body, bytes) else body
