"""What the pipelines of a build counted, read from their results as any user of Beam would."""

import collections
import contextlib

import apache_beam as beam
import pytest
from apache_beam.metrics import MetricsFilter

from pipeline.job.pieces import NAMESPACE


class Recorded:
    """Results of the pipelines that ran."""

    def __init__(self):
        self.results = []

    def _query(self, kind):
        of_ours = MetricsFilter().with_namespace(NAMESPACE)
        for result in self.results:
            for metric in result.metrics().query(of_ours)[kind]:
                yield metric.key.metric.name, metric.committed

    def counters(self):
        """Sum of each counter."""
        total = collections.Counter()
        for name, number in self._query("counters"):
            total[name] += number
        return dict(total)

    def pieces(self):
        """Number of values of each distribution."""
        total = collections.Counter()
        for name, distribution in self._query("distributions"):
            assert 0 <= distribution.min <= distribution.max <= distribution.sum
            total[name] += distribution.count
        return dict(total)


def of_manifest(manifest):
    """The counters as the manifest of a data set has them."""
    shards = [shard for split in manifest["splits"].values() for shard in split["shards"]]
    return {
        "rows_read": manifest["conservation"]["read"],
        "rows_rejected": sum(manifest["conservation"]["rejected"].values()),
        "requests_written": sum(split["requests"] for split in manifest["splits"].values()),
        "bytes_written": sum(shard["bytes"] for shard in shards),
    }


@contextlib.contextmanager
def recorded():
    """Within it the results of all pipelines are kept."""
    found, run = Recorded(), beam.Pipeline.run

    def noted(pipeline, *arguments, **options):
        result = run(pipeline, *arguments, **options)
        found.results.append(result)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beam.Pipeline, "run", noted)
        yield found
