"""A mistake that a worker reports ends the job at once, whatever the runner would try again."""

import threading

from pipeline.job import mistakes
from preprocessing.errors import UserError


class _Pipeline:
    """A pipeline that runs until it is cancelled."""

    def __init__(self):
        self.is_cancelled = threading.Event()

    def cancel(self):
        self.is_cancelled.set()
        raise RuntimeError("it has ended by itself")  # as a runner may say, which is no failure


def test_a_reported_mistake_cancels_the_pipeline_and_is_told_in_full(tmp_path):
    pipeline = _Pipeline()
    with mistakes.ends_job(pipeline, tmp_path):
        assert not pipeline.is_cancelled.wait(1.5)
        mistakes.report(tmp_path, UserError("Expected é, found nothing.", "mend that line."))
        assert pipeline.is_cancelled.wait(30)
    assert str(mistakes.reported(tmp_path)) == "Expected é, found nothing. Fix: mend that line."
    mistakes.forget(tmp_path)
    mistakes.forget(tmp_path)
    assert mistakes.reported(tmp_path) is None


def test_what_another_attempt_may_mend_is_not_reported(tmp_path):
    for text, cause in (
        ("Expected access to s3://logs.", OSError("AWS Error NETWORK_CONNECTION")),
        ("Expected access to /mnt/logs.", OSError(116, "Stale file handle")),
    ):
        error = UserError(text)
        error.__cause__ = cause
        mistakes.report(tmp_path, error)
        assert mistakes.reported(tmp_path) is None
    error = UserError("Expected Parquet in /mnt/logs.")
    error.__cause__ = OSError("Corrupt snappy compressed data.")
    mistakes.report(tmp_path, error)
    assert str(mistakes.reported(tmp_path)) == "Expected Parquet in /mnt/logs."


def test_a_mistake_that_cannot_be_reported_is_raised_all_the_same(tmp_path):
    mistakes.report(tmp_path / "log.csv" / "no directory", UserError("Expected a column."))
    (tmp_path / "file").write_text("")
    mistakes.report(tmp_path / "file", UserError("Expected a column."))
