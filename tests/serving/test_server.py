import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import pytest

from preprocessing.errors import UserError
from serving import embedded_server
from serving.conformance.models import export
from serving.exporting import warmup
from serving.tfserving.server_options import ServerOptions

ROOT = pathlib.Path(__file__).parents[2]


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def states(url):
    status = httpx.get(url).json()["model_version_status"]
    return [(entry["version"], entry["state"]) for entry in status]


def command(*flags):
    return subprocess.Popen(
        [sys.executable, "-m", "serving.server", *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_hot_reload_never_leaves_a_gap(exported, tmp_path):
    shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    answers, stop = [], threading.Event()

    def keep_asking(url):
        with httpx.Client(timeout=30) as client:
            while not stop.is_set():
                reply = client.post(f"{url}:predict", json={"instances": [2.0]})
                answers.append((reply.status_code, reply.json().get("predictions")))

    with embedded_server.running(tmp_path, "toy", file_system_poll_wait_seconds=0.05) as running:
        client = threading.Thread(target=keep_asking, args=(running.url,))
        client.start()
        export(tmp_path, "124", 3.0)
        wait_for(lambda: answers and answers[-1] == (200, [4.0]))
        stop.set()
        client.join()
        # The old version answers nothing any more, yet may still be on its way out.
        wait_for(lambda: states(running.url) == [("124", "AVAILABLE"), ("123", "END")])
    assert {answer[0] for answer in answers} == {200}
    assert answers == sorted(answers, key=lambda answer: answer[1])


def test_version_with_a_failing_warmup_is_not_served(exported, tmp_path):
    shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    hidden = shutil.copytree(exported / "00000123", tmp_path / ".tmp")
    warmup.write(hidden, [("gather", {"ids": np.array([99])})])
    with embedded_server.running(tmp_path, "toy", file_system_poll_wait_seconds=0.05) as running:
        hidden.rename(tmp_path / "124")
        wait_for(lambda: len(httpx.get(running.url).json()["model_version_status"]) == 2)
        newest = {"state": ""}

        def ended():
            newest.update(httpx.get(running.url).json()["model_version_status"][0])
            return newest["state"] == "END"

        wait_for(ended)
        assert newest["status"]["error_code"] == "INVALID_ARGUMENT"
        reply = httpx.post(f"{running.url}:predict", json={"instances": [2.0]})
        assert reply.json() == {"predictions": [3.0]}

    with embedded_server.running(tmp_path, "toy", enable_model_warmup=False) as running:
        assert httpx.get(running.url).json()["model_version_status"][0]["version"] == "124"


def test_W1_warmup_is_on_the_metrics_page(exported, tmp_path):
    version = shutil.copytree(exported / "00000123", tmp_path / "model" / "1")
    warmup.write(version, [("", {"x": np.array([1], np.float32)})] * 3)
    config = tmp_path / "monitoring.config"
    config.write_text('prometheus_config { enable: true path: "/metrics" }')
    with embedded_server.running(
        version.parent, "toy", monitoring_config_file=str(config)
    ) as running:
        page = httpx.get(f"{running.root}/metrics").text
    name = ":tensorflow:serving:model_warmup_records_read"
    assert f'{name}{{model_path="{version}",status="OK"}} 3\n' in page
    assert ":tensorflow:serving:model_warmup_latency_count{" in page


def test_P3_P4_port_opens_when_a_version_is_there(exported, tmp_path, caplog):
    base = tmp_path / "model"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ServerOptions(
        model_name="toy",
        model_base_path=str(base),
        rest_api_port=port,
        file_system_poll_wait_seconds=0.05,
    )
    started = []
    serving = threading.Thread(
        target=embedded_server.serve, args=(options, lambda *handles: started.append(handles))
    )
    serving.start()
    try:
        missing = f"Could not find base path {base} for servable toy with error "
        wait_for(lambda: missing in caplog.text)
        base.mkdir()
        empty = (
            f"No versions of servable toy found under base path {base}. Did you forget to name "
            "your leaf directory as a number (eg. '/1/')?"
        )
        wait_for(lambda: empty in caplog.text)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}/v1/models/toy")
        shutil.copytree(exported / "00000123", tmp_path / "hidden").rename(base / "1")
        wait_for(lambda: started)
        assert states(started[0][0].url) == [("1", "AVAILABLE")]
    finally:
        wait_for(lambda: started)
        started[0][1].should_exit = True
        serving.join()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model_config_list {", "Error parsing text-format tensorflow.serving.ModelServerConfig"),
        (
            'model_config_list { config { name: "m" base_path: "m" model_platform: "tensorflow" }}',
            "Expected model m to have an absolute path or URI",
        ),
    ],
    ids=["syntax", "relative"],
)
def test_P5_bad_config_stops_the_start(tmp_path, text, message):
    (tmp_path / "models.config").write_text(text)
    with (
        pytest.raises(UserError, match=message),
        embedded_server.running("", "", model_config_file=str(tmp_path / "models.config")),
    ):
        pass


def test_taken_port_is_one_line(exported):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(UserError, match=f"free port at --rest_api_port={port}"),
            embedded_server.running(exported, "toy", port=port),
        ):
            pass


def test_P5_base_path_without_a_loadable_model(tmp_path):
    (tmp_path / "1").mkdir()
    message = (
        r"Failed to start server. Error: 1 model\(s\) did not become available: "
        r"{{toy version: 1} due to error: Could not find SavedModel"
    )
    with (
        pytest.raises(UserError, match=message),
        embedded_server.running(tmp_path, "toy", max_num_load_retries=0),
    ):
        pass


@pytest.mark.slow
def test_command_answers_what_it_accepted_before_it_stops(exported):
    process = command(f"--model_base_path={exported}", "--model_name=toy", "--rest_api_port=0")
    try:
        line = process.stdout.readline()
        assert line.startswith("Serving version 123 at http://127.0.0.1:")
        url = line.split()[-1]
        replies = []
        document = {"signature_name": "slow", "instances": [1.0]}
        asking = threading.Thread(
            target=lambda: replies.append(httpx.post(f"{url}:predict", json=document, timeout=60))
        )
        asking.start()
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        asking.join()
        assert replies[0].json() == {"predictions": [1.0]}
        assert process.wait(30) in (0, -signal.SIGTERM)
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)
    finally:
        process.kill()
    assert "Traceback" not in process.stderr.read()
