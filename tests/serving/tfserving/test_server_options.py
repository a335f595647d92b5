import dataclasses
import functools

import pytest
from absl import flags

from preprocessing.errors import UserError
from serving.tfserving import monitoring_config, server_options
from serving.tfserving.server_options import ServerOptions

GOOD = ServerOptions(model_base_path="/models")


@pytest.fixture
def parsed(monkeypatch):
    """Parses a command line with flags of its own."""
    fresh = flags.FlagValues()
    for name in ("DEFINE_bool", "DEFINE_float", "DEFINE_integer", "DEFINE_string"):
        define = functools.partial(getattr(flags, name), flag_values=fresh)
        monkeypatch.setattr(flags, name, define)
    monkeypatch.setattr(flags, "FLAGS", fresh)
    server_options.define_flags()

    def parse(*arguments):
        fresh(["server", *arguments])
        return server_options.from_flags()

    return parse


def test_P2_flags_of_tensorflow_model_server(parsed):
    options = parsed(
        "--port=8500",
        "--rest_api_port=8501",
        "--rest_api_timeout_in_ms=100",
        "--rest_api_num_threads=3",
        "--rest_api_enable_cors_support",
        "--model_name=m",
        "--model_base_path=/m",
        "--model_config_file=/c",
        "--model_config_file_poll_wait_seconds=2",
        "--file_system_poll_wait_seconds=0",
        "--enable_batching=true",
        "--batching_parameters_file=/b",
        "--enable_per_model_batching_parameters=true",
        "--enable_model_warmup=false",
        "--num_request_iterations_for_warmup=2",
        "--monitoring_config_file=/mon",
        "--max_num_load_retries=1",
        "--load_retry_interval_micros=5",
        "--num_load_threads=2",
        "--num_unload_threads=2",
        "--allow_version_labels_for_unavailable_models",
        "--saved_model_tags=serve,gpu",
        "--enable_signature_method_name_check",
        "--enable_grpc_healthcheck_service",
        "--grpc_max_threads=7",
        "--grpc_channel_arguments=grpc.max_concurrent_streams=5",
        "--tensorflow_session_parallelism=2",
        "--tensorflow_intra_op_parallelism=3",
        "--tensorflow_inter_op_parallelism=4",
    )
    assert (options.port, options.rest_api_timeout_in_ms, options.grpc_max_threads) == (
        8500,
        100,
        7,
    )
    assert options.model_config_file_poll_wait_seconds == 2.0
    assert options.enable_model_warmup is False
    assert options.allow_version_labels_for_unavailable_models is True
    assert options.saved_model_tags == "serve,gpu"


def test_P2_defaults_are_those_of_tensorflow_model_server(parsed):
    options = parsed()
    assert dataclasses.replace(options) == ServerOptions()
    assert options.model_name == "default"
    assert options.rest_api_timeout_in_ms == 30_000
    assert options.file_system_poll_wait_seconds == 1.0
    assert options.max_num_load_retries == 5
    assert options.load_retry_interval_micros == 60_000_000
    assert options.saved_model_tags == "serve"
    assert options.enable_model_warmup is True


def test_P6_loopback_is_the_default():
    assert GOOD.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_base_path": ""}, "Expected --model_base_path or --model_config_file"),
        (
            {"model_base_path": "s3://bucket/ctr"},
            "--model_base_path: expected a path of this machine, found s3://bucket/ctr.*mount",
        ),
        ({"model_base_path": "gs://bucket/ctr"}, "--model_base_path: expected a path of this"),
        ({"model_base_path": "file:///models/ctr"}, "--model_base_path: expected a path of this"),
        ({"batching_parameters_file": "/b"}, "--batching_parameters_file: expected --enable_batch"),
        (
            {"enable_per_model_batching_parameters": True},
            "--enable_per_model_batching_parameters: expected --enable_batching beside it",
        ),
        ({"explore": "/data", "host": "0.0.0.0"}, "expected a loopback --host, found '0.0.0.0'"),
    ],
)
def test_P2_contradictions_are_one_line(changes, message):
    GOOD.check()
    with pytest.raises(UserError, match=message):
        dataclasses.replace(GOOD, **changes).check()


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('prometheus_config { enable: true path: "/metrics" }', "/metrics"),
        ("prometheus_config: { enable: true }", "/monitoring/prometheus/metrics"),
        ("prometheus_config { enable: false path: '/metrics' }", None),
        ("", None),
    ],
)
def test_M1_monitoring_config_file(tmp_path, text, path):
    file = tmp_path / "monitoring.config"
    file.write_text(text)
    assert monitoring_config.prometheus_path(file) == path


def test_M1_monitoring_config_file_with_a_mistake(tmp_path):
    file = tmp_path / "monitoring.config"
    file.write_text("prometheus_config { enable: true\n paht: 'x' }")
    with pytest.raises(UserError, match=r'--monitoring_config_file: .*error at 2:2 .*"paht"'):
        monitoring_config.prometheus_path(file)
    with pytest.raises(UserError, match="--monitoring_config_file: .*No such file"):
        monitoring_config.prometheus_path(tmp_path / "none")


# Further flags that tensorflow_model_server 2.17 lists.
HONOURED = {"grpc_socket_path": "/s", "ssl_config_file": "/s"}
WITHOUT_EFFECT = {
    "enable_profiler": False, "enable_serialization_as_tensor_content": True,
    "flush_filesystem_caches": False, "num_tflite_interpreters_per_pool": 2, "num_tflite_pools": 2,
    "per_process_gpu_memory_fraction": 0.5, "remove_unused_fields_from_bundle_metagraph": False,
    "skip_initialize_tpu": True, "xla_cpu_compilation_enabled": True,
    "xla_gpu_compilation_enabled": True,
}  # fmt: skip
REFUSED = {
    "mixed_precision": "bfloat16", "platform_config_file": "/p", "prefer_tflite_model": True,
    "tensorflow_session_config_file": "/c", "thread_pool_factory_config_file": "/t",
    "use_alts_credentials": True,
}  # fmt: skip


def test_P2_flags_are_honoured_or_accepted_with_a_note():
    given = dataclasses.replace(GOOD, port=8500, **HONOURED, **WITHOUT_EFFECT)
    given.check()
    notes = given.notes()
    assert sorted(note.split(" has no effect: ")[0] for note in notes) == sorted(
        f"--{name}={value}" for name, value in WITHOUT_EFFECT.items()
    )
    assert GOOD.notes() == []


@pytest.mark.parametrize("name", REFUSED)
def test_P2_flags_that_ask_for_what_is_not_there_are_refused_with_the_reason(name):
    given = dataclasses.replace(GOOD, **{name: REFUSED[name]})
    with pytest.raises(UserError, match=rf"--{name}: expected no such flag, found .*: \w+ "):
        given.check()


def test_P2_tls_needs_a_port():
    with pytest.raises(UserError, match="--ssl_config_file: expected --port beside it, found none"):
        dataclasses.replace(GOOD, ssl_config_file="/s", grpc_socket_path="/p").check()
