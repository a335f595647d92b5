"""Training processes that take turns, and the environments in which those of the peers run."""

import hashlib
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from .peers import protocol

ROOT = pathlib.Path(__file__).parents[2]
PEERS = pathlib.Path(__file__).parent / "peers"


class TrainingProcess:
    """A process that trains a little whenever it is called; a context manager that ends it.

    Args:
        command: Runs `peers.protocol.serve`.

    Attributes:
        result: What the last call returned.

    Raises:
        RuntimeError: The process ended.
    """

    def __init__(self, command: Sequence[str | pathlib.Path]) -> None:
        self.result: Any = None
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self._process = subprocess.Popen(
            [str(word) for word in command],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._wait_for(protocol.READY)

    def __call__(self) -> None:
        """Trains on as many samples as at every call."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.result = json.loads(self._wait_for(protocol.DONE))

    def __enter__(self) -> "TrainingProcess":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._errors.close()

    def _wait_for(self, word: str) -> str:
        """The rest of the next line that starts with the word; libraries may print others."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(word):
                return line.removeprefix(word)
        self._process.wait()
        self._errors.seek(0)
        raise RuntimeError(f"{self._process.args}: {self._errors.read()[-2000:]}")


def peer_python(name: str) -> pathlib.Path | None:
    """The interpreter of an environment with a peer, which is made on the first use.

    Args:
        name: Of the requirements in `peers/`.

    Returns:
        None if the environment cannot be made; the reason is printed.
    """
    requirements = PEERS / f"{name}.txt"
    root = ROOT / "build" / "peers" / name
    python = root / "bin" / "python"
    stamp = root / f".installed-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]}"
    if stamp.exists():
        return python
    uv = shutil.which("uv")
    install = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
    tqdm.write(f"installing {requirements.relative_to(ROOT)} into {root.relative_to(ROOT)}")
    try:
        for command in (
            [sys.executable, "-m", "venv", "--clear", *(["--without-pip"] if uv else []), root],
            [*install, "--quiet", "--requirement", requirements],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or error.stdout).strip() or str(error)
        tqdm.write(f"skipped {name}, which cannot be installed: {reason.splitlines()[-1]}")
        return None
    stamp.touch()
    return python
