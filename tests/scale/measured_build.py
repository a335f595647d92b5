"""A build that notes what each of its stages costs, in a process of its own.

    python -m tests.scale.measured_build ARGUMENTS.json NOTES.jsonl

Each stage adds a line to the notes when it ends, and the driver one for what it did before; a build
that is resumed goes on with both. What is noted: seconds of processor time and by the clock, tables
of counts and their bytes, references to parts of files, files written with their bytes, files
opened, and the highest memory of the process so far.
"""

import collections
import contextlib
import json
import pathlib
import resource
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from pipeline.job import build
from pipeline.log import tables
from preprocessing.storage import files

DRIVER = "Driver"


class _Notes:
    """Counts what happens, and writes it down stage by stage."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._counts: collections.Counter[str] = collections.Counter()
        self._started = time.process_time(), time.perf_counter()

    def count(self, **numbers: int) -> None:
        with self._lock:
            self._counts.update(numbers)

    def end(self, stage: str) -> None:
        cpu, clock = self._started
        note = {
            "stage": stage,
            "cpu_seconds": time.process_time() - cpu,
            "clock_seconds": time.perf_counter() - clock,
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            **self._counts,
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(note) + "\n")
        self._begin()


def main(arguments: dict[str, Any], notes_path: pathlib.Path) -> None:
    """Builds and notes."""
    notes = _Notes(notes_path)
    _watch_stages(notes)
    _watch_tables(notes)
    _watch_files(notes)
    build_examples(BuildArguments(**arguments, resume=True))
    notes.end(DRIVER)


def _watch_stages(notes: _Notes) -> None:
    run_stage = build.run_stage

    def watched(title: str, *arguments: Any, **options: Any) -> float:
        notes.end(DRIVER)
        seconds = run_stage(title, *arguments, **options)
        notes.end(title)
        return seconds

    build.run_stage = watched


def _watch_tables(notes: _Notes) -> None:
    to_bytes, write_parts = tables.to_bytes, tables.write_parts

    def watched_to_bytes(table: Any) -> bytes:
        data = to_bytes(table)
        notes.count(tables=1, table_bytes=len(data))
        return data

    def watched_write_parts(path: Any, parts: Any) -> Any:
        references = write_parts(path, parts)
        notes.count(references=len(references))
        return references

    tables.to_bytes = watched_to_bytes
    tables.write_parts = watched_write_parts


def _watch_files(notes: _Notes) -> None:
    create, random_access = files.create, files.random_access

    @contextlib.contextmanager
    def watched_create(target: Any) -> Iterator[Any]:
        with create(target) as file:
            yield file
            notes.count(files_written=1, written_bytes=file.tell())

    def watched_random_access(source: Any) -> Any:
        notes.count(files_opened=1)
        return random_access(source)

    files.create = watched_create  # type: ignore[assignment]
    files.random_access = watched_random_access


if __name__ == "__main__":
    main(json.loads(pathlib.Path(sys.argv[1]).read_text()), pathlib.Path(sys.argv[2]))
