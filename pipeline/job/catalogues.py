"""The catalogues of a build: the items that the requests of each split draw negatives from.

Each bucket of items gives a part of each catalogue, in order, by whichever worker has it; the
driver merges the parts block by block.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.job.beam import beam
from pipeline.job.buckets import WriteBuckets
from pipeline.job.pieces import Pieces, piece_of_work
from pipeline.job.runner import mark_done
from pipeline.log import sorted_runs, tables
from pipeline.requests import by_bucket, counting, last_seen, tails
from pipeline.requests.by_bucket import Bucket
from pipeline.requests.events import Plan
from preprocessing import splits
from preprocessing.features.encoder_specs import Hash


class Catalogue(NamedTuple):
    """What the driver knows of a catalogue.

    Attributes:
        num_items: Number of its items.
        digest: Of what requests draw by: keys of items, or the places of their appearance.
    """

    num_items: int
    digest: str


def write(plan: Plan, stage: Callable[..., object]) -> list[Catalogue]:
    """Writes the catalogue of each split, and what positives alone contribute to training.

    Args:
        plan: Plan of a build that has counted its items.
        stage: Function that runs a pipeline.
    """
    buckets = by_bucket.buckets(plan)
    if not buckets:
        for split, rows in _catalogues(plan, None):
            tables.write(plan.catalogue(split), rows)
    else:
        construct = functools.partial(_in_buckets, plan)
        stage("Cataloguing", construct, watch=plan.work / "catalogued", total=len(buckets))
        for split in splits.SPLITS:
            paths = [by_bucket.catalogue(plan, split, bucket) for bucket in buckets]
            rows_in_order = sorted_runs.merged(paths, _order(plan))
            tables.write_pieces(plan.catalogue(split), rows_in_order)
    return [_describe(plan, split) for split in splits.SPLITS]


def _order(plan: Plan) -> sorted_runs.Order:
    return counting.catalogue_order(plan.schema.item_key.name, plan.arguments.draws_available)


def _describe(plan: Plan, split: str) -> Catalogue:
    names = [name for name, _ in _order(plan)]
    digest = hashlib.sha256()
    num_items = 0
    for piece in tables.read_pieces(plan.catalogue(split)):
        digest.update(tables.to_bytes(piece.select(names)))
        num_items += piece.num_rows
    return Catalogue(num_items, digest.hexdigest())


def _catalogues(plan: Plan, bucket: Bucket) -> Iterator[tuple[str, pa.Table]]:
    """Yields the name of each split with its catalogue, or a bucket of it.

    Expired items are in none: out of vocabulary and never clicked, they would be the only negatives
    of an id that new items have, too.
    """
    key = plan.schema.item_key
    if bucket is None:
        items = tables.read_buckets(plan.items, key.name)
    else:
        items = tables.read_bucket(plan.items, bucket)
    if plan.base is not None:
        items = tails.with_items_of_base(plan.base.items(), items, key.name)
    expired = last_seen.expired(plan, key)
    if expired is not None:
        items = items.filter(pc.invert(pc.is_in(items[key.name], value_set=expired)))
    for split, name in enumerate(splits.SPLITS):
        yield name, counting.catalogue(items, key.name, split)


def _in_buckets(plan: Plan, pipeline: beam.Pipeline) -> None:
    """Items to catalogues by bucket, and their features to `candidates/<feature>/*.arrow`."""
    buckets = by_bucket.buckets(plan)
    candidates = (
        pipeline | "Buckets" >> Pieces(buckets) | "Catalogue" >> beam.ParDo(_CatalogueBucket(plan))
    )
    path_of = functools.partial(by_bucket.candidates, plan)
    write_candidates = WriteBuckets(
        path_of, counting.merge_counts, counting.VALUE, plan.num_buckets
    )
    _ = candidates | "WriteCandidates" >> write_candidates


@beam.typehints.with_output_types(tuple[str, bytes])
class _CatalogueBucket(beam.DoFn):
    """Writes the part of each catalogue that a bucket of items gives.

    Emits (feature, table of counts): what the training catalogue gives to positives.

    Args:
        plan: Plan of a build that has counted its items.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def process(self, bucket: int) -> Iterator[Any]:
        """Writes one bucket."""
        return piece_of_work("catalogue", self._plan.work, lambda: self._write(bucket))

    def _write(self, bucket: int) -> Iterator[tuple[str, bytes]]:
        plan = self._plan
        for split, rows in _catalogues(plan, bucket):
            sorted_runs.write(by_bucket.catalogue(plan, split, bucket), rows, plan.num_buckets)
            if split != splits.SPLITS[splits.TRAIN]:
                continue
            for feature in plan.schema.item_features:
                if not isinstance(feature.encoder, Hash):
                    counts = counting.candidate_values(rows, feature)
                    yield feature.name, tables.to_bytes(counting.merge_counts(counts))
        mark_done(plan.work / "catalogued", str(bucket))
