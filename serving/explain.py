"""Says why a served model ranks the candidates of a request as it does.

    python -m serving.explain --url=http://127.0.0.1:8501/v1/models/ctr --requests=file.jsonl
        --line=3

The request is a line of a file as serving.score takes it. Prints the best candidates, each with the
weight of every interest expert and the events of the history that the expert looked at most, and
how many values of the request the model has never seen. Events are counted from the oldest, 0.

A model says why if it has the signature `explain`; the page /explore of serving.server --explore
shows the same for requests of a data set.
"""

import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import flags

from preprocessing import cli
from preprocessing.errors import UserError
from preprocessing.schema import Schema
from serving.client import Client, Explanation
from serving.client.request_format import CANDIDATES, HISTORY
from serving.client.request_lines import read_requests

_BAR_WIDTH = 20


def explain(
    url: str, requests: str | pathlib.Path, line: int, schema: str | pathlib.Path = ""
) -> tuple[dict[str, Any], Explanation]:
    """Asks a served model about one request.

    Args:
        url: Address of the served model.
        requests: File of requests, one JSON document per line, as `serving.score` takes them.
        line: Number of the request's line in the file, counted from 1.
        schema: schema.json of the served model, for its defaults; "" does without.

    Returns:
        The request, and the model's explanation of its candidates' scores.

    Raises:
        UserError: The file has no such line, no server answers, the request does not fit the
            model, or the model has no signature `explain`.
    """
    for number, where, request in read_requests(requests):
        if number == line:
            with Client(url, schema=Schema.load(schema) if schema else None) as client:
                return request, client.explain(request, where)
    raise UserError(f"Expected a request at {requests}:{line}, found none.", "check --line.")


def describe(
    request: Mapping[str, Any], why: Explanation, candidates: int = 5, events: int = 3
) -> str:
    """Formats an explanation as text for people.

    Args:
        request: The request that was explained.
        why: The model's explanation of it.
        candidates: Number of candidates to show, best first.
        events: Number of history events to show for each expert.
    """
    unknown = "no value is" if not why.unknown else f"{why.unknown} of its values are"
    history = request[HISTORY]
    lines = [
        f"{len(request[CANDIDATES])} candidates, {len(history)} events; {unknown} unknown to the "
        "model."
    ]
    for rank, n in enumerate(np.argsort(-why.scores_N, kind="stable")[:candidates], start=1):
        lines += ["", f"{rank}. {why.scores_N[n]:.4f}  {_fields(request[CANDIDATES][n])}"]
        for k, confidence in enumerate(why.confidence_NK[n]):
            bar = "█" * round(float(confidence) * _BAR_WIDTH)
            lines.append(f"   expert {k + 1}  {confidence:6.1%} {bar}".rstrip())
            attention_L = why.attention_NKL[n, k]
            strongest = np.argsort(-np.abs(attention_L), kind="stable")[:events]
            lines += [
                f"      {attention_L[i]:+.3f}  event {i}: {_fields(history[i])}"
                for i in strongest
                if attention_L[i]
            ]
    return "\n".join(lines) + "\n"


def _fields(record: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_shown(value)}" for name, value in record.items())


def _shown(value: Any) -> str:
    """A value; the values of a list with bars between them; of a vector how many numbers it has."""
    if isinstance(value, list) and value and all(isinstance(one, float) for one in value):
        return f"{len(value)} numbers"
    return "|".join(map(str, value)) if isinstance(value, list) else str(value)


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("url", None, "Address of the served model.")
    flags.DEFINE_string("requests", None, "File with one JSON request per line.")
    flags.DEFINE_integer("line", 1, "Line of the request.", 1)
    flags.DEFINE_string("schema", "", "schema.json of the model, for the defaults in it.")
    flags.DEFINE_integer("candidates", 5, "How many candidates to show.", 1)
    flags.DEFINE_integer("events", 3, "How many events to show for each expert.", 0)
    flags.mark_flags_as_required(["url", "requests"])


def main() -> None:
    """Asks the model about one request and prints its explanation."""
    values = flags.FLAGS
    request, explanation = explain(values.url, values.requests, values.line, values.schema)
    sys.stdout.write(describe(request, explanation, values.candidates, values.events))


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__)


if __name__ == "__main__":
    console_main()
