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

import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import orjson
from absl import flags
from tqdm import tqdm

from preprocessing import cli
from preprocessing.schema import Schema
from serving.client import Client
from serving.client.request_format import CANDIDATES
from serving.client.request_lines import count_requests, read_requests

SCORE = "score"


def score(
    url: str,
    requests: str | pathlib.Path,
    schema: str | pathlib.Path = "",
    *,
    compress: bool = False,
    progress: bool = False,
) -> Iterator[dict[str, Any]]:
    """Scores a file of requests.

    Args:
        url: Address of the served model.
        requests: File of requests, one JSON document per line.
        schema: schema.json of the served model, for its defaults; "" does without.
        compress: Whether to send requests in gzip.
        progress: Whether to show a progress bar on standard error.

    Yields:
        `{"request": line number, "candidates": [{..., "score": probability}, ...]}`, best first;
        equal scores keep their order.

    Raises:
        UserError: No server answers, the schema has fields of other names or types than the model,
            a line is not a request, or a score is not a number.
    """
    path = pathlib.Path(requests)
    model_schema = Schema.load(schema) if schema else None
    with (
        Client(url, schema=model_schema, compress=compress) as client,
        tqdm(
            total=count_requests(path),
            desc="score",
            unit="request",
            disable=None if progress else True,
        ) as bar,
    ):
        for number, where, request in read_requests(path):
            scores_N = client.score(request, where)
            ranked = [
                {**candidate, SCORE: probability}
                for candidate, probability in zip(request[CANDIDATES], scores_N, strict=True)
            ]
            ranked.sort(key=lambda candidate: -candidate[SCORE])
            bar.update()
            yield {"request": number, CANDIDATES: ranked}


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("url", None, "Address of the served model.")
    flags.DEFINE_string("requests", None, "File with one JSON request per line.")
    flags.DEFINE_string("schema", "", "schema.json of the model, for the defaults in it.")
    flags.DEFINE_bool("gzip", False, "Compress requests with gzip, for slow networks.")
    flags.mark_flags_as_required(["url", "requests"])


def main() -> None:
    """Prints ranked candidates as JSON lines."""
    values = flags.FLAGS
    for ranked in score(
        values.url, values.requests, values.schema, compress=values.gzip, progress=True
    ):
        tqdm.write(orjson.dumps(ranked).decode(), file=sys.stdout)


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__)


if __name__ == "__main__":
    console_main()
