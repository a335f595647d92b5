"""What a new user meets: `--help` and mistakes, answered at once, in our words."""

import inspect
import os
import re
import subprocess
import sys

import pytest

from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from preprocessing import cli
from tests import command_page
from tests.helpers import quick_commands
from tests.helpers.inline_runner import inline
from tests.helpers.small_logs import columns, random_events, write_log

COMMANDS = tuple(command_page.scripts().values())

_WRONG = {
    # Unknown flags.
    "models.train --workdir=w --wrokdir=w": "'wrokdir'. Fix: did you mean --workdir?",
    "models.train --lr=0.1": "'lr'. Fix: write --set=train.learning_rate=0.1.",
    "models.train --model=deminet --interest=3": "'interest'. Fix: write --set=model.interests=3.",
    "models.tune --trails=3": "'trails'. Fix: did you mean --trials?",
    "serving.server --prot=1": "'prot'. Fix: did you mean --port?",
    "serving.score --zzz=1": "Unknown command line flag 'zzz'. Fix: see --help.",
    "pipeline.run --input=l --workdir=w --modle=din": "'--modle=din'. Fix: did you mean --model?",
    "pipeline.run --input=l --workdir=w --epochs=3": "write --set=train.epochs=3.",
    "pipeline.build_examples --input=l --ouptut=d --output=d": "did you mean --output?",
    # Values that a flag does not have.
    "models.train --precision=float8": "precision=float8: value should be one of <float32|",
    "pipeline.run --workdir=w --input=l --negatives=many": "flag --negatives=many: ",
    # Topics.
    "pipeline.run --workdir=w --input=kafka://h/t": "expected kafka://HOST:PORT/TOPIC, found",
    "pipeline.backtest --workdir=w --input=kafka://h:1/t": "expected a file per day, found the",
    # Missing flags.
    "models.train": "Expected --workdir, found none. Fix: see --help.",
    "pipeline.run": "Expected --workdir and --input, found none. Fix: see --help.",
    "pipeline.audit": "Expected a data directory, found none.",
    "serving.server": "Expected --model_base_path or --model_config_file, found neither.",
    # Missing files, directories and columns.
    "models.train --data=none --workdir=w": "Expected a data set, found no directory none.",
    "models.train --workdir=none --resume": "Expected a run to continue in --workdir, found none",
    "models.train --config=none.json --workdir=w": "Expected a configuration in none.json, found",
    "models.train --workdir=w --data={data} --warm_start=none": "found none at none.",
    "models.train --workdir=w --data={data} --model=dinn": "found 'dinn'. Fix: did you mean 'din'?",
    "models.train --workdir=w --data={data} --ssl=mis": "found 'mis'. Fix: did you mean 'miss'?",
    "models.train --workdir=w --data={data} --set=train.epoch=3": "did you mean 'epochs'?",
    "models.train --workdir=w --data={data} --set=model.unit=3": "did you mean 'units'?",
    "models.train --workdir=w --data={data} --ssl=miss --set=ssl.alhpa=3": "did you mean 'alpha'?",
    "models.tune --workdir=w --space=none.json": "Expected a search space in none.json, found no",
    "models.evaluate --run=none": "Expected a run directory with config.json, found none at none.",
    "models.evaluate --compare a b": "Expected a run directory with config.json, found none at a.",
    "models.report --run=none": "Expected a run directory with config.json, found none at none.",
    "serving.export --run=none --output=m": "Expected a run directory with config.json, found none",
    "serving.parity --run=none --model=m": "Expected a run directory with config.json, found none",
    "serving.rollback --output=none": "Expected models.config in none, found none.",
    "serving.server --model_config_file=none": "--model_config_file: expected a file, found none",
    "serving.score --url=http://x --requests=none": "Expected a file of requests, found none at",
    "pipeline.run --input=none.csv --workdir=w": "--input: expected a file at none.csv, found",
    "pipeline.run --input={log} --workdir=w": "Expected the columns user_id and item_id, found",
    "pipeline.build_examples --input=none.csv --output=d": "--input: expected a file at none.csv",
    "pipeline.audit none": "Expected a data set, found no directory none.",
    "pipeline.validate none --against=none": "Expected a data set, found no directory none.",
    "pipeline.data_card none": "Expected a data set, found no directory none.",
    "pipeline.experiment --table=deminet/2 --data=none --workdir=w": "found no directory none.",
    "pipeline.infer_schema --input=none": "--input: expected a file at none, found nothing.",
}


@pytest.fixture(scope="module")
def helped(tmp_path_factory):
    calls = [(module, ["--help"]) for module in COMMANDS]
    ended = quick_commands.run_all(calls, tmp_path_factory.mktemp("helped"))
    return dict(zip(COMMANDS, ended, strict=True))


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A log in whose columns neither user nor item can be recognised."""
    path = tmp_path_factory.mktemp("logs") / "log.csv"
    path.write_text("user_id,b\n1,2\n")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set of a few users."""
    directory = tmp_path_factory.mktemp("data")
    path = write_log(directory / "log.csv", columns(random_events()))
    with inline():
        return build_examples(BuildArguments(input=path, output=str(directory / "data"))).path


@pytest.fixture(scope="module")
def refused(tmp_path_factory, data, log):
    lines = [line.format(data=data, log=log).split() for line in _WRONG]
    calls = [(module, argv) for module, *argv in lines]
    ended = quick_commands.run_all(calls, tmp_path_factory.mktemp("refused"))
    return dict(zip(_WRONG, ended, strict=True))


@pytest.mark.parametrize("module", COMMANDS)
def test_help_is_complete_and_loads_nothing_large(helped, module):
    done = helped[module]
    assert (done.status, done.error, done.loaded) == (0, "", ())
    text = " ".join(done.output.split())
    usage = inspect.cleandoc(command_page.command(module).__doc__)
    assert done.output.startswith(usage)
    assert re.search(rf"^ *python -m {re.escape(module)}\b", usage, re.MULTILINE), "an example"
    for flag in command_page.flags_of(module).values():
        if flag.name in command_page.BY_MACHINE:
            continue
        note = f" [default: {cli.default(flag)}]" if cli.default(flag) else ""
        note = " [required]" if cli.is_required(flag) else note
        assert f" --{flag.name}: {cli.meaning(flag)}{note}" in text, flag.name
    assert max(map(len, done.output.splitlines())) <= 100


def test_flags_stand_in_groups(helped):
    titles = re.findall(r"^(\S.*):$", helped["pipeline.run"].output, re.MULTILINE)
    assert titles[:2] == ["The run", "The log"]
    assert {"Splits", "Filters", "The model", "The training", "Of every command"} <= set(titles)
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("line", _WRONG)
def test_a_mistake_is_one_line_at_once(refused, line):
    done = refused[line]
    assert done.status == 1, done
    (said,) = done.error.splitlines()
    assert said.startswith("error: ")
    assert _WRONG[line] in said
    assert done.output == ""
    # Whether Beam has a flag that we have not, only Beam can tell; Arrow loads pandas where it can.
    may_load = {"pandas", *(["apache_beam"] if "or of Beam" in said else [])}
    assert set(done.loaded) <= may_load


def _unread(*command):
    """Status and errors of a command whose reader has gone before it writes, as `head` may have."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=quick_commands.ROOT,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    return done.returncode, done.stderr


def test_a_reader_may_stop_reading(log):
    assert _unread("models.doctor", "--help") == (0, "")
    assert _unread("pipeline.infer_schema", f"--input={log}") == (141, "")


def test_the_interpreters_own_directory_is_named_in_the_pages():
    """Whoever starts `python -m models.train` where there is another `models` finds a way out."""
    assert "ctr-train" in command_page.page().partition("| command |")[0]
