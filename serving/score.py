"""Ranks the candidates of requests with a served model.

    python -m serving.score --url=http://127.0.0.1:8501/v1/models/ctr --requests=file.jsonl

One request per line:

    {"user_id": "u1", "history": [{"item_id": "i1", "category_id": "c1"}],
     "candidates": [{"item_id": "i2", "category_id": "c1"}, {"item_id": "i3", "category_id": "c2"}]}

Prints one line per request: its number and its candidates, best first, each with its score. Unknown
items are scored as such, an empty history is fine, and of a long one the most recent events count.
With --schema (the model's assets/schema.json) fields that have a default may be left out.

A served model tells the names and types of its fields over REST, nothing else of its schema: those
are what --schema is compared with. Whether encoders and defaults agree too shows only where the
model's files are: serving.parity compares the schema hashes of a run and of an exported model.
"""

import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
from absl import flags

from preprocessing import cli
from preprocessing.errors import UserError
from preprocessing.schema import Schema
from serving.client import Client
from serving.request_format import CANDIDATES, RequestFormat

SCORE = "score"


def score(
    url: str, requests: str | pathlib.Path, schema: str | pathlib.Path = ""
) -> Iterator[dict[str, Any]]:
    """Scores a file of requests.

    Args:
        url: Address of the served model.
        requests: JSON lines, see above.
        schema: schema.json of the served model, for its defaults; "" does without.

    Yields:
        `{"request": line number, "candidates": [{..., "score": probability}, ...]}`, best first;
        equal scores keep their order.

    Raises:
        UserError: No server, fields of other names or types than the model's, a line that is no
            request, or a score that is no number.
    """
    path = pathlib.Path(requests)
    if not path.is_file():
        raise UserError(f"Expected a file of requests, found none at {path}.", "check --requests.")
    with Client(url) as client, path.open("rb") as lines:
        request_format = RequestFormat.from_signature(client.signature("serving_default"))
        if schema:
            given = RequestFormat.from_schema(Schema.load(schema))
            given.require_equal(request_format, str(schema), "the served model")
            request_format = given
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                request = json.loads(line)  # not orjson: a missing number may be NaN
            except (ValueError, RecursionError) as error:
                raise UserError(f"{where}: expected JSON, found a syntax error: {error}.") from None
            scores_BN = client.predict(request_format.inputs(request, where))
            if not np.isfinite(scores_BN).all():
                raise UserError(
                    f"{where}: expected probabilities from {url}, found {scores_BN[0]}.",
                    "check the numbers of the request, then the metrics of the model's training.",
                )
            ranked = [
                {**candidate, SCORE: probability}
                for candidate, probability in zip(request[CANDIDATES], scores_BN[0], strict=True)
            ]
            ranked.sort(key=lambda candidate: -candidate[SCORE])
            yield {"request": number, CANDIDATES: ranked}


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("url", None, "Address of the served model.")
    flags.DEFINE_string("requests", None, "File with one JSON request per line.")
    flags.DEFINE_string("schema", "", "schema.json of the model, for the defaults in it.")
    flags.mark_flags_as_required(["url", "requests"])


def main() -> None:
    """Prints ranked candidates as JSON lines."""
    for ranked in score(flags.FLAGS.url, flags.FLAGS.requests, flags.FLAGS.schema):
        sys.stdout.write(orjson.dumps(ranked).decode() + "\n")


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__)


if __name__ == "__main__":
    console_main()
