"""A build that was cut off goes on with the step that it was at, and ends in the same bytes."""

import hashlib
import os
import pathlib
import time

import pytest

from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from pipeline.job import build, pipelines
from pipeline.job.output import OtherBuildError
from pipeline.job.reading import RejectedFile
from preprocessing.errors import UserError
from tests.helpers.inline_runner import inline
from tests.helpers.small_logs import columns, random_events, write_log

KINDS = {
    "filters": {"min_item_events": 2, "min_user_events": 2},
    "core": {"min_item_events": 2, "min_user_events": 2, "core_filter": "fixed_point"},
    "time split": {"protocol": "time_split"},
    "time split of frequent items": {"protocol": "time_split", "min_item_events": 2},
    "available": {"negative_sampling": "available_popularity", "negatives": 3},
}
STAGES = {
    "filters": ["Reading", "Counting values", "Writing"],
    "core": ["Reading", "Filtering, round 1", "Counting values", "Writing"],
    "time split": ["Reading", "Counting values", "Writing"],
    "time split of frequent items": ["Reading", "Counting times", "Counting values", "Writing"],
    "available": ["Reading", "Counting values", "Counting values", "Writing"],
}


@pytest.fixture
def log(tmp_path):
    return write_log(tmp_path / "log.csv", columns(random_events(users=15)))


def _arguments(log, output, kind="filters", **more):
    return BuildArguments(
        input=str(log), output=str(output), num_shards=2, num_partitions=3, **KINDS[kind], **more
    )


def _content(output):
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in pathlib.Path(output).rglob("*")
        if path.is_file() and path.name != "manifest.json"  # it names the log
    }


class CutError(Exception):
    """What ends a build in these tests, as a fault of the machine would."""


class _Stages:
    """Notes the stages that run, and cuts the build off before or after one of them."""

    def __init__(self, monkeypatch, before=None, after=None):
        run_stage, self.titles = build.run_stage, []

        def noted(title, *arguments, **options):
            self.titles.append(title)
            if len(self.titles) == before:
                raise CutError
            run_stage(title, *arguments, **options)
            if len(self.titles) == after:
                raise CutError

        monkeypatch.setattr(build, "run_stage", noted)


def _cut_off(arguments, **place):
    with pytest.MonkeyPatch.context() as patch:
        _Stages(patch, **place)
        with pytest.raises(CutError):
            build_examples(arguments)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_finished_step_is_repeated(log, tmp_path, kind, when):
    with inline():
        with pytest.MonkeyPatch.context() as patch:
            titles = _Stages(patch).titles
            build_examples(_arguments(log, tmp_path / "whole", kind))
        assert [title for title in STAGES[kind] if title not in titles] == []
        steps = [title.split(",")[0] for title in titles]  # several stages may be one step
        for place, step in enumerate(steps, 1):
            output = tmp_path / f"cut-{place}"
            _cut_off(_arguments(log, output, kind), **{when: place})
            assert not (output / "_COMPLETED").exists()
            (output / ".train-00000-of-00002.tfrecord.gz.0a1b.tmp").touch()
            (output / "vocab").mkdir(exist_ok=True)
            (output / "vocab" / ".item_id.txt.0a1b.tmp").touch()
            with pytest.MonkeyPatch.context() as patch:
                resumed = _Stages(patch).titles
                build_examples(_arguments(log, output, kind, resume=True))
            assert resumed == titles[steps.index(step) :]
            assert _content(output) == _content(tmp_path / "whole")


def test_another_build_is_not_mixed_with_what_is_left(log, tmp_path):
    with inline():
        _cut_off(_arguments(log, tmp_path / "data"), before=2)
        with pytest.raises(OtherBuildError, match="seed was 1, is 2. Fix: give the arguments of"):
            build_examples(_arguments(log, tmp_path / "data", seed=2, resume=True))
        os.utime(log, ns=(1, 1))
        with pytest.raises(OtherBuildError, match=r"log was \{.*, 1\]\}"):
            build_examples(_arguments(log, tmp_path / "data", resume=True))
        # Without --resume everything is done anew.
        with pytest.MonkeyPatch.context() as patch:
            stages = _Stages(patch)
            build_examples(_arguments(log, tmp_path / "data", seed=2))
        assert stages.titles[0] == "Reading"


def test_nothing_is_resumed_where_nothing_is_left(log, tmp_path, capsys):
    arguments = _arguments(log, tmp_path / "data", resume=True)
    with inline():
        build_examples(arguments)
        with pytest.MonkeyPatch.context() as patch:
            stages = _Stages(patch)
            data = build_examples(arguments)
        assert stages.titles == []
        assert data.num_requests("train") > 0
        assert "is complete: nothing to resume." in capsys.readouterr().err
        with pytest.raises(UserError, match="found a complete one. Fix: .*--overwrite"):
            build_examples(_arguments(log, tmp_path / "data", seed=2, resume=True))
        later = time.time_ns() + 10**10
        os.utime(log, ns=(later, later))  # a log of the same size that was changed since
        with pytest.raises(UserError, match="found a complete one. Fix: .*--overwrite"):
            build_examples(arguments)


def test_what_the_log_is_to_blame_for_leaves_nothing_to_resume(log, tmp_path):
    arguments = BuildArguments(input=str(log), output=str(tmp_path / "data"), min_user_events=1000)
    with inline(), pytest.raises(UserError):
        build_examples(arguments)
    assert not (tmp_path / "data" / "_work").exists()


def test_a_failed_stage_says_how_to_go_on(log, tmp_path, monkeypatch):
    def broken(*args):
        raise ArithmeticError("overflow")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines, "fit", broken)
        with pytest.raises(UserError, match="only parts of one, with which --resume goes on"):
            build_examples(_arguments(log, tmp_path / "data"))
    stages = _Stages(monkeypatch)
    build_examples(_arguments(log, tmp_path / "data", resume=True))
    assert stages.titles == ["Counting values", "Writing"]


def test_a_second_attempt_that_is_cancelled_leaves_the_rows_that_the_first_rejected(tmp_path):
    path = tmp_path / "part-00000.jsonl"
    with RejectedFile(path) as first:
        first.write({"line": 3})
    second = RejectedFile(path)
    second.__enter__()
    second.write({"line": 3})
    second.__exit__(CutError, CutError(), None)
    assert path.read_text() == '{"line": 3}\n'
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
