"""pipeline.infer_schema: from a stranger's file to a schema, and on to a data set."""

import json
import subprocess
import sys

import pytest

from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from pipeline.infer_schema import infer
from pipeline.log.csv_dialect import Dialect
from preprocessing.errors import UserError
from preprocessing.schema import Schema
from tests.helpers.foreign_logs import ratings
from tests.helpers.inline_runner import inline
from tests.helpers.small_logs import columns, random_events, write_log


def _run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "pipeline.infer_schema", *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def _build(tmp_path, log, **arguments):
    with inline():
        return build_examples(
            BuildArguments(input=str(log), output=str(tmp_path / "data"), num_shards=1, **arguments)
        )


def test_the_command_writes_what_it_prints(tmp_path):
    log = write_log(tmp_path / "log.csv", ratings())
    done = _run(f"--input={log}", f"--output={tmp_path / 'schema.json'}")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == [
        *("column", "role", "type", "encoder", "missing", "distinct", "reason")
    ]
    assert lines[1].split()[:4] == ["memberId", "user", "string", "vocabulary"]
    assert "uncertain" not in done.stdout
    assert lines[-1] == f"wrote {tmp_path / 'schema.json'}"
    printed = _run(f"--input={log}").stdout
    schema = json.loads(printed[printed.index("\n{") :])
    assert Schema.from_json(schema) == Schema.load(tmp_path / "schema.json")


def test_a_file_that_exists_is_kept(tmp_path):
    log = write_log(tmp_path / "log.csv", ratings())
    (tmp_path / "schema.json").write_text("mine")
    done = _run(f"--input={log}", f"--output={tmp_path / 'schema.json'}")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: --output: expected a file that does not exist yet, found ")
    assert (tmp_path / "schema.json").read_text() == "mine"


def test_a_log_without_users_is_one_line_below_the_table(tmp_path):
    log = write_log(tmp_path / "log.csv", {"movie": ["a", "b"] * 20, "price": [1.5, 2.5] * 20})
    done = _run(f"--input={log}")
    assert done.returncode == 1
    assert done.stdout.splitlines()[1].split()[:2] == ["movie", "item"]
    (line,) = done.stderr.splitlines()
    assert "no column can be the user" in line


def test_another_delimiter_is_named(tmp_path):
    log = write_log(tmp_path / "log.csv", ratings())
    text = (tmp_path / "log.csv").read_text()
    (tmp_path / "log.csv").write_text(text.replace(",", "\t"))
    with pytest.raises(UserError, match="name what separates them: --csv_delimiter=tab"):
        infer(log)
    assert infer(log, Dialect.from_flags("tab", None)).is_certain


def test_every_format_has_the_same_draft(tmp_path):
    names = ("log.csv", "log.jsonl", "log.parquet")
    paths = [write_log(tmp_path / name, ratings()) for name in names]
    drafts = [infer(path).schema.to_json() for path in paths]
    assert drafts[0] == drafts[1] == drafts[2]


def test_a_drafted_schema_builds(tmp_path):
    log = write_log(tmp_path / "log.csv", ratings())
    infer(log).schema.save(tmp_path / "schema.json")
    data = _build(tmp_path, log, schema=str(tmp_path / "schema.json"))
    assert data.manifest["conservation"]["rejected"] == {}
    assert data.num_requests("train") > 0
    assert data.schema == infer(log).schema


def test_a_build_without_a_schema_takes_a_certain_draft_and_says_so(tmp_path, capsys):
    log = write_log(tmp_path / "log.csv", ratings())
    data = _build(tmp_path, log)
    assert data.schema == infer(log).schema
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("Schema")]
    assert "user: memberId, age, gender; item: movieId, genres, price (EUR)" in line
    assert "left out: review" in line
    assert f"python -m pipeline.infer_schema --input={log} --output=schema.json" in line
    assert line.endswith("name it with --schema.")


def test_a_build_takes_no_draft_in_doubt(tmp_path):
    log = ratings()
    log["who"] = log.pop("memberId")
    path = write_log(tmp_path / "log.csv", log)
    with pytest.raises(UserError) as error:
        _build(tmp_path, path)
    assert str(error.value).startswith("Expected the columns user_id and item_id, found movieId, ")
    assert f"draft a schema with python -m pipeline.infer_schema --input={path}" in str(error.value)


def test_a_canonical_log_is_not_guessed(tmp_path, capsys):
    log = columns(random_events())
    log["genres"] = [f"{item}|x" for item in log["item_id"]]
    data = _build(tmp_path, write_log(tmp_path / "log.csv", log))
    assert data.schema.history.features == ("item_id", "category_id", "genres")
    error = capsys.readouterr().err
    assert "guessed" not in error
    (line,) = [one for one in error.splitlines() if "separated" in one]
    assert line.startswith("genres: values such as 'i0|x' look like several values separated by |")
    assert "infer_schema" in line
    assert '"many"' in line


def test_the_command_loads_little():
    program = (
        "import sys\nfrom pipeline import infer_schema\n"
        "assert not {'tensorflow', 'matplotlib', 'apache_beam'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
