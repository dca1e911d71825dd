"""The console's FastAPI application: JSON for every page, and the three files that draw it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Annotated, Any

from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.exceptions import AirflowException
from fastapi import APIRouter, Body, Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel, Field

from ml_pipeline.console import (
    comparison,
    data,
    endpoints,
    evaluations,
    models,
    photos,
    reviews,
    runs,
    thumbnails,
)
from ml_pipeline.console.access import ASK, CORRECT, SEE, same_origin
from ml_pipeline.console.store import Absent, Store, store
from ml_pipeline.dataset.corrections import Action, CorrectionError
from ml_pipeline.settings import SettingsError
from ml_pipeline.watching.reviews import ReviewError

# No script but ours runs, nothing is fetched from elsewhere, and only Airflow may frame a page.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_SCRIPTS = ("console", "elements", "models", "runs", "data", "endpoints", "review", "shared")
_FILES = {"console.css": "text/css", **{f"{name}.js": "text/javascript" for name in _SCRIPTS}}
Name = Annotated[str, Query(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Version = Annotated[str, Query(pattern=r"^[0-9a-f]{1,64}$")]
Offset = Annotated[int, Query(ge=0, le=10_000_000)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RunId = Annotated[str, Query(max_length=250)]
StoreDep = Annotated[Store, Depends(store)]

router = APIRouter()


class Answer(BaseModel):
    """The answer of a reviewer; without an action it takes the answer back."""

    sha256: Sha256
    action: Action | None = None
    label: Annotated[str, Field(max_length=200)] | None = None


class Correct(BaseModel):
    """The same decision about some photos."""

    photos: Annotated[list[Sha256], Field(min_length=1, max_length=1000)]
    action: Action
    label: Annotated[str, Field(max_length=200)] | None = None
    why: Annotated[str, Field(max_length=500)] = ""


class Rename(BaseModel):
    """A class that is given another name, or joins another one."""

    label: str
    to: Annotated[str, Field(min_length=1, max_length=200)]


@router.get("/", dependencies=[SEE])
def index() -> Response:
    """Return the page; what it shows comes as JSON."""
    return _static("index.html", "text/html")


@router.get("/static/{name}", dependencies=[SEE])
def static(name: str) -> Response:
    """Return the script or the style sheet."""
    if name not in _FILES:
        raise HTTPException(404, "no such file")
    return _static(name, _FILES[name])


@router.get("/api/models", dependencies=[SEE])
def model_groups(found: StoreDep) -> Any:
    """Return the groups of model versions."""
    return {"groups": models.groups(found)}


@router.get("/api/models/versions", dependencies=[SEE])
def model_versions(found: StoreDep, session: SessionDep, group: Name) -> Any:
    """Return the versions of a group, each with the cost of its run."""
    rows = models.versions(found, group)
    usd = runs.costs(session, [row["metadata"].get("run_id", "") for row in rows])
    return {
        "group": group,
        "versions": [{**row, "usd": usd.get(row["metadata"].get("run_id", ""))} for row in rows],
    }


@router.get("/api/models/compare", dependencies=[SEE])
def model_compare(found: StoreDep, session: SessionDep, group: Name, left: int, right: int) -> Any:
    """Return how two versions differ, with the recipes of their runs."""
    compared = comparison.compare(found, group, left, right)
    recipes = {
        side: runs.recipe(session, compared[side]["metadata"].get("run_id", "")) for side in ("left", "right")
    }
    tested = compared["right"]["metadata"]
    flipped = photos.with_pictures(
        found, tested.get("dataset_name", group), tested.get("dataset_version", ""), compared["flipped"]
    )
    return {**compared, "flipped": flipped, "recipes": recipes}


@router.get("/api/models/classes", dependencies=[SEE])
def model_classes(found: StoreDep, group: Name, version: int) -> Any:
    """Return the classes and the confusion of a version."""
    known = models.version_of(found, group, version)
    shown = evaluations.evaluation(found, known["metadata"].get("evaluation_uri", ""))
    return {"version": known, **evaluations.confusion(shown)}


@router.get("/api/models/download", dependencies=[SEE])
def model_download(
    found: StoreDep, group: Name, version: int, file: Annotated[str, Query(max_length=40)]
) -> Response:
    """Send the bundle of a version, or a file of it."""
    if file not in models.DOWNLOADS:
        raise HTTPException(404, f"choose one of {', '.join(models.DOWNLOADS)}")
    headers = {"Content-Disposition": f'attachment; filename="{group}-v{version}-{file}"'}
    content = models.download(found, group, version, file)
    return StreamingResponse(content, media_type="application/octet-stream", headers=headers)


@router.get("/api/runs", dependencies=[SEE])
def run_list(session: SessionDep, offset: Offset = 0) -> Any:
    """Return a page of runs."""
    return runs.listed(session, offset)


@router.get("/api/runs/one", dependencies=[SEE])
def run_one(found: StoreDep, session: SessionDep, run_id: RunId) -> Any:
    """Return a run."""
    return runs.one(found, session, run_id)


@router.get("/api/runs/trials", dependencies=[SEE])
def run_trials(found: StoreDep, session: SessionDep, run_id: RunId) -> Any:
    """Return the trials of a run's search."""
    return runs.trials(found, session, run_id)


@router.get("/api/runs/curves", dependencies=[SEE])
def run_curves(found: StoreDep, session: SessionDep, run_id: RunId) -> Any:
    """Return the metrics of a run's training, epoch by epoch."""
    return {"epochs": runs.curves(found, session, run_id)}


@router.get("/api/runs/log", dependencies=[SEE])
def run_log(
    found: StoreDep,
    session: SessionDep,
    run_id: RunId,
    task_id: RunId,
) -> Any:
    """Return the end of the log of a task's job."""
    return {"lines": runs.log(found, session, run_id, task_id)}


@router.get("/api/data", dependencies=[SEE])
def data_names(found: StoreDep) -> Any:
    """Return the data sets."""
    return {"datasets": data.names(found)}


@router.get("/api/data/versions", dependencies=[SEE])
def data_versions(found: StoreDep, name: Name) -> Any:
    """Return the versions of a data set."""
    return {"name": name, "versions": data.versions(found, name)}


@router.get("/api/data/version", dependencies=[SEE])
def data_version(found: StoreDep, name: Name, version: Version) -> Any:
    """Return classes, rejected files and findings of a version."""
    return data.details(found, name, version)


@router.get("/api/data/photos", dependencies=[SEE])
def data_photos(
    found: StoreDep,
    name: Name,
    version: Version,
    label: str | None = None,
    split: str | None = None,
    finding: str | None = None,
    prediction: str | None = None,
    mistakes: bool = False,
    model: int | None = None,
    offset: Offset = 0,
) -> Any:
    """Return a page of photos; `model` is the version whose predictions are meant."""
    address = ""
    if model is not None:
        known = {row["version"]: row for row in models.versions(found, name)}
        if model not in known:
            raise Absent(f"{name} has no model version {model}")
        address = known[model]["metadata"].get("predictions_uri", "")
    wanted = photos.Filter(label, split, finding, prediction, mistakes, address)
    return reviews.marked(found, name, photos.page(found, name, version, wanted, offset))


@router.post("/api/data/correct", dependencies=[CORRECT])
def data_correct(found: StoreDep, user: GetUserDep, name: Name, given: Correct) -> Any:
    """Correct photos; the next version of the data set applies it."""
    who = user.get_name()
    count = reviews.correct(found, name, given.photos, given.action, given.label, who, given.why)
    return {"corrected": count}


@router.post("/api/data/rename", dependencies=[CORRECT])
def data_rename(found: StoreDep, user: GetUserDep, name: Name, version: Version, given: Rename) -> Any:
    """Rename a class, or merge it into another one."""
    return {"corrected": reviews.rename(found, name, version, given.label, given.to, user.get_name())}


@router.get("/api/review", dependencies=[SEE])
def review_queue(found: StoreDep, user: GetUserDep, name: Name) -> Any:
    """Return the next photos that wait for a person."""
    return reviews.queue(found, name, user.get_name())


@router.post("/api/review", dependencies=[CORRECT])
def review_answer(found: StoreDep, user: GetUserDep, name: Name, given: Answer) -> Any:
    """Take the answer of a reviewer, or take it back."""
    who = user.get_name()
    if given.action is None:
        reviews.undo(found, name, given.sha256, who)
    else:
        reviews.answer(found, name, given.sha256, given.action, given.label, who)
    return {"open": given.action is None}


@router.get("/api/data/thumbnail", dependencies=[SEE])
def data_thumbnail(found: StoreDep, name: Name, sha256: Sha256, shard: Sha256 | None = None) -> Response:
    """Return a photo's thumbnail: bytes that a job made of it, never the photo itself."""
    headers = {"Cache-Control": "private, max-age=86400"}
    picture = thumbnails.thumbnail(found, name, sha256, shard or "")
    return Response(picture, media_type="image/jpeg", headers=headers)


@router.get("/api/endpoints", dependencies=[SEE])
def endpoint_list(found: StoreDep) -> Any:
    """Return the endpoints."""
    return {"endpoints": endpoints.listed(found)}


@router.get("/api/endpoints/one", dependencies=[SEE])
def endpoint_one(found: StoreDep, name: Name, hours: Annotated[float, Query(gt=0, le=24 * 31)] = 3) -> Any:
    """Return an endpoint."""
    return endpoints.one(found, name, hours)


@router.get("/api/endpoints/looks", dependencies=[SEE])
def endpoint_looks(found: StoreDep, name: Name) -> Any:
    """Return what watch found in an endpoint's traffic."""
    return endpoints.looks(found, name)


@router.post("/api/endpoints/ask", dependencies=[ASK])
def endpoint_ask(
    found: StoreDep,
    name: Name,
    photo: Annotated[bytes, Body(media_type="application/octet-stream")],
    photo_type: Annotated[str, Header(pattern=r"^image/[a-z0-9.+-]{1,40}$")] = "image/jpeg",
    heat_map: bool = False,
) -> Any:
    """Return an endpoint's answer to a photo, or the heat map of its class."""
    if not photo or len(photo) > endpoints.MAX_PHOTO_BYTES:
        raise HTTPException(413, f"send a photo of 1 to {endpoints.MAX_PHOTO_BYTES:,} bytes")
    answer = endpoints.ask(found, name, photo, photo_type, heat_map)
    return Response(answer, media_type="image/png") if isinstance(answer, bytes) else answer


def create() -> FastAPI:
    """Build the application."""
    app = FastAPI(
        title="ML pipeline",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(same_origin)],
    )
    app.include_router(router)
    app.middleware("http")(_headers)
    app.add_exception_handler(Absent, _absent)
    for refused in (endpoints.PhotoRefused, reviews.Refused, CorrectionError):
        app.add_exception_handler(refused, _refused)
    app.add_exception_handler(ReviewError, _conflict)
    app.add_exception_handler(SettingsError, _unreachable)
    app.add_exception_handler(AirflowException, _unreachable)
    app.add_exception_handler(HTTPException, _http)
    from botocore.exceptions import BotoCoreError, ClientError

    app.add_exception_handler(BotoCoreError, _unreachable)
    app.add_exception_handler(ClientError, _unreachable)
    return app


def _static(name: str, media_type: str) -> Response:
    content = files("ml_pipeline.console").joinpath("static", name).read_bytes()
    return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})


async def _headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    for name, value in _HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def _absent(_: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error.args[0] if error.args else error)}, 404)


def _refused(_: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 422)


def _conflict(_: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 409)


def _unreachable(_: Request, error: Exception) -> Response:
    """AWS does not answer, or refuses: the page says so, and shows what it has from elsewhere."""
    return JSONResponse({"detail": f"AWS: {' '.join(str(error).split())[:500]}"}, 502)


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    page = request.method == "GET" and "text/html" in request.headers.get("accept", "")
    if error.status_code == 401 and page:
        mounted = request.scope.get("root_path", "").removesuffix("/ml-pipeline")
        return RedirectResponse(f"{mounted}/auth/login?next={request.url.path}", 303)
    return JSONResponse({"detail": error.detail}, error.status_code)
