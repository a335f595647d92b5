"""`models.train` that records how many requests this process scores, in batches of a given size.

    python -m tests.helpers.scoring_worker RECORD.json 16 --data=DATA …

RECORD.json has the number of requests of each batch that was scored.
"""

import json
import pathlib
import sys

from models import train
from models.evaluation import scoring
from models.evaluation.scoring import Scorer
from models.training import days


def main() -> None:
    """Trains as the flags after the first two arguments say."""
    record = pathlib.Path(sys.argv.pop(1))
    scoring.BATCH_SIZE = days.BATCH_SIZE = int(sys.argv.pop(1))
    sizes = []
    collect = Scorer._collect

    def counting(scorer, features, logits):
        sizes.append(int(logits.shape[0]))
        record.write_text(json.dumps(sizes))
        return collect(scorer, features, logits)

    record.write_text("[]")
    Scorer._collect = counting
    train.console_main()


if __name__ == "__main__":
    main()
