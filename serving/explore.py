"""The page /explore: why the served model ranks the requests of a data set as it does.

    GET /explore                    the page; its script and style are /explore/page.js and page.css
    GET /explore/users?q=TEXT       users whose key holds the text
    GET /explore/requests?user=KEY  the requests of a user
    GET /explore/why?request=I      one request: history, ranked candidates, experts, attention

A request is answered only if its Host header names this machine. Otherwise a website could point
its own host name at this machine (DNS rebinding), and its pages could read users' histories.
"""

import asyncio
import concurrent.futures
import itertools
import mimetypes
import pathlib
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import numpy as np
import orjson
from tqdm import tqdm

from models.keras import tf
from preprocessing import dataset, time_units
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError
from preprocessing.example_keys import (
    LABEL,
    REQUEST_ID,
    REQUEST_USER,
    TIMESTAMP,
    candidate_key,
    history_key,
)
from preprocessing.features.feature import PAD_ID, Feature
from preprocessing.known_items import are_unknown
from preprocessing.schema import Schema
from preprocessing.storage.tfrecord import read_records
from serving.client.core import Explanation
from serving.client.request_format import CANDIDATES, HISTORY
from serving.exporting import raw_requests
from serving.exporting.sample_requests import to_request
from serving.exporting.signatures import EXPLAIN, SCORES, SERVING_DEFAULT
from serving.tfserving.models.servable import Servable
from serving.tfserving.status import ServingError, http_status

PATH = "/explore"

_Message = MutableMapping[str, Any]
_App = Callable[
    [_Message, Callable[[], Awaitable[_Message]], Callable[[_Message], Awaitable[None]]],
    Awaitable[None],
]

_FILES = pathlib.Path(__file__).parent / "explore_page"
_PAGES = {PATH: "page.html", f"{PATH}/page.js": "page.js", f"{PATH}/page.css": "page.css"}
_SPLITS = ("test", "validation", "train")
_MAX_REQUESTS = 20_000
_MAX_USERS_SHOWN = 50
_BLOCK = 1024
_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_HEADERS = [
    (b"content-security-policy", b"default-src 'self'; img-src data:; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
]


class _NoSuchError(Exception):
    """The user, request or page that a client asks for does not exist."""


class Explorer:
    """Requests of a data set by user, with the model's explanations of its scores.

    Attributes:
        split: Split of the requests: test, or validation if test is empty, or else train.
        users: Indices of each user's requests, by user key.
        unknown: The users that are not in the model's vocabulary.

    Args:
        data: The data set; only the first 20,000 requests of a split are shown.
        model: Function that returns the number of the version to ask, and the loaded version.
        progress: Whether to show a progress bar on standard error.

    Raises:
        UserError: The data set is empty or damaged, or has another schema than the model.
    """

    def __init__(
        self, data: DataDir, model: Callable[[], tuple[int, Servable]], progress: bool = False
    ) -> None:
        self._data = data
        self._model = model
        _require_schema(model()[1], data)
        split = next((split for split in _SPLITS if data.num_requests(split)), None)
        if split is None:
            raise UserError(
                f"--explore: expected requests in {data.path}, found none.",
                "build the data from a larger log.",
            )
        self.split = split
        records = itertools.chain.from_iterable(read_records(path) for path in data.shards(split))
        self._records: list[bytes] = []
        self.users: dict[str, list[int]] = {}
        self.unknown: set[str] = set()
        user_key = data.schema.user_key.name
        total = min(data.num_requests(split), _MAX_REQUESTS)
        with tqdm(total=total, desc="explore", disable=None if progress else True) as bar:
            for block in iter(lambda: list(itertools.islice(records, _BLOCK)), []):
                block = block[: _MAX_REQUESTS - len(self._records)]
                if not block:
                    break
                parsed = dataset.parse(data.schema, tf.constant(block), with_users=True)
                users = [key.decode() for key in parsed[REQUEST_USER].numpy()]
                for index, user in enumerate(users, len(self._records)):
                    self.users.setdefault(user, []).append(index)
                is_unknown = are_unknown(data.encoders[user_key], parsed[user_key].numpy())
                self.unknown.update(itertools.compress(users, is_unknown))
                self._records += block
                bar.update(len(block))

    def find_users(self, text: str) -> dict[str, Any]:
        """Users whose key contains a text in any case.

        Users that the model knows come first; among those, keys that begin with the text.
        """
        needle = text.strip().casefold()
        matches = [user for user in self.users if needle in user.casefold()]
        matches.sort(
            key=lambda user: (user in self.unknown, not user.casefold().startswith(needle))
        )
        shown = [
            {"user": user, "requests": len(self.users[user]), "unknown": user in self.unknown}
            for user in matches[:_MAX_USERS_SHOWN]
        ]
        num_unknown = sum(user in self.unknown for user in matches)
        return {
            "users": shown, "found": len(matches), "unknown": num_unknown, "split": self.split,
        }  # fmt: skip

    def requests(self, user: str) -> list[int]:
        """Indices of a user's requests."""
        if user not in self.users:
            raise _NoSuchError(f"No user {user!r} among the requests of the {self.split} split.")
        return self.users[user]

    def why(self, index: int) -> dict[str, Any]:
        """A request, its candidates from best to worst, and the explanation of their scores.

        `confidence` [K] and `attention` [K, L] of a candidate are empty if the model has no
        signature `explain`. `unknown` names the fields whose values are not in their vocabulary;
        the values shown in these fields are placeholders, as the data set does not keep such
        values. Among the values of a set each of them is the text "unknown". Integers of the data
        set and the version are strings: a browser reads numbers as floats, and would show other
        integers beyond 2^53.
        """
        if not 0 <= index < len(self._records):
            raise _NoSuchError(f"No request {index}; there are {len(self._records)}.")
        data = self._data
        schema = data.schema
        batch = raw_requests.decode(data, [self._records[index]])
        features = {key: value.numpy()[0] for key, value in batch.features.items()}
        request = self._with_unknown(to_request(data, batch, 0), features)
        version, servable = self._model()
        explanation = _ask(servable, batch.raw)
        history = self._records_of(_encoded(schema.event_fields), history_key, features)
        candidates = self._records_of(schema.item_features, candidate_key, features)
        ranked = [
            {
                "fields": _shown(request[CANDIDATES][n]),
                "unknown": candidates[n],
                "label": int(features[LABEL][n]),
                "score": float(explanation.scores_N[n]),
                "confidence": explanation.confidence_NK[n].tolist(),
                "attention": explanation.attention_NKL[n].tolist(),
            }
            for n in np.argsort(-explanation.scores_N[: len(candidates)], kind="stable")
        ]
        # The time stands beside the fields, whether the model uses it or not.
        user = _shown(
            {f.name: request[f.name] for f in schema.request_fields if f is not schema.timestamp}
        )
        fields = _encoded(schema.request_fields)
        unknown = [f.name for f in fields if self._is_unknown(f, features[f.name])]
        return {
            "version": str(version),
            "index": index,
            "request_id": features[REQUEST_ID].decode(),
            "timestamp": time_units.readable(schema, int(features[TIMESTAMP])),
            "user": {"fields": user, "unknown": unknown},
            "history": [
                {"fields": _shown(self._with_dates(fields)), "unknown": names}
                for fields, names in zip(request[HISTORY], history, strict=True)
            ],
            "candidates": ranked,
        }

    def _with_dates(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of an event with its time, if it has one, for readers."""
        time = self._data.schema.timestamp
        if time is None or time.name not in fields:
            return dict(fields)
        return {**fields, time.name: time_units.readable(self._data.schema, int(fields[time.name]))}

    def _records_of(
        self,
        group: tuple[Feature, ...],
        key_of: Callable[[str], str],
        features: dict[str, np.ndarray],
    ) -> list[list[str]]:
        """Names of the unknown fields of each event or candidate that is not padding."""
        count = int((features[key_of(group[0].name)] != PAD_ID).sum())
        return [
            [f.name for f in group if self._is_unknown(f, features[key_of(f.name)][i])]
            for i in range(count)
        ]

    def _is_unknown(self, feature: Feature, encoded: Any) -> bool:
        """Whether a field holds one value, and that is not in its vocabulary."""
        num_oov = self._data.encoders[feature.name].num_oov
        return not feature.axes and bool(PAD_ID < encoded <= num_oov)

    def _with_unknown(
        self, request: dict[str, Any], features: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        """The request with the values of sets that are not in their vocabulary named unknown.

        Of a vector only its length and norm are told.
        """
        schema = self._data.schema

        def named(feature: Feature, values: Any, ids: np.ndarray) -> Any:
            if feature.is_vector:
                return f"{len(values)} numbers of norm {np.linalg.norm(values):.3g}"
            if feature.many is None:
                return values
            is_known = ids[ids != PAD_ID] > self._data.encoders[feature.name].num_oov
            return [v if known else "unknown" for v, known in zip(values, is_known, strict=True)]

        for feature in _encoded(schema.request_fields):
            name = feature.name
            request[name] = named(feature, request[name], features[name])
        for part, group, key_of in (
            (HISTORY, _encoded(schema.event_fields), history_key),
            (CANDIDATES, schema.item_features, candidate_key),
        ):
            for feature in group:
                ids = features[key_of(feature.name)]
                for i, record in enumerate(request[part]):
                    record[feature.name] = named(feature, record[feature.name], ids[i])
        return request


def open_explorer(path: str | pathlib.Path, model: Callable[[], tuple[int, Servable]]) -> Explorer:
    """Opens a data set with a progress bar; see `Explorer` for the arguments and errors."""
    return Explorer(DataDir.open(path), model, progress=True)


class ExploreApp:
    """ASGI application that answers paths below /explore and passes the rest on.

    Args:
        app: Application that answers all other paths.
        explorer: Requests and explanations to show.
        executor: Executor that computes explanations off the event loop.
    """

    def __init__(
        self, app: _App, explorer: Explorer, executor: concurrent.futures.Executor
    ) -> None:
        self._app = app
        self._explorer = explorer
        self._executor = executor

    async def __call__(self, scope: _Message, receive: Any, send: Any) -> None:
        """Answers one HTTP request."""
        path = scope["path"]
        if path != PATH and not path.startswith(f"{PATH}/"):
            await self._app(scope, receive, send)
            return
        status, content_type, body = await self._answer(scope)
        headers = [
            *_HEADERS,
            (b"content-type", content_type.encode("ascii")),
            (b"content-length", str(len(body)).encode("ascii")),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: _Message) -> tuple[int, str, bytes]:
        path = scope["path"]
        if not _names_this_machine(scope):
            return _error(403, "This page answers to localhost only.")
        if scope["method"] != "GET":
            return _error(405, "This page is for reading.")
        if path in _PAGES:
            file = _FILES / _PAGES[path]
            content_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            return 200, f"{content_type}; charset=utf-8", file.read_bytes()
        query = urllib.parse.parse_qs(scope["query_string"].decode("latin-1"))
        loop = asyncio.get_running_loop()
        try:
            content = await loop.run_in_executor(self._executor, self._find, path, query)
        except _NoSuchError as error:
            return _error(404, str(error))
        except ServingError as error:
            return _error(http_status(error.code), error.message)
        return 200, "application/json", orjson.dumps(content)

    def _find(self, path: str, query: dict[str, list[str]]) -> Any:
        def argument(name: str) -> str:
            return query.get(name, [""])[0]

        if path == f"{PATH}/users":
            return self._explorer.find_users(argument("q"))
        if path == f"{PATH}/requests":
            return self._explorer.requests(argument("user"))
        if (
            path == f"{PATH}/why"
            and argument("request").isascii()
            and argument("request").isdigit()
        ):
            return self._explorer.why(int(argument("request")))
        raise _NoSuchError("Nothing is served here.")


def _encoded(features: tuple[Feature, ...]) -> tuple[Feature, ...]:
    """The features that have ids or numbers; times have neither."""
    return tuple(feature for feature in features if feature.encoder is not None)


def _shown(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a record with integers as strings, which a browser reads without loss."""

    def shown(value: Any) -> Any:
        if isinstance(value, list):
            return [shown(one) for one in value]
        return str(value) if isinstance(value, int) else value

    return {name: shown(value) for name, value in fields.items()}


def _ask(servable: Servable, raw: dict[str, np.ndarray]) -> Explanation:
    """The model's explanation of one request; scores alone if it has no signature `explain`."""
    if EXPLAIN in servable.signature_defs.signature_def:
        return Explanation.of(servable.predict(EXPLAIN, raw))
    (scores_N,) = servable.predict(SERVING_DEFAULT, raw)[SCORES]
    empty_N0 = np.zeros([len(scores_N), 0])
    return Explanation(scores_N, empty_N0, empty_N0, 0)


def _require_schema(servable: Servable, data: DataDir) -> None:
    path = servable.path / "assets" / "schema.json"
    if not path.exists():
        raise UserError(
            f"--explore: expected a model that ctr-export wrote, found no {path}.",
            "leave out --explore for other models.",
        )
    Schema.load(path).require_equal(data.schema, str(path), f"that of {data.path}")


def _names_this_machine(scope: _Message) -> bool:
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    return all(host.lower().rsplit(":", 1)[0] in _HOSTS or host.lower() in _HOSTS for host in hosts)


def _error(status: int, message: str) -> tuple[int, str, bytes]:
    return status, "application/json", orjson.dumps({"error": message})
