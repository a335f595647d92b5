"""Generates a log of users with known interests, and tells the best AUC that any model can reach.

    python -m pipeline.synthesize --output=log.csv --users=2000 --items=500 --interests=10

The extension of --output chooses CSV (.csv), Parquet (.parquet) or JSON lines (.jsonl). The columns
are canonical: user_id, item_id, category_id, timestamp. What the log was drawn from is written to
OUTPUT.truth.json. The same flags give the same bytes.

How the log comes about. Every item belongs to one of G interests and to one of several categories
of that interest; neither ids nor categories tell which interest. A user u has theta_u ~
Dirichlet(a, ..., a). Every event draws an interest z ~ theta_u, independently of the events before
it, so that interests interleave, and then an item of interest z that the user has not had yet, with
probability proportional to (rank within the interest)^-s. As no user meets an item twice, "already
in the history" gives nothing away: it is true of no positive and of no negative.

Why the best scorer is known. Given the interests, the choice of items says nothing about theta_u,
so that theta_u integrates out (Dirichlet-multinomial). After a history of n events, n_k of them of
interest k, the next item is the unseen item c of interest k with probability

    p(c | history) = (n_k + a) / (n + G a) * w_c / (sum of w over the unseen items of interest k).

A negative drawn uniformly from the items other than the user's own is c with probability
(1 - p(c | history)) / (M - n - 1) if M items exist. The log of the ratio of both, a function of the
history and the candidate alone, has the largest AUC of all scorers (Neyman-Pearson lemma).

A log over days:

    python -m pipeline.synthesize --output=logs/day.csv --days=15 --drift=0.03

writes logs/day-01.csv to logs/day-15.csv. The first file holds the past, 15 days, each one after it
a day. Every day each user gets new interests with a chance of --drift, and each item leaves with
that chance; a new one takes its place: its interest, its category and its popularity. Users have
their events at any time of these days. What is the best scorer of such a log is not known, so that
there is no file with the truth.
"""

import contextlib
import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from absl import flags

from pipeline.synthetic import days
from pipeline.synthetic.days import DailyArguments
from pipeline.synthetic.drawing import (
    COLUMNS,
    DAY_SECONDS,
    draw_catalogue,
    draw_items,
    draw_within,
    event_table,
)
from pipeline.synthetic.truth import (
    Floats,
    Ints,
    SynthesizeArguments,
    Truth,
    contains,
    log_odds,
    pooled_auc,
)
from preprocessing import cli
from preprocessing.errors import UserError
from preprocessing.storage.files import require_local
from preprocessing.values.limits import with_limit

# Shapes: U users, E events, M items, G interests, C categories per interest,
#         B requests, N candidates per request, H history events of all requests.

_FIRST_TIMESTAMP = 1_700_000_000
_START_DAYS = 30  # users arrive within this period
_SCORED_USERS = 20_000  # users are exchangeable: so many make the error of the best AUC small


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SyntheticLog:
    """A drawn log, user by user and each user's events oldest first.

    Attributes:
        truth: The catalogue.
        theta_UG: Interests of each user; not written, as no scorer of histories may know them.
        user_E: User of each event.
        item_E: Item of each event.
        timestamp_E: Time of each event in seconds; increases strictly within a user.
    """

    truth: Truth
    theta_UG: Floats
    user_E: Ints
    item_E: Ints
    timestamp_E: Ints

    def table(self) -> pa.Table:
        """The log as it is written: in the order of time, with the canonical columns."""
        category_E = self.truth.category_M[self.item_E]
        return event_table(self.user_E, self.item_E, category_E, self.timestamp_E)


def synthesize(args: SynthesizeArguments) -> SyntheticLog:
    """Draws a log.

    Raises:
        UserError: `args` cannot be satisfied.
    """
    args.check()
    rng = np.random.default_rng(args.seed)
    truth = draw_catalogue(args, rng)
    theta_UG = rng.dirichlet(np.full(args.interests, args.concentration), args.users)
    length_U = rng.integers(args.shortest, args.longest, args.users, endpoint=True)
    user_E = np.repeat(np.arange(args.users), length_U)
    interest_E = draw_within(theta_UG.ravel(), np.full(args.users, args.interests), user_E, rng)
    interest_E -= user_E * args.interests
    gap_E = 1 + (DAY_SECONDS * rng.standard_exponential(len(user_E))).astype(np.int64)
    start_U = _FIRST_TIMESTAMP + rng.integers(0, _START_DAYS * DAY_SECONDS, args.users)
    elapsed_E = np.cumsum(gap_E)
    elapsed_before_U = (elapsed_E - gap_E)[np.cumsum(length_U) - length_U]
    always, same_day_E = np.arange(args.items)[None], np.zeros(len(user_E), np.int64)
    _, item_E = draw_items(truth, always, user_E, same_day_E, interest_E, rng)
    return SyntheticLog(
        truth=truth,
        theta_UG=theta_UG,
        user_E=user_E,
        item_E=item_E,
        timestamp_E=(start_U - elapsed_before_U)[user_E] + elapsed_E,
    )


def write(log: SyntheticLog, output: str | pathlib.Path) -> pathlib.Path:
    """Writes the log, and its truth beside it.

    Args:
        log: Log drawn by `synthesize`.
        output: Path to write, ending in .csv, .parquet or .jsonl.

    Returns:
        Path of the file with the truth: `output` + ".truth.json".

    Raises:
        UserError: The path has another extension, or cannot be written.
    """
    require_local(output, "--output")
    output = pathlib.Path(output)
    truth_path = output.with_name(f"{output.name}.truth.json")
    _write_table(log.table(), output)
    with _explained(output):
        log.truth.save(truth_path)
    return truth_path


def write_days(log: days.DailyLog, output: str | pathlib.Path) -> list[pathlib.Path]:
    """Writes a log over days.

    Args:
        log: Log drawn by `days.draw`.
        output: Path like those to write: `logs/day.csv` gives logs/day-01.csv, logs/day-02.csv, ...

    Returns:
        The paths.

    Raises:
        UserError: The path has another extension, or cannot be written.
    """
    require_local(output, "--output")
    output = pathlib.Path(output)
    num_files = int(log.file_E.max()) + 1
    width = max(2, len(str(num_files)))
    paths = [
        output.with_name(f"{output.stem}-{file + 1:0{width}d}{output.suffix}")
        for file in range(num_files)
    ]
    for file, path in enumerate(paths):
        _write_table(log.table(file), path)
    return paths


def _write_table(table: pa.Table, output: pathlib.Path) -> None:
    writer = _WRITERS.get(output.suffix)
    if writer is None:
        raise UserError(
            f"--output: expected a path ending in {', '.join(_WRITERS)}, found {str(output)!r}."
        )
    partial = output.with_name(f".{output.name}.partial")
    with _explained(output):
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                writer(table, file)
            os.replace(partial, output)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise


@contextlib.contextmanager
def _explained(output: pathlib.Path) -> Iterator[None]:
    """Makes an error of the file system one of `--output`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"--output: expected a path that can be written, found {str(output)!r}: {error}."
        ) from None


def best_auc(log: SyntheticLog, negatives: int = 100) -> tuple[float, float]:
    """The AUC that no model exceeds on the last event of each user, but for chance.

    Scores of all users are pooled, as for the AUC of a model. Several negatives per user estimate
    the AUC for one negative per user with less noise.

    Args:
        log: Log drawn by `synthesize`. At most 20,000 of its users are scored.
        negatives: Number N - 1 of negatives per user, drawn uniformly from the items that the user
            does not have.

    Returns:
        The AUC and its standard error over the draw of users.
    """
    args = log.truth.arguments
    chosen_E = log.user_E < _SCORED_USERS
    user_E, item_E = log.user_E[chosen_E], log.item_E[chosen_E]
    last_E = np.append(user_E[1:] != user_E[:-1], True)
    own_E = np.sort(user_E * args.items + item_E)
    rng = np.random.default_rng([args.seed, 1])  # another stream than that of the log
    user_BN = np.broadcast_to(np.arange(last_E.sum())[:, None], (last_E.sum(), negatives))
    negative_BN = rng.integers(0, args.items, user_BN.shape)
    while (own_BN := contains(own_E, user_BN * args.items + negative_BN)).any():
        negative_BN[own_BN] = rng.integers(0, args.items, own_BN.sum())
    score_BN = log_odds(
        log.truth,
        user_E[~last_E],
        item_E[~last_E],
        np.concatenate([item_E[last_E, None], negative_BN], axis=1),
    )
    return pooled_auc(score_BN[:, 0], score_BN[:, 1:])


def _write_csv(table: pa.Table, file: IO[bytes]) -> None:
    file.write(f"{','.join(COLUMNS)}\n".encode())
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="none")
    pyarrow.csv.write_csv(table, file, options)


def _write_jsonl(table: pa.Table, file: IO[bytes]) -> None:
    for batch in table.to_batches(max_chunksize=10_000):
        file.writelines(
            orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in batch.to_pylist()
        )


_WRITERS: dict[str, Callable[[pa.Table, IO[bytes]], None]] = {
    ".csv": _write_csv,
    ".parquet": pyarrow.parquet.write_table,
    ".jsonl": _write_jsonl,
}


_MEANINGS = {
    "users": "Number of users.",
    "items": "Number of items.",
    "interests": "Number of interests.",
    "events_per_user": "Mean events per user.",
    "seed": "Seed of everything random.",
}
"""Arguments that are flags, with their help texts."""


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("output", None, "Log to write: .csv, .parquet or .jsonl.", required=True)
    for name, meaning in _MEANINGS.items():
        default = getattr(SynthesizeArguments, name)
        flags.DEFINE_integer(name, default, with_limit(meaning, SynthesizeArguments, name))
    meaning = "Files of a log over days, the first of which holds the past; 0: one log, no days."
    flags.DEFINE_integer("days", DailyArguments.days, with_limit(meaning, DailyArguments, "days"))
    meaning = "Share of users and of items that change, every day of a log over days."
    flags.DEFINE_float("drift", DailyArguments.drift, with_limit(meaning, DailyArguments, "drift"))


def main() -> None:
    """Draws and writes a log and prints its size and its best reachable AUC."""
    values: dict[str, Any] = {name: flags.FLAGS[name].value for name in _MEANINGS}
    args = SynthesizeArguments(**values)
    daily = DailyArguments(days=flags.FLAGS.days, drift=flags.FLAGS.drift)
    daily.check()
    lines = _write_days(args, daily) if daily.days else _write_one(args)
    sys.stdout.write("\n".join(lines) + "\n")


def _write_one(args: SynthesizeArguments) -> list[str]:
    """Writes a log without days; returns lines for people."""
    log = synthesize(args)
    truth_path = write(log, flags.FLAGS.output)
    auc, error = best_auc(log)
    return [
        f"{args.users:,} users, {len(log.item_E):,} events, "
        f"{len(np.unique(log.item_E)):,} of {args.items:,} items",
        f"best reachable AUC (leave-last-out, 1 uniform negative): {auc:.3f} ± {error:.3f}",
        f"wrote {flags.FLAGS.output} and {truth_path}",
    ]


def _write_days(args: SynthesizeArguments, daily: DailyArguments) -> list[str]:
    """Writes a log over days; returns lines for people."""
    log = days.draw(args, daily)
    paths = write_days(log, flags.FLAGS.output)
    return [
        f"{args.users:,} users, {len(log.item_E):,} events, {len(np.unique(log.item_E)):,} items, "
        f"of which {args.items:,} at a time",
        f"wrote {paths[0]} to {paths[-1]}",
    ]


def console_main() -> None:
    """Entry point of ctr-synthesize."""
    define_flags()
    cli.run(main, __doc__)


if __name__ == "__main__":
    console_main()
