"""A mistake that a worker finds reaches the driver, and no runner repeats it."""

import pytest

from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from pipeline.job import mistakes
from pipeline.job.pieces import piece_of_work
from preprocessing.errors import UserError
from tests.helpers.beam_metrics import recorded
from tests.helpers.damaged_logs import damaged_parquet


def _finds(error):
    yield 1
    raise error


def test_a_mistake_is_told_in_full_and_other_work_is_passed_over(tmp_path):
    error = UserError("Expected é, found nothing.", "mend that line.")
    assert list(piece_of_work("read", tmp_path, lambda: _finds(error))) == [1]
    assert list(piece_of_work("read", tmp_path, lambda: _finds(ValueError()))) == []
    with pytest.raises(UserError, match=r"^Expected é, found nothing\. Fix: mend that line\.$"):
        mistakes.check(tmp_path)
    mistakes.forget(tmp_path)
    mistakes.forget(tmp_path)
    mistakes.check(tmp_path)


def test_work_in_progress_looks_for_mistakes_too(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.job.pieces._LOOK_SECONDS", 0.0)
    done = []
    for number in piece_of_work("read", tmp_path, lambda: range(5)):
        done.append(number)
        if number == 2:
            mistakes.report(tmp_path, UserError("Expected a column."))
    assert done == [0, 1, 2]


def test_what_another_attempt_may_mend_fails(tmp_path):
    for text, cause in (
        ("Expected access to s3://logs.", OSError("AWS Error NETWORK_CONNECTION")),
        ("Expected access to /mnt/logs.", OSError(116, "Stale file handle")),
    ):
        error = UserError(text)
        error.__cause__ = cause
        with pytest.raises(UserError, match="Expected access"):
            list(piece_of_work("read", tmp_path, lambda error=error: _finds(error)))
    (tmp_path / "file").write_text("")
    assert not mistakes.report(tmp_path / "file", UserError("Expected a column."))
    mistakes.check(tmp_path)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_job_ends_without_a_failure_and_the_build_with_one_line(tmp_path, workers):
    arguments = BuildArguments(
        input=damaged_parquet(tmp_path),
        output=str(tmp_path / "data"),
        beam_options=(f"--direct_num_workers={workers}", "--direct_running_mode=multi_threading"),
    )
    with (
        recorded() as found,
        pytest.raises(UserError, match=r"^--input: expected parquet in .*, found it unreadable"),
    ):
        build_examples(arguments)
    assert [result.state for result in found.results] == ["DONE"]
    assert not (tmp_path / "data" / "_work").exists()
