"""Formats probabilities as JSON, JSON lines and CSV, with the versions of model and data set."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_code.data.photos import PhotoError, PhotoReason
from model_code.predict.sessions import Floats
from model_code.predict.unknown import Unknown
from model_code.process.cells import cell
from model_code.serve.http.messages import HttpError, Response
from model_code.serve.payload import Format, Options, Query
from model_code.serve.settings import Refusals


@dataclass(frozen=True)
class Answer:
    """One photo's answer.

    Args:
        order: Class indices from the likeliest to the least likely, int [classes].
        probabilities: Calibrated, in that order, float32 [classes].
        heat_map: PNG, if requested.
    """

    order: NDArray[np.intp]
    probabilities: Floats
    heat_map: bytes | None = None

    @classmethod
    def of(cls, probabilities: Floats, heat_map: bytes | None = None) -> Answer:
        """Return the answer for probabilities [classes] in the model's order; classes that tie stay in that order."""
        order = np.argsort(-probabilities, kind="stable")
        return cls(order, probabilities[order], heat_map)


Outcome = Answer | Exception
"""The outcome of one photo."""

_STATUS = {PhotoReason.TOO_LARGE: 413, PhotoReason.UNSUPPORTED: 415}


@dataclass(frozen=True)
class Writer:
    """Writes answers for one model.

    Args:
        classes: The model's, in its order.
        abstain_threshold: An answer whose best probability is below is flagged `abstain`.
        provenance: Model and data set, included in every JSON answer.
        unknown: Scores how unlike every class a photo is; None for a model of an older release.
        refusals: Form of the answer to a photo that cannot be read.
    """

    classes: tuple[str, ...]
    abstain_threshold: float
    provenance: dict[str, Any]
    unknown: Unknown | None = None
    refusals: Refusals = Refusals.STATUS

    def response(self, query: Query, outcomes: Sequence[Outcome]) -> Response:
        """Return the response to a whole request.

        A photo that cannot be read fails the request, except in JSON lines, where it fails only its own line as
        long as another line succeeds, and except with `Refusals.ROW`, where its reason takes the place of its answer.
        """
        errors = [
            (n, refusal(outcome)) for n, outcome in enumerate(outcomes) if isinstance(outcome, Exception)
        ]
        failed = next((error for error in errors if error[1].status >= 500), None)
        if errors and self.refusals is Refusals.ROW:
            if failed is not None:
                return _failure(query, *failed)
        elif errors and (not query.lines or len(errors) == len(outcomes)):
            return _failure(query, *errors[0])
        if query.format is Format.PNG:
            return self._png(outcomes)
        write = {Format.JSON: self._json, Format.JSONLINES: self._json_lines, Format.CSV: self._csv}[
            query.format
        ]
        response = Response(200, write(outcomes, query.options), str(query.format), photos=len(outcomes))
        if errors:
            response.reason = f"{len(errors)} photos refused"
        return response

    def _top(self, names: Sequence[str], answer: Answer, top_k: int | None) -> list[tuple[str, float]]:
        # Seven digits: as many as float32 holds.
        return [
            (names[i], round(p, 7))
            for i, p in zip(answer.order[:top_k].tolist(), answer.probabilities[:top_k].tolist(), strict=True)
        ]

    @cached_property
    def _quoted(self) -> tuple[str, ...]:
        return tuple(json.dumps(name) for name in self.classes)

    @cached_property
    def _provenance(self) -> str:
        return json.dumps(self.provenance)[1:]

    def _doubts(self, outcomes: Sequence[Outcome], options: Options) -> list[str]:
        """Members `unknown`, `unknown_score` and, where asked for, `set` of each answer; "" where there is none."""
        answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
        if self.unknown is None or not answers:
            none = ', "unknown": null, "unknown_score": null' + (', "set": null' if options.set else "")
            return [none if isinstance(outcome, Answer) else "" for outcome in outcomes]
        rows = np.empty((len(answers), len(self.classes)), np.float32)
        for row, answer in zip(rows, answers, strict=True):
            row[answer.order] = answer.probabilities
        scores = self.unknown.score(rows)
        flags = self.unknown.flags(scores).tolist()
        texts = [
            f', "unknown": {"true" if flag else "false"}, "unknown_score": {round(score, 4)!r}'
            for flag, score in zip(flags, scores.tolist(), strict=True)
        ]
        if options.set:
            texts = [text + self._set(answer) for text, answer in zip(texts, answers, strict=True)]
        remaining = iter(texts)
        return [next(remaining) if isinstance(outcome, Answer) else "" for outcome in outcomes]

    def _set(self, answer: Answer) -> str:
        if self.unknown is None or not self.unknown.least:
            return ', "set": null'
        count = max(1, int((answer.probabilities >= self.unknown.least).sum()))
        return f', "set": [{", ".join(self._quoted[i] for i in answer.order[:count].tolist())}]'

    def _prediction(self, answer: Answer, top_k: int | None, doubt: str) -> str:
        """Return one photo's answer as a JSON object without its closing brace.

        Formatted without `json`, which takes four times as long here: most of an answer never changes.
        """
        top = self._top(self._quoted, answer, top_k)
        name, probability = top[0]
        abstain = "true" if probability < self.abstain_threshold else "false"
        rows = ", ".join([f'{{"class": {name}, "probability": {p!r}}}' for name, p in top])
        text = (
            f'{{"class": {name}, "probability": {probability!r}, "abstain": {abstain}{doubt}, "top": [{rows}]'
        )
        if answer.heat_map is not None:
            text += f', "explanation": "{base64.b64encode(answer.heat_map).decode()}"'
        return text

    def _json(self, outcomes: Sequence[Outcome], options: Options) -> bytes:
        predictions = [
            self._prediction(outcome, options.top_k, doubt) + "}"
            if isinstance(outcome, Answer)
            else json.dumps(_error_fields(refusal(outcome)))
            for outcome, doubt in zip(outcomes, self._doubts(outcomes, options), strict=True)
        ]
        return f'{{"predictions": [{", ".join(predictions)}], {self._provenance}\n'.encode()

    def _json_lines(self, outcomes: Sequence[Outcome], options: Options) -> bytes:
        lines = [
            f"{self._prediction(outcome, options.top_k, doubt)}, {self._provenance}\n"
            if isinstance(outcome, Answer)
            else json.dumps(_error_fields(refusal(outcome))) + "\n"
            for outcome, doubt in zip(outcomes, self._doubts(outcomes, options), strict=True)
        ]
        return "".join(lines).encode()

    def _csv(self, outcomes: Sequence[Outcome], options: Options) -> bytes:
        """Per photo: class, probability, abstain (0 or 1), then the further classes with theirs.

        No header, so that parts of a batch can be joined; a line that was refused is `,,,<message>`. A name that a
        spreadsheet would execute begins with an apostrophe.
        """
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        for outcome in outcomes:
            if not isinstance(outcome, Answer):
                rows.writerow(["", "", "", cell(refusal(outcome).message)])
                continue
            (name, probability), *others = self._top(self.classes, outcome, options.top_k)
            abstain = int(probability < self.abstain_threshold)
            rows.writerow(map(cell, [name, probability, abstain, *chain.from_iterable(others)]))
        return text.getvalue().encode()

    def _png(self, outcomes: Sequence[Outcome]) -> Response:
        maps = [outcome.heat_map for outcome in outcomes if isinstance(outcome, Answer)]
        if len(maps) != 1 or maps[0] is None:
            return HttpError(
                406, "accept", "image/png is the answer to explain=true for one photo"
            ).response()
        return Response(200, maps[0], str(Format.PNG), photos=1)


def refusal(error: Exception) -> HttpError:
    """Return the HTTP error for what went wrong with one photo."""
    if isinstance(error, HttpError):
        return error
    if isinstance(error, PhotoError):
        return HttpError(_STATUS.get(error.reason, 400), f"photo_{error.reason.name.lower()}", str(error))
    return HttpError(500, "internal", "the model failed on this photo; the server's log says why")


def _failure(query: Query, number: int, error: HttpError) -> Response:
    if len(query.photos) > 1 and not error.message.startswith(("item", "line")):
        where = "line" if query.lines else "item"
        error = HttpError(error.status, error.reason, f"{where} {number}: {error.message}", error.headers)
    return error.response()


def _error_fields(error: HttpError) -> dict[str, Any]:
    return {"error": {"reason": error.reason, "message": error.message}}
