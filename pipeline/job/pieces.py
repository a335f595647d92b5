"""A piece of work in a worker: what it counts for the runner, and what becomes of a mistake.

Pieces are large (a part of a file, a partition of users, a shard), and each counts once: nothing is
counted row by row. The runner adds the numbers up over all workers and shows them in its own way;
docs/operations.md lists them.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from apache_beam.metrics import Metrics

from pipeline.job import mistakes
from pipeline.job.beam import beam
from preprocessing.errors import UserError
from preprocessing.storage.files import AnyPath

NAMESPACE = "sequence_ctr"
ROWS_READ, ROWS_REJECTED = "rows_read", "rows_rejected"
REQUESTS_WRITTEN, BYTES_WRITTEN = "requests_written", "bytes_written"
_LOOK_SECONDS = 1.0
_Output = TypeVar("_Output")
_Piece = TypeVar("_Piece")


class Pieces(beam.PTransform, Generic[_Piece]):
    """Pieces of work, each for whichever worker has time: what `beam.Create` and a reshuffle give.

    That takes eight steps and this five, and each takes its time however small the log is.

    Args:
        pieces: The pieces.
    """

    def __init__(self, pieces: Sequence[_Piece]) -> None:
        super().__init__()
        self._numbered = list(enumerate(pieces))

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[_Piece]:
        """Groups the pieces by their numbers, after which each may go to another worker."""
        return (
            pipeline
            | "Create" >> beam.Create(self._numbered, reshuffle=False)
            | "Deal" >> beam.GroupByKey()
            | "Pieces" >> beam.FlatMap(_pieces)
        )


def piece_of_work(
    kind: str, work: AnyPath, do: Callable[[], Iterable[_Output]]
) -> Iterator[_Output]:
    """Does a piece of work and times it; a user's mistake in it, or in another one, ends it.

    Args:
        kind: Kind of the piece; the distribution is `<kind>_milliseconds`.
        work: Work directory of the build.
        do: Function that does it.

    Yields:
        What `do` yields.

    Raises:
        UserError: `do` raised one that another attempt may mend.
    """
    if mistakes.is_reported(work):
        return
    start = looked = time.perf_counter()
    try:
        for output in do():
            yield output
            if time.perf_counter() - looked > _LOOK_SECONDS:
                if mistakes.is_reported(work):
                    return
                looked = time.perf_counter()
    except UserError as error:
        if mistakes.report(work, error):
            return
        raise
    milliseconds = round(1000 * (time.perf_counter() - start))
    Metrics.distribution(NAMESPACE, f"{kind}_milliseconds").update(milliseconds)


def count(numbers: Mapping[str, int]) -> None:
    """Adds to counters of the runner, by name."""
    for name, number in numbers.items():
        Metrics.counter(NAMESPACE, name).inc(number)


def count_rows(counters: Mapping[str, int]) -> None:
    """Adds the rows of a piece to the counters of the runner.

    Args:
        counters: The job's own counters of that piece.
    """
    rejected = sum(n for name, n in counters.items() if name.startswith("rejected/"))
    count({ROWS_READ: counters.get("read", 0), ROWS_REJECTED: rejected})


def _pieces(numbered: tuple[int, Iterable[_Piece]]) -> Iterable[_Piece]:
    return numbered[1]
