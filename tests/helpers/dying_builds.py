"""Builds that die: forks one child per build from a process that has loaded everything once.

Run as a program by test_faults.py, with the name of a scenario and a directory that holds log.csv.
It runs no thread and no Arrow kernel itself, so that forking is safe; children tell by their exit
status how they ended. Prints the results as JSON.
"""

import hashlib
import json
import os
import pathlib
import random
import resource
import signal
import sys
import time

from pipeline import build_examples as building
from pipeline.arguments import BuildArguments
from pipeline.job import build as stages
from preprocessing.errors import UserError
from tests.helpers.inline_runner import inline

OUTPUT = "data"
KILLS = 20


def build(directory, **more):
    arguments = BuildArguments(
        input=str(directory / "log.csv"), output=str(directory / OUTPUT),
        num_shards=1, num_partitions=2, train_prefixes="all", overwrite=True, **more,
    )  # fmt: skip
    return building.build_examples(arguments)


def fork(work):
    """Starts `work` in a child; its exit status is 0, or 3 if it raised a UserError."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        work()
        status = 0
    except UserError as error:
        sys.stderr.write(f"UserError: {error}\n")
        status = 3
    finally:
        os._exit(status)


def wait(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def content(directory):
    """SHA-256 of every file of the output by name; None if it does not claim to be complete."""
    output = directory / OUTPUT
    if not (output / "_COMPLETED").exists():
        return None
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in output.rglob("*")
        if path.is_file()
    }


def undisturbed_build(directory):
    """Seconds that a build takes, and what it writes."""
    start = time.monotonic()
    assert wait(fork(lambda: build(directory))) == 0
    return time.monotonic() - start, content(directory)


def random_kills(directory):
    """Kills builds at random moments, each starting from what the one before has left."""
    duration, expected = undisturbed_build(directory)
    outcomes = []
    for seed in range(KILLS):
        child = fork(lambda: build(directory))
        time.sleep(random.Random(seed).random() * duration)
        os.kill(child, signal.SIGKILL)
        killed = wait(child) == -signal.SIGKILL
        found = content(directory)
        outcomes.append({"killed": killed, "right": found in (None, expected)})
    assert wait(fork(lambda: build(directory))) == 0
    return {"outcomes": outcomes, "rerun_is_equal": content(directory) == expected}


def resumed_kills(directory):
    """Kills builds at random moments, and resumes each; notes which stages ran after the kill."""
    duration, expected = undisturbed_build(directory)
    titles = directory / "titles"

    def resume():
        run_stage = stages.run_stage

        def noted(title, *arguments, **options):
            with titles.open("a") as file:
                file.write(f"{title}\n")
            return run_stage(title, *arguments, **options)

        stages.run_stage = noted
        build(directory, resume=True)

    outcomes = []
    for seed in range(KILLS):
        child = fork(lambda: build(directory))
        time.sleep(random.Random(seed).random() * duration)
        os.kill(child, signal.SIGKILL)
        killed = wait(child) == -signal.SIGKILL
        markers = (directory / OUTPUT / "_work" / "finished").glob("*.json")
        finished = sorted(marker.stem for marker in markers)
        titles.write_text("")
        assert wait(fork(resume)) == 0
        outcomes.append(
            {
                "killed": killed,
                "finished": finished,
                "stages": titles.read_text().splitlines(),
                "right": content(directory) == expected,
            }
        )
    return {"outcomes": outcomes}


def die_at(number):
    """Makes this process kill itself instead of the rename of that number."""
    rename, count = os.replace, 0

    def replace(*names):
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(*names)

    os.replace = replace


def every_rename(directory):
    """Dies instead of the first rename, the second, ... until a build gets through."""

    def work():
        die_at(number)
        with inline():
            build(directory)

    def resume():
        with inline():
            build(directory, resume=True)

    wrong, expected = [], None
    assert wait(fork(resume)) == 0
    resumed = content(directory)
    for number in range(1, 500):
        ended = wait(fork(work))
        if ended == 0:
            break
        if ended != -signal.SIGKILL or content(directory) is not None:
            wrong.append(number)
        if wait(fork(resume)) != 0 or content(directory) != resumed:
            wrong.append(number)
    last = content(directory)

    def undisturbed():
        with inline():
            build(directory)

    assert wait(fork(undisturbed)) == 0
    expected = content(directory)
    return {"renames": number - 1, "wrong": wrong, "rerun_is_equal": last == expected}


def full_disk(directory):
    """Builds under a limit on the size of files, as a disk that is full sooner or later."""
    outcomes = {}
    for limit in (0, 300, 1000, 2500, 6000):

        def work(limit=limit):
            # Python would leave bytecode cut at the limit in the environment.
            sys.dont_write_bytecode = True
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            with inline():
                build(directory)

        outcomes[str(limit)] = {"status": wait(fork(work)), "complete": content(directory)}
    return outcomes


if __name__ == "__main__":
    found = globals()[sys.argv[1]](pathlib.Path(sys.argv[2]))
    sys.stdout.write(json.dumps(found))
