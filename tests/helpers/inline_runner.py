"""Runs the transforms of our jobs at once, in one thread, in an order that a seed chooses.

Beam's embedded runner takes half a second per job, mostly for bookkeeping; property tests need
hundreds. Here elements of a collection come in random order, groups are put together in random
order, and combiners get random groupings, which is all that a runner is free to do.
"""

import contextlib
import pathlib
import pickle
import random

import apache_beam as beam
import pytest
from apache_beam.transforms.core import _MultiParDo

from pipeline.job import build, mistakes

_PRIMITIVES = (
    beam.Create,
    beam.Flatten,
    beam.ParDo,
    beam.GroupByKey,
    beam.CombineGlobally,
    beam.CombinePerKey,
)
"""What is run here; transforms of ours consist of these."""


class _Collection(beam.pvalue.PValue):
    def __init__(self, pipeline, elements):
        self.pipeline = pipeline
        self.elements = elements

    def __or__(self, transform):
        return self.pipeline.apply(transform, self)


class _Outputs(dict):
    def __getattr__(self, tag):
        return self[tag]


class LargeElementError(Exception):
    """An element is larger than a runner may take."""


class _Pipeline(beam.pvalue.PValue):
    def __init__(self, seed, most_bytes=None):
        self._random = random.Random(seed)
        self._most_bytes = most_bytes
        self.pipeline = self
        self.runner = None

    def __or__(self, transform):
        return self.apply(transform, self)

    def apply(self, transform, source, label=None):
        if isinstance(transform, beam.transforms.ptransform._NamedPTransform):
            transform = transform.transform
        if isinstance(transform, _MultiParDo):
            tagged = {transform._main_tag: [], **{tag: [] for tag in transform._tags}}
            for out in self._pardo(transform._do_transform, source.elements):
                if isinstance(out, beam.pvalue.TaggedOutput):
                    tagged[out.tag].append(out.value)
                else:
                    tagged[transform._main_tag].append(out)
            return _Outputs({tag: self._collection(some) for tag, some in tagged.items()})
        if not isinstance(transform, _PRIMITIVES):
            return transform.expand(source)
        return self._collection(self._elements(transform, source))

    def _elements(self, transform, source):
        if isinstance(transform, beam.Create):
            return list(transform.values)
        if isinstance(transform, beam.Flatten):
            return [element for some in source for element in some.elements]
        if isinstance(transform, beam.ParDo):
            return list(self._pardo(transform, source.elements))
        if isinstance(transform, beam.GroupByKey):
            return self._grouped(source.elements)
        if isinstance(transform, beam.CombineGlobally):
            elements = source.elements
            return [self._combined(transform.fn, elements)] if elements else []
        groups = self._grouped(source.elements)
        return [(key, self._combined(transform.fn, values)) for key, values in groups]

    def _collection(self, elements):
        for element in elements:
            self._check_size(element)
        self._random.shuffle(elements)
        return _Collection(self, elements)

    def _pardo(self, pardo, elements):
        pardo.fn.setup()
        for element in elements:
            yield from pardo.fn.process(element, *pardo.args, **pardo.kwargs) or ()

    def _grouped(self, elements):
        groups = {}
        for key, value in elements:
            groups.setdefault(key, []).append(value)
        return list(groups.items())

    def _combined(self, fn, values):
        """Adds values to one of a few accumulators each, then merges these."""
        if not isinstance(fn, beam.CombineFn):
            fn = beam.transforms.core.CallableWrapperCombineFn(fn)
        accumulators = [fn.create_accumulator() for _ in range(self._random.randint(1, 3))]
        for value in values:
            place = self._random.randrange(len(accumulators))
            accumulators[place] = fn.add_input(accumulators[place], value)
        accumulators = [fn.compact(accumulator) for accumulator in accumulators]
        for accumulator in accumulators:
            self._check_size(accumulator)
        return fn.extract_output(fn.merge_accumulators(accumulators))

    def _check_size(self, element):
        """Raises `LargeElementError` on an element too large to be sent to another worker."""
        if self._most_bytes is not None and (size := len(pickle.dumps(element))) > self._most_bytes:
            raise LargeElementError(f"{size} bytes: {str(element)[:200]}")


@contextlib.contextmanager
def inline(seed=0, most_bytes=None):
    """Within it `build_examples` runs its stages here, in the order that the seed chooses.

    No element, group or accumulator may then have more than `most_bytes` bytes, if that is given.
    """

    def run_stage(title, construct, watch: pathlib.Path, **_):
        watch.mkdir(parents=True, exist_ok=True)
        construct(_Pipeline(f"{seed} {title}", most_bytes))
        mistakes.check(watch.parent)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "run_stage", run_stage)
        yield
