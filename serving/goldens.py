r"""Asks a server every case of the REST contract and stores or compares what it answers.

    python -m serving.goldens --write_models=MODELS [--served_from=/models]
    docker run -p 8501:8501 -v $PWD/MODELS:/models tensorflow/serving:2.17.1 \
        --model_config_file=/models/models.config
    python -m serving.goldens --url=http://127.0.0.1:8501 --output=official.json
    python -m serving.goldens --url=http://127.0.0.1:8502 --compare=official.json

With --with_flags the server must have been started with --rest_api_enable_cors_support,
--monitoring_config_file=/models/monitoring.config, --enable_batching and
--batching_parameters_file=/models/batching.config as well: other cases are asked then. Exit status
1 if an answer is not what the contract says, or not what was compared with.
"""

import base64
import json
import pathlib
import sys
import urllib.parse
from typing import Any

from absl import flags
from tqdm import tqdm

from preprocessing import cli
from preprocessing.errors import UserError, explained_write_errors
from preprocessing.storage import files
from serving.conformance.case import Answer, same

_COMPARED_HEADERS = ("content-type", "connection", "access-control-allow-origin")


def record(url: str, with_flags: bool) -> dict[str, dict[str, Any]]:
    """Asks a server the cases and returns {case: {"replies": [...], "problems": [...]}}.

    Args:
        url: Address of the server, `http://HOST:PORT`.
        with_flags: Whether the server has CORS, a Prometheus page and batching; selects the cases.

    Raises:
        UserError: No server listens at `url`.
    """
    parsed = urllib.parse.urlsplit(url)
    if parsed.scheme != "http" or not parsed.hostname:
        raise UserError(f"--url: expected http://HOST:PORT, found {url!r}.")
    from serving.conformance.all_cases import CASES  # loads TensorFlow

    answers = {}
    cases = [case for case in CASES if case.with_flags == with_flags]
    for case in tqdm(cases, leave=False, disable=None):
        try:
            replies = case.run(parsed.hostname, parsed.port or 80)
            problems = case.problems(replies)
        except ConnectionRefusedError:
            raise UserError(f"--url: expected a server at {url}, found none.") from None
        except OSError as error:
            replies, problems = [], [str(error)]
        answers[case.name] = {
            "replies": [_stored(reply) for reply in replies],
            "problems": problems,
        }
    return answers


def differences(ours: dict[str, dict[str, Any]], theirs: dict[str, dict[str, Any]]) -> list[str]:
    """Differences that a client can see between two records of the same cases, a line each."""
    mismatches = []
    for name in sorted(ours.keys() & theirs.keys()):
        pairs = list(zip(ours[name]["replies"], theirs[name]["replies"], strict=False))
        if len(ours[name]["replies"]) != len(theirs[name]["replies"]):
            mismatches.append(f"{name}: other number of replies")
        for our_reply, their_reply in pairs:
            if our_reply["status"] != their_reply["status"]:
                mismatches.append(
                    f"{name}: status {our_reply['status']}, not {their_reply['status']}"
                )
            mismatches += [
                f"{name}: header {header}: {our_reply['headers'].get(header)!r}, "
                f"not {their_reply['headers'].get(header)!r}"
                for header in _COMPARED_HEADERS
                if our_reply["headers"].get(header) != their_reply["headers"].get(header)
            ]
            is_json = our_reply["headers"].get("content-type") == "application/json"
            if is_json and not same(_json(our_reply), _json(their_reply)):
                mismatches.append(f"{name}: body {_text(our_reply)!r}, not {_text(their_reply)!r}")
    return mismatches


def _stored(answer: Answer) -> dict[str, Any]:
    return {
        "status": answer.status,
        "reason": answer.reason,
        "headers": answer.headers,
        "body": base64.b64encode(answer.body).decode("ascii"),
    }


def _text(reply: dict[str, Any]) -> str:
    return base64.b64decode(reply["body"]).decode(errors="replace")


def _json(reply: dict[str, Any]) -> Any:
    try:
        return json.loads(_text(reply))
    except ValueError:
        return _text(reply)


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("url", None, "http://HOST:PORT of the server to ask.")
    flags.DEFINE_bool("with_flags", False, "Ask the cases about CORS, metrics and batching.")
    flags.DEFINE_string("output", None, "Where to store the answers (JSON).")
    flags.DEFINE_string("compare", None, "Answers of another server to compare with.")
    flags.DEFINE_string("write_models", None, "Directory to make, with models and config files.")
    flags.DEFINE_string("served_from", None, "Path of --write_models on the server.")


def main() -> int:
    """Writes the models, or asks a server the cases and stores or compares its answers."""
    values = flags.FLAGS
    if values.write_models:
        from serving.conformance import models  # loads TensorFlow

        with explained_write_errors("--write_models", values.write_models):
            models.write(pathlib.Path(values.write_models), values.served_from)
        return 0
    if not values.url:
        raise UserError("Expected --url or --write_models, found neither.", "see --help.")
    if values.compare:
        files.require_file(values.compare, "--compare")
    answers = record(values.url, values.with_flags)
    if values.output:
        with explained_write_errors("--output", values.output):
            text = json.dumps(answers, indent=1, sort_keys=True) + "\n"
            pathlib.Path(values.output).write_text(text, encoding="utf-8")
    wrong = [
        f"{name}: {problem}"
        for name, case_record in answers.items()
        for problem in case_record["problems"]
    ]
    if values.compare:
        try:
            reference = json.loads(pathlib.Path(values.compare).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"--compare: expected stored answers, found: {error}.") from None
        wrong += differences(answers, reference)
    for line in wrong:
        tqdm.write(line[:500])
    sys.stdout.write(f"{len(answers)} cases, {len(wrong)} differences.\n")
    return 1 if wrong else 0


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__)


if __name__ == "__main__":
    console_main()
