"""The monitoring config file of TensorFlow Serving: whether and where metrics have a page."""

import pathlib

from serving.tfserving import config_files

_FIELDS = {"prometheus_config": {"enable": bool, "path": str}}
_DEFAULT_PATH = "/monitoring/prometheus/metrics"


def prometheus_path(path: str | pathlib.Path) -> str | None:
    """URL path of the metrics' page in a monitoring config file; None if the page is off.

    Raises:
        UserError: The file cannot be read or parsed.
    """
    message = config_files.read(path, "--monitoring_config_file", "MonitoringConfig", _FIELDS)
    config = message.prometheus_config
    return (config.path or _DEFAULT_PATH) if config.enable else None
