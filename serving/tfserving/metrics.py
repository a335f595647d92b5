"""Counters and histograms under the names of TensorFlow Serving, and their Prometheus page.

Names keep TensorFlow's paths, in which Prometheus allows no slash: `/tensorflow/serving/x` is
written `:tensorflow:serving:x`.
"""

import bisect
import dataclasses
import itertools
import re
import threading
from collections.abc import Iterable, Iterator

from serving.tfserving.status import Code

_LATENCY_BOUNDS = tuple(10 * 1.8**k for k in range(33))
"""Upper bounds of the buckets in microseconds."""
_EXAMPLE_BOUNDS = tuple(float(2**k) for k in range(15))
_QUEUEING_BOUNDS = tuple(100 * 1.2**k for k in range(52))
"""Upper bounds of the buckets in microseconds."""

_MAX_SERIES = 1000
"""Largest number of series of a counter, as clients could fill the memory with invented names.

Further names count under "".
"""

_Labels = tuple[str, ...]


@dataclasses.dataclass
class _Counter:
    labels: _Labels
    values: dict[_Labels, int] = dataclasses.field(default_factory=dict)
    kind = "counter"

    def add(self, labels: _Labels, amount: int) -> None:
        if labels not in self.values and len(self.values) >= _MAX_SERIES:
            labels = ("", *labels[1:])
        self.values[labels] = self.values.get(labels, 0) + amount

    def lines(self, name: str) -> Iterator[str]:
        for labels, value in self.values.items():
            yield f"{name}{_braces(zip(self.labels, labels, strict=True))} {value}"


@dataclasses.dataclass
class _Series:
    """Observations of a histogram under one set of labels; the last count is above all bounds."""

    counts: list[int]
    total: float = 0.0


@dataclasses.dataclass
class _Histogram:
    labels: _Labels
    bounds: tuple[float, ...]
    values: dict[_Labels, _Series] = dataclasses.field(default_factory=dict)
    kind = "histogram"

    def observe(self, labels: _Labels, value: float) -> None:
        series = self.values.get(labels)
        if series is None:
            series = self.values[labels] = _Series([0] * (len(self.bounds) + 1))
        # A value equal to a bound belongs below it: "le" means less or equal.
        series.counts[bisect.bisect_left(self.bounds, value)] += 1
        series.total += value

    def lines(self, name: str) -> Iterator[str]:
        texts = [f"{bound:.6g}" for bound in self.bounds] + ["+Inf"]
        for labels, series in self.values.items():
            named = list(zip(self.labels, labels, strict=True))
            for text, count in zip(texts, itertools.accumulate(series.counts), strict=True):
                yield f"{name}_bucket{_braces([*named, ('le', text)])} {count}"
            yield f"{name}_sum{_braces(named)} {series.total:.15g}"
            yield f"{name}_count{_braces(named)} {sum(series.counts)}"


class Metrics:
    """Counters and histograms of one server. Safe to use from any thread.

    Args:
        batching: Whether the page has the series about batches.
    """

    def __init__(self, batching: bool = False) -> None:
        self._lock = threading.Lock()
        self._request_count = _Counter(("model_name", "status"))
        call = ("model_name", "API")
        self._request_latency = _Histogram((*call, "entrypoint"), _LATENCY_BOUNDS)
        self._runtime_latency = _Histogram((*call, "runtime"), _LATENCY_BOUNDS)
        self._example_counts = _Histogram(("model",), _EXAMPLE_BOUNDS)
        self._example_total = _Counter(("model",))
        warmup = ("model_path", "status")
        self._warmup_latency = _Histogram(warmup, _LATENCY_BOUNDS)
        self._warmup_records = _Counter(warmup)
        self._queueing_latency = _Histogram(("thread_pool_name",), _QUEUEING_BOUNDS)
        self._batch_count = _Counter(())
        self._families: dict[str, _Counter | _Histogram] = {
            "/tensorflow/serving/request_count": self._request_count,
            "/tensorflow/serving/request_latency": self._request_latency,
            "/tensorflow/serving/runtime_latency": self._runtime_latency,
            "/tensorflow/serving/request_example_counts": self._example_counts,
            "/tensorflow/serving/request_example_count_total": self._example_total,
            "/tensorflow/serving/model_warmup_latency": self._warmup_latency,
            "/tensorflow/serving/model_warmup_records_read": self._warmup_records,
        }
        if batching:
            self._families |= {
                "/tensorflow/serving/batching_session/queuing_latency": self._queueing_latency,
                "/tensorflow/serving/batching_session/wrapped_run_count": self._batch_count,
            }

    def count_request(self, model: str, code: Code) -> None:
        """Counts an answer; `model` is "" if the path named none."""
        with self._lock:
            self._request_count.add((model, code.name), 1)

    def observe_latency(self, model: str, api: str, entrypoint: str, microseconds: float) -> None:
        """Records the latency of a successful request.

        Args:
            model: Name of the model.
            api: The call as the entry point spells it: "predict" over REST, "Predict" over gRPC.
            entrypoint: Interface of the request, "REST" or "GRPC".
            microseconds: Time from the request's arrival to its answer.
        """
        with self._lock:
            self._request_latency.observe((model, api, entrypoint), microseconds)

    def observe_runtime(self, model: str, api: str, microseconds: float) -> None:
        """Records the time of TensorFlow itself for a call ("Predict", "Classify", "Regress")."""
        with self._lock:
            self._runtime_latency.observe((model, api, "TF1"), microseconds)

    def count_examples(self, model: str, number: int) -> None:
        """Records the number of examples in a request, which is its dimension 0."""
        with self._lock:
            self._example_counts.observe((model,), number)
            self._example_total.add((model,), number)

    def warmup(self, model_path: str, code: Code, microseconds: float, records: int) -> None:
        """Records a replay of a version's warm-up requests."""
        with self._lock:
            self._warmup_latency.observe((model_path, code.name), microseconds)
            self._warmup_records.add((model_path, code.name), records)

    def observe_queueing(self, thread_pool_name: str, microseconds: float) -> None:
        """Records how long a request waited for its batch."""
        with self._lock:
            self._queueing_latency.observe((thread_pool_name,), microseconds)

    def count_batch(self) -> None:
        """Counts a computed batch."""
        with self._lock:
            self._batch_count.add((), 1)

    def page(self) -> str:
        """All series in Prometheus' text format."""
        with self._lock:
            lines = [
                line
                for path, family in self._families.items()
                for name in [re.sub(r"[^A-Za-z0-9_]", ":", path)]
                for line in (f"# TYPE {name} {family.kind}", *family.lines(name))
            ]
        return "\n".join(lines) + "\n"


def _braces(labels: Iterable[tuple[str, str]]) -> str:
    pairs = ",".join(f'{name}="{_escape(value)}"' for name, value in labels)
    return f"{{{pairs}}}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
