"""Credentials of the gRPC interface, as TensorFlow Serving's SSL config file describes them."""

import pathlib

import grpc

from preprocessing.errors import UserError
from serving.tfserving import config_files

_FLAG = "--ssl_config_file"
_FIELDS = {"server_key": str, "server_cert": str, "custom_ca": str, "client_verify": bool}


def read(path: str | pathlib.Path) -> grpc.ServerCredentials:
    """Credentials from a text-format SSLConfig, whose fields hold the PEM texts themselves.

    `custom_ca` are the authorities that may have signed a client's certificate; with
    `client_verify` a client must have one.

    Raises:
        UserError: The file cannot be read or parsed, or lacks the key, the certificate, or the
            authorities that `client_verify` needs.
    """
    config = config_files.read(path, _FLAG, "SSLConfig", _FIELDS)
    needed = ["server_key", "server_cert", *(["custom_ca"] if config.client_verify else [])]
    for name in needed:
        if not getattr(config, name):
            raise UserError(
                f"{_FLAG}: expected the field {name} in {path}, found none.",
                "put the text of the PEM file in it, with \\n for the ends of lines.",
            )
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )
