"""A broker of Kafka on this machine: one process that is its own controller (KRaft).

It listens on the loopback address only.
"""

import base64
import contextlib
import pathlib
import subprocess
import uuid
from collections.abc import Iterator

import java_processes

PASSWORD = "s3cret"
"""Password of the user `reader`, who may do nothing but what somebody allows."""

_PATIENCE = 60  # seconds
_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
_CONFIG = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAIN://127.0.0.1:{plain},LOGIN://127.0.0.1:{login},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=PLAIN:PLAINTEXT,LOGIN:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAIN
sasl.enabled.mechanisms=PLAIN
listener.name.login.plain.sasl.jaas.config={module} required user_reader="{password}";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
log.dirs={scratch}/data
auto.create.topics.enable=true
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
log.cleaner.backoff.ms=100
log.cleaner.dedupe.buffer.size=2000000
log.retention.check.interval.ms=100
"""
_JAVA = ["java", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]


@contextlib.contextmanager
def running(scratch: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Starts a broker.

    Args:
        scratch: Directory for configuration, logs and messages.

    Yields:
        Its address, and another one where the user `reader` has to give the password.
    """
    java = [*_JAVA, f"{java_processes.jars('kafka')}/*"]
    plain, login, controller = java_processes.free_ports(3)
    config = scratch / "server.properties"
    settings = {"plain": plain, "login": login, "controller": controller, "scratch": scratch}
    config.write_text(
        _CONFIG.format(module=_LOGIN, password=PASSWORD, **settings), encoding="utf-8"
    )
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    storage = [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(config)]
    subprocess.run(storage, check=True, capture_output=True)
    with java_processes.process(
        [*java, "kafka.Kafka", str(config)],
        scratch / "broker.log",
        lambda: java_processes.listens(login),
        _PATIENCE,
    ):
        yield f"127.0.0.1:{plain}", f"127.0.0.1:{login}"
