"""What a worker needs before its first request: vocabularies and items to draw from, once loaded.

    python -m tests.scale.worker_setup ITEMS

prints seconds of processor time and bytes of memory at the highest, for each item and user.
"""

import json
import pathlib
import resource
import sys
import tempfile
import time

import numpy as np
import psutil
import pyarrow as pa

from pipeline.arguments import BuildArguments
from pipeline.requests.counting import COUNT
from pipeline.requests.encoding import RequestEncoder, load_encoders
from pipeline.requests.events import Plan
from preprocessing.encoders import encoder_files
from preprocessing.schema_inference import infer_schema
from preprocessing.values.value_places import ValuePlaces

from . import generated

_LOOKED_UP = 1000


def main(items: int) -> None:
    """Loads what a worker loads and looks a few values up."""
    schema = infer_schema(["user_id", "item_id", "category_id", "timestamp"])
    users = items * generated.EVENTS_PER_ITEM // generated.EVENTS_PER_USER
    sizes = {"user_id": users, "item_id": items, "category_id": generated.CATEGORIES}
    values = {
        name: generated.named(name[0], np.arange(size)).cast(pa.large_string())
        for name, size in sizes.items()
    }
    with tempfile.TemporaryDirectory() as directory:
        for feature in schema.encoded_features:
            encoder_files.write_words(feature, [values[feature.name]], directory)
        places = np.arange(items) % generated.CATEGORIES
        catalogue = pa.table(
            {
                "item_id": values["item_id"],
                "category_id": values["category_id"].take(pa.array(places)),
                COUNT: np.ones(items, np.int64),
            }
        )
        process, start = psutil.Process(), time.process_time()
        memory = process.memory_info().rss
        encoders = load_encoders(schema, pathlib.Path(directory), dict.fromkeys(sizes, {}))
        plan = Plan(BuildArguments(input="", output=directory), schema, 1)
        universe = ValuePlaces(values["item_id"])
        kept = [RequestEncoder(plan, encoders, [catalogue] * 3), universe]
        universe.find(values["item_id"][:_LOOKED_UP])
        for name, encoder in encoders.items():
            encoder.encode(values[name][:_LOOKED_UP])
        seconds = (time.process_time() - start) / (items + users)
        highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        bytes_per_value = (highest - memory) / (items + users)
    assert kept
    sys.stdout.write(json.dumps([seconds, bytes_per_value]))


if __name__ == "__main__":
    main(int(sys.argv[1]))
