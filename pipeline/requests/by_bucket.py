"""Files of a build that hold one bucket of values each, so that nothing has to hold all values.

A log of few partitions has one bucket. Then, and if a build joins its counts with those of other
data sets, which are not in buckets, values are handled all at once; `buckets` says so.
"""

from pipeline.log import tables
from pipeline.requests.events import Plan
from preprocessing.storage.files import AnyPath

Bucket = int | None
"""Number of a bucket; None for all of them."""


def buckets(plan: Plan) -> list[int]:
    """The buckets whose values are handled one by one; none if all are handled at once."""
    arguments = plan.arguments
    joins = plan.base is not None or arguments.vocabularies is not None or arguments.expire_days
    return [] if joins or plan.num_buckets == 1 else list(range(plan.num_buckets))


def catalogue(plan: Plan, split: str, bucket: Bucket) -> AnyPath:
    """Items of a bucket from which the requests of a split draw, see `Plan.catalogue`."""
    if bucket is None:
        return plan.catalogue(split)
    return tables.bucket_path(plan.work / "catalogues" / split, bucket)


def candidates(plan: Plan, feature: str) -> AnyPath:
    """Buckets of the values of an item feature that positives alone contribute to training."""
    return plan.work / "candidates" / feature


def training_values(plan: Plan, feature: str, bucket: int) -> AnyPath:
    """Values of a bucket that training requests hold, by value."""
    return tables.bucket_path(plan.work / "training_values" / feature, bucket)


def words(plan: Plan, feature: str, bucket: int) -> AnyPath:
    """Words of a vocabulary that are in a bucket, in the order of their ids."""
    return tables.bucket_path(plan.work / "words" / feature, bucket)
