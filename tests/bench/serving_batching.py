"""Whether batching helps when many clients ask for little: one candidate each."""

import pathlib
import statistics
import tempfile

from . import serving_model
from .figures import Figure

_CLIENTS = 32
_ROUNDS = 5
_PARAMETERS = """
max_batch_size { value: 16 }
batch_timeout_micros { value: 0 }
max_enqueued_batches { value: 100 }
num_batch_threads { value: 2 }
"""


def measure(quick: bool) -> list[Figure]:
    """Requests per second of a server with and one without --enable_batching, in turns."""
    model = serving_model.exported(quick)
    body, seconds = model.body(1), 0.5 if quick else 3.0
    threads = f"--rest_api_num_threads={_CLIENTS}"
    with tempfile.NamedTemporaryFile("w", suffix=".config") as file:
        pathlib.Path(file.name).write_text(_PARAMETERS)
        batching = ["--enable_batching", f"--batching_parameters_file={file.name}"]
        with (
            serving_model.server(model, [threads, *batching]) as (batched, _),
            serving_model.server(model, [threads]) as (plain, _),
        ):
            rates: dict[str, list[float]] = {batched: [], plain: []}
            for _ in range(_ROUNDS):
                for url, found in rates.items():
                    found.append(serving_model.answers_per_second(url, body, seconds, _CLIENTS))
    ours, baseline = rates.values()
    return [
        Figure(
            name="server_batching",
            value=max(ours) / max(baseline),
            median=statistics.median(ours) / statistics.median(baseline),
            unit="times the requests per second of the baseline",
            target=None,
            baseline=f"without batching; {_CLIENTS} clients, 1 candidate each",
            detail=f"{max(ours):.0f}/s : {max(baseline):.0f}/s",
        )
    ]
