"""The flags of tensorflow_model_server 2.17, and a few of the embedded server's own.

Each is honoured, accepted without effect, or refused with the reason.
"""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

from absl import flags

from preprocessing import cli
from preprocessing.errors import UserError
from preprocessing.storage import files
from preprocessing.values import limits


def _flag(default: Any, help_text: str, **bounds: float) -> Any:
    limit = {limits.KEY: limits.Limit(**bounds)} if bounds else {}
    return dataclasses.field(default=default, metadata={"help": help_text, **limit})


_NO_EFFECT, _REFUSED = "no effect", "refused"
"""Keys of field metadata: why a value other than the default changes nothing, or is refused."""


def _without_effect(default: Any, reason: str) -> Any:
    """A flag whose other values are accepted, with a line that says why they change nothing."""
    metadata = {"help": f"Accepted without effect: {reason}", _NO_EFFECT: reason}
    return dataclasses.field(default=default, metadata=metadata)


def _refused(default: Any, reason: str) -> Any:
    """A flag whose other values end the start."""
    metadata = {"help": f"Refused: {reason}", _REFUSED: reason}
    return dataclasses.field(default=default, metadata=metadata)


_GROUPS = {
    "model_name": "Models",
    "host": "REST",
    "port": "gRPC",
    "enable_model_warmup": "Computation",
}
"""Titles of groups of flags, by the first flag of each."""
_CPUS = os.cpu_count() or 1
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Values of the flags of the same names; the help text of each field describes it.

    Names and defaults are those of tensorflow_model_server, except that `rest_api_port` has the
    default of the container image and 0 picks a free port. tensorflow_model_server lacks the
    fields `host`, `max_request_bytes`, `max_concurrent_requests` and `explore`.
    """

    model_name: str = _flag("default", "Name of the model in URLs.")
    model_base_path: str = _flag("", "Directory whose numeric children are versions.")
    model_config_file: str = _flag(
        "", "Text-format ModelServerConfig; then model_name and model_base_path are not used."
    )
    model_config_file_poll_wait_seconds: float = _flag(
        0.0, "Seconds between two readings of the model config file; 0 reads it once."
    )
    file_system_poll_wait_seconds: float = _flag(
        1.0, "Seconds between two looks for versions; 0 looks once."
    )
    allow_version_labels_for_unavailable_models: bool = _flag(
        False, "Whether a new label may point at a version that is not loaded yet."
    )
    max_num_load_retries: int = _flag(5, "How often a failed load is tried again.")
    load_retry_interval_micros: int = _flag(
        60_000_000, "Microseconds between two attempts to load."
    )
    num_load_threads: int = _without_effect(0, "versions are loaded one after the other.")
    num_unload_threads: int = _without_effect(0, "unloading a version takes no time here.")
    flush_filesystem_caches: bool = _without_effect(True, "the system frees its own caches.")
    remove_unused_fields_from_bundle_metagraph: bool = _without_effect(
        True, "of a meta graph only the signatures are kept."
    )
    platform_config_file: str = _refused("", "there is one platform here, tensorflow.")
    prefer_tflite_model: bool = _refused(False, "TensorFlow Lite models are not served here.")
    num_tflite_pools: int = _without_effect(0, "TensorFlow Lite models are not served here.")
    num_tflite_interpreters_per_pool: int = _without_effect(
        0, "TensorFlow Lite models are not served here."
    )
    saved_model_tags: str = _flag("serve", "Tags of the meta graph to load, separated by commas.")
    enable_signature_method_name_check: bool = _flag(
        False, "Refuse a signature whose method name is not that of the call."
    )

    host: str = _flag("127.0.0.1", "Interface to bind (tensorflow_model_server binds all).")
    rest_api_port: int = _flag(8501, "Port of the REST interface; 0 picks a free one.")
    rest_api_timeout_in_ms: int = _flag(
        30_000,
        "Milliseconds for the arrival of a request's body, and again for its answer.",
        at_least=1,
    )
    rest_api_num_threads: int = _flag(
        4 * _CPUS, "Requests that are computed at once over REST.", at_least=1
    )
    rest_api_enable_cors_support: bool = _flag(False, "Send the headers that let browsers ask.")
    max_request_bytes: int = _flag(
        32 * 2**20, "Requests with longer bodies are refused with 413 (ours).", at_least=1
    )
    max_concurrent_requests: int = _flag(
        256, "Requests in progress over REST; more wait, up to the deadline (ours).", at_least=1
    )
    monitoring_config_file: str = _flag(
        "", "Text-format MonitoringConfig that turns the Prometheus page on."
    )
    explore: str = _flag(
        "", "Data set whose requests the page /explore explains; loopback only (ours)."
    )

    port: int = _flag(0, "Port of the gRPC interface; 0 leaves it off.")
    grpc_socket_path: str = _flag("", "Unix socket on which gRPC listens as well.")
    ssl_config_file: str = _flag("", "Text-format SSLConfig; the gRPC port speaks TLS then.")
    use_alts_credentials: bool = _refused(False, "ALTS exists within Google's clouds only.")
    grpc_max_threads: int = _flag(
        4 * _CPUS, "Requests that are computed at once over gRPC.", at_least=1
    )
    grpc_channel_arguments: str = _flag("", "key=value pairs for gRPC, separated by commas.")
    enable_grpc_healthcheck_service: bool = _flag(False, "Serve grpc.health.v1.Health as well.")
    enable_serialization_as_tensor_content: bool = _without_effect(
        False, "replies hold typed values, which every client reads."
    )
    enable_profiler: bool = _without_effect(True, "there is no profiler service here.")

    enable_model_warmup: bool = _flag(True, "Replay a version's warm-up requests first.")
    num_request_iterations_for_warmup: int = _flag(1, "How often each warm-up request is replayed.")
    enable_batching: bool = _flag(False, "Compute requests of the same signature together.")
    batching_parameters_file: str = _flag("", "Text-format BatchingParameters.")
    enable_per_model_batching_parameters: bool = _flag(
        False, "Batch only versions with a batching_params.pbtxt, by its parameters."
    )
    tensorflow_session_parallelism: int = _flag(
        0, "Threads for each of the next two flags at 0; 0 leaves TensorFlow the choice."
    )
    tensorflow_intra_op_parallelism: int = _flag(0, "Threads that one operation may use.")
    tensorflow_inter_op_parallelism: int = _flag(0, "Operations that may run at once.")
    tensorflow_session_config_file: str = _refused(
        "", "use the flags tensorflow_..._parallelism for threads; there is no session here."
    )
    thread_pool_factory_config_file: str = _refused("", "thread pools are TensorFlow's own here.")
    per_process_gpu_memory_fraction: float = _without_effect(
        0.0, "memory of a GPU is taken as it is needed."
    )
    xla_cpu_compilation_enabled: bool = _without_effect(False, "graphs run as they were exported.")
    xla_gpu_compilation_enabled: bool = _without_effect(False, "graphs run as they were exported.")
    mixed_precision: str = _refused("", "graphs run as they were exported; export with it instead.")
    skip_initialize_tpu: bool = _without_effect(False, "no TPU is initialised here.")

    def check(self) -> None:
        """Checks the values and their combinations.

        Raises:
            UserError: A value is wrong or contradicts another; the message names the flag.
        """
        if not (self.model_base_path or self.model_config_file):
            raise UserError(
                "Expected --model_base_path or --model_config_file, found neither.",
                "pass --model_base_path=MODEL, the directory that holds the versions.",
            )
        files.require_local(self.model_base_path, "--model_base_path")
        for name, value, reason in self._other_than_default(_REFUSED):
            raise UserError(f"--{name}: expected no such flag, found {value!r}: {reason}")
        if self.ssl_config_file and not self.port:
            raise UserError(
                "--ssl_config_file: expected --port beside it, found none.",
                "name the port of gRPC; REST and Unix sockets are in plain text.",
            )
        for name in ("batching_parameters_file", "enable_per_model_batching_parameters"):
            if getattr(self, name) and not self.enable_batching:
                raise UserError(
                    f"--{name}: expected --enable_batching beside it, found it alone.",
                    "pass --enable_batching as well.",
                )
        if self.explore and self.host not in _LOOPBACK:
            raise UserError(
                f"--explore: expected a loopback --host, found {self.host!r}.",
                "leave out --host: the page shows users' histories to whoever asks.",
            )
        limits.check(self, "--")

    def notes(self) -> list[str]:
        """Says of each flag without effect that was given why it has none, a line each."""
        others = self._other_than_default(_NO_EFFECT)
        return [f"--{name}={value} has no effect: {reason}" for name, value, reason in others]

    def _other_than_default(self, key: str) -> Iterator[tuple[str, Any, str]]:
        """Name, value and reason of the flags with this key that were given another value."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if key in field.metadata and value != field.default:
                yield field.name, value, field.metadata[key]


def define_flags() -> None:
    """Defines a flag for every field of `ServerOptions`."""
    define = {
        bool: flags.DEFINE_bool,
        float: flags.DEFINE_float,
        int: flags.DEFINE_integer,
        str: flags.DEFINE_string,
    }
    title = ""
    for field in dataclasses.fields(ServerOptions):
        title = _GROUPS.get(field.name, title)
        meaning = limits.with_limit(field.metadata["help"], ServerOptions, field.name)
        with cli.flag_group(title):
            define[type(field.default)](field.name, field.default, meaning)  # type: ignore[operator]


def from_flags() -> ServerOptions:
    """The options of the command line."""
    names = [field.name for field in dataclasses.fields(ServerOptions)]
    values: dict[str, Any] = {name: flags.FLAGS[name].value for name in names}
    return ServerOptions(**values)
