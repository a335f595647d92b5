"""How every command ends where it cannot go on."""

import functools

import pytest
from absl import app, flags

from preprocessing import cli


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs a command with a flag --workdir, which is required; returns status and error lines."""
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    monkeypatch.setattr(
        flags, "DEFINE_bool", functools.partial(flags.DEFINE_bool, flag_values=values)
    )
    flags.DEFINE_string("workdir", None, "", flag_values=values, required=True)

    def run(main, *argv):
        def app_run(guarded, flags_parser):
            raise SystemExit(guarded(flags_parser(["command", *argv])))

        monkeypatch.setattr(app, "run", app_run)
        with pytest.raises(SystemExit) as ended:
            cli.run(main, "usage")
        return ended.value.code, capsys.readouterr().err.splitlines()

    return run


def test_what_the_system_says_of_a_path_is_one_line(command, tmp_path):
    (tmp_path / "file").touch()
    status, lines = command((tmp_path / "file" / "run").mkdir, "--workdir=x")
    assert status == 1
    (line,) = lines
    assert line.startswith(f"error: Expected {tmp_path / 'file' / 'run'} to be of use here, found")
    assert "Not a directory. Fix: check the path" in line


def test_a_bug_keeps_its_stack(command):
    def broken():
        raise OSError("of no path")

    with pytest.raises(OSError, match="of no path"):
        command(broken, "--workdir=x", "--debug")


def test_a_missing_flag_is_named(command):
    status, lines = command(lambda: None)
    assert (status, lines) == (1, ["error: Expected --workdir, found none. Fix: see --help."])


def test_all_missing_flags_are_named(command):
    flags.DEFINE_string("input", None, "", flag_values=flags.FLAGS, required=True)
    _, lines = command(lambda: None)
    assert lines == ["error: Expected --workdir and --input, found none. Fix: see --help."]


def test_an_unknown_flag_is_answered_with_a_similar_one(command):
    status, lines = command(lambda: None, "--work-dri=x")
    assert status == 1
    assert lines == ["error: Unknown command line flag 'work-dri'. Fix: did you mean --workdir?"]


def test_ctrl_c_is_one_line(command):
    def stopped():
        raise KeyboardInterrupt

    assert command(stopped, "--workdir=x") == (130, ["stopped by Ctrl-C"])


def test_a_broken_pipe_that_is_not_our_output_is_a_bug(command, monkeypatch):
    def broken():
        raise BrokenPipeError

    monkeypatch.setattr(cli, "_drop_what_nobody_reads", lambda: False)
    with pytest.raises(BrokenPipeError):
        command(broken, "--workdir=x")


def test_a_flag_with_a_bound_is_not_required(command):
    flags.DEFINE_integer("version", None, "", lower_bound=1, flag_values=flags.FLAGS)
    assert not cli.is_required(flags.FLAGS["version"])
    assert cli.is_required(flags.FLAGS["workdir"])
