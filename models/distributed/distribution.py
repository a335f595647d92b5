"""Distribution of training over processes and devices: tf.distribute behind one flag.

Synchronous replicas (`mirrored`, `multi_worker`) train on the rows of the same batch and apply the
same update, so that their number changes only the order of additions. With `parameter_server`,
workers train on separate batches, and their updates are asynchronous.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from models.config.training import TrainConfig
from models.distributed import tf_cluster
from models.keras import tf
from models.ops import replicas
from models.ops.choices import STRATEGIES
from preprocessing.errors import UserError
from preprocessing.json_checks import did_you_mean

_MIN_SHARD_BYTES = 256 << 10
"""Minimum size of a shard of a table on a parameter server (as TensorFlow advises)."""


class Distribution:
    """A tf.distribute strategy with the operations that a training run needs.

    Args:
        name: One of `STRATEGIES`; auto means mirrored if there are several GPUs, else one_device.
        peer_timeout: Seconds to wait for the other processes of a cluster.
        tables_on_cpu: Whether embedding tables stay in main memory, while one GPU computes.

    Attributes:
        strategy: The tf.distribute strategy.
        cluster: Cluster of this process; None if it trains alone.

    Raises:
        UserError: The name is unknown, TF_CONFIG is wrong, peers are missing, or there are several
            devices with tables on the CPU.
    """

    def __init__(self, name: str, peer_timeout: float = 300.0, tables_on_cpu: bool = False) -> None:
        if name not in STRATEGIES:
            raise UserError(
                f"Expected --distribute to be one of {', '.join(STRATEGIES)}, found {name!r}.",
                did_you_mean(name, STRATEGIES),
            )
        self.cluster: tf_cluster.Cluster | None = None
        self._gather: Callable[[tf.Tensor], tf.Tensor] | None = None
        if name == "multi_worker":
            self.cluster = tf_cluster.multi_worker()
            tf_cluster.await_peers(self.cluster, peer_timeout)
            self.strategy = tf.distribute.MultiWorkerMirroredStrategy()
            tf_cluster.keep_sigterm()
        elif name == "parameter_server":
            self.cluster = tf_cluster.parameter_server()
            if self.cluster.is_server:
                raise UserError(
                    "Expected the chief of the cluster, found "
                    f"{self.cluster.kind} {self.cluster.index}.",
                    "start workers and parameter servers with python -m models.train.",
                )
            tf_cluster.await_peers(self.cluster, peer_timeout)
            self.strategy = _parameter_server(len(self.cluster.addresses["ps"]))
        else:
            self.strategy = _one_process(name, tables_on_cpu)
        if tables_on_cpu and (self.cluster or self.replicas > 1):
            raise UserError(
                f"Expected one device with train.tables_on_cpu, found --distribute={name} with "
                f"{self.replicas} replicas.",
                "choose --distribute=one_device; parameter_server keeps tables in the main memory "
                "of servers.",
            )

    @property
    def replicas(self) -> int:
        """Number of replicas that train synchronously."""
        return self.strategy.num_replicas_in_sync

    @property
    def asynchronous(self) -> bool:
        """Whether workers update the weights asynchronously."""
        return isinstance(self.strategy, tf.distribute.ParameterServerStrategy)

    @property
    def has_peers(self) -> bool:
        """Whether other processes train synchronously with this one."""
        return self.cluster is not None and not self.asynchronous

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run directory: the first of the synchronous ones."""
        if self.cluster is None or self.cluster.kind == "chief":
            return True
        return self.cluster.index == 0 and "chief" not in self.cluster.addresses

    @property
    def place(self) -> tuple[int, int]:
        """The number of this process among the synchronous ones, and how many there are."""
        if self.cluster is None or self.asynchronous:
            return 0, 1
        ahead = len(self.cluster.addresses.get("chief", ()))
        index = self.cluster.index + (0 if self.cluster.kind == "chief" else ahead)
        return index, len(self.cluster.peers) + 1

    def batches(self, dataset: tf.data.Dataset, *, is_part: bool = False) -> Iterator[Any]:
        """An iterator over the batches of the replicas.

        Every worker reads the whole data set and keeps the rows of its replicas: consecutive equal
        parts of each batch, in the order of the replicas. So the batches depend neither on the
        number of workers nor on that of shards, and the position in the data is one number.

        Args:
            dataset: Batches of features, whose first axis is the request.
            is_part: Whether the batches hold the rows of this worker's replicas alone.
        """
        if self.asynchronous:
            return iter(dataset)
        if self.replicas == 1:
            return iter(self.strategy.experimental_distribute_dataset(dataset))

        def of_this_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
            num_local = context.num_replicas_in_sync // context.num_input_pipelines
            total = num_local if is_part else context.num_replicas_in_sync
            first_replica = 0 if is_part else num_local * context.input_pipeline_id

            @tf.autograph.experimental.do_not_convert
            def parts(batch: Mapping[str, tf.Tensor]) -> tf.data.Dataset:
                rows = tf.shape(next(iter(batch.values())))[0]
                return tf.data.Dataset.range(
                    first_replica, first_replica + num_local, output_type=tf.int32
                ).map(
                    lambda replica: {
                        name: value[rows * replica // total : rows * (replica + 1) // total]
                        for name, value in batch.items()
                    }
                )

            # With an infinite data set, replicas need not agree on whether there is a next batch;
            # training counts its steps and stops before the repetition.
            return dataset.flat_map(parts).repeat().prefetch(2 * num_local)

        return iter(self.strategy.distribute_datasets_from_function(of_this_worker))

    def join(self) -> None:
        """Waits until all scheduled steps are done."""
        if self.asynchronous:
            with self.explained_losses():
                self.coordinator().join()

    def coordinator(self) -> tf.distribute.coordinator.ClusterCoordinator:
        """Coordinator of the parameter servers' workers; the same object at every call."""
        return tf.distribute.coordinator.ClusterCoordinator(self.strategy)

    def explained_losses(self) -> Any:
        """A context manager that turns the loss of another process into a `UserError`."""
        return tf_cluster.explained_losses(self.cluster)

    def exchange(self, value: Any) -> list[Any]:
        """The values of all synchronous processes, in order; all of them must call this.

        Args:
            value: JSON content; its type may differ between processes.
        """
        if self.cluster is None or self.asynchronous:
            return [value]
        if self._gather is None:
            self._gather = self._gather_function()
        line = tf.constant([*(json.dumps(value) + "\n").encode()], tf.int32)
        with self.explained_losses():
            lines = bytes(self._gather(line).numpy().astype("uint8")).decode().splitlines()
        processes = len(self.cluster.peers) + 1
        return [json.loads(text) for text in lines[:: len(lines) // processes]]

    def _gather_function(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """A function that concatenates the vectors of all replicas."""

        def of_replica(values: tf.Tensor) -> tf.Tensor:
            return replicas.all_gather(values)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)], autograph=False)
        def gather(values: tf.Tensor) -> tf.Tensor:
            gathered = self.strategy.run(of_replica, (values,))
            return self.strategy.experimental_local_results(gathered)[0]

        return gather

    def everywhere(self, compute: Callable[[], Any]) -> list[Any]:
        """The results of `compute`, JSON content, of all synchronous processes, in order.

        Args:
            compute: Function that every process calls.

        Raises:
            UserError: On all processes, if `compute` of one raises it.
        """
        outcome: dict[str, Any] = {}
        try:
            outcome["result"] = compute()
        except UserError as error:
            if not self.has_peers:
                raise
            outcome["error"] = str(error)
        outcomes = self.exchange(outcome)
        if errors := [one["error"] for one in outcomes if "error" in one]:
            raise UserError(errors[0])
        return [one["result"] for one in outcomes]

    def of_chief(self, compute: Callable[[], Any]) -> Any:
        """The result of `compute` on the chief, JSON content, returned on every process.

        Raises:
            UserError: On all processes, if `compute` raises it.
        """
        return self.everywhere(lambda: compute() if self.is_chief else None)[0]

    def require_equal(self, settings: Mapping[str, Any]) -> None:
        """Raises `UserError` on all processes unless they have equal settings.

        Args:
            settings: Settings of this process by name.

        Raises:
            UserError: Another process has other settings.
        """
        first, *other_settings = self.exchange(settings)
        for index, peer_settings in enumerate(other_settings, 1):
            for name in sorted({*first, *peer_settings}):
                if first.get(name) != peer_settings.get(name):
                    raise UserError(
                        f"Expected the same {name} in every process of the cluster, found "
                        f"{first.get(name)!r} in the first and {peer_settings.get(name)!r} in "
                        f"number {index + 1}.",
                        "start all of them with the same command on the same data.",
                    )


def serve_if_asked(train: TrainConfig) -> bool:
    """Serves until the end of the training if this process is a worker or parameter server.

    Args:
        train: Settings of the training.

    Returns:
        Whether this process served.
    """
    if train.distribute != "parameter_server":
        return False
    cluster = tf_cluster.parameter_server()
    if cluster.is_server:
        tf_cluster.serve(cluster, train.peer_timeout)
    return cluster.is_server


def _one_process(name: str, tables_on_cpu: bool) -> tf.distribute.Strategy:
    """The strategy for auto, one_device or mirrored."""
    gpus = tf.config.list_logical_devices("GPU")
    devices = gpus or tf.config.list_logical_devices("CPU")
    if name == "one_device" or (name == "auto" and len(gpus) < 2):
        if tables_on_cpu:
            # All other strategies place variables on the device that computes.
            return tf.distribute.get_strategy()
        return tf.distribute.OneDeviceStrategy(devices[0].name)
    # The default collectives abort between logical CPUs; this reduction works on any device.
    reduction = None if gpus else tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy([d.name for d in devices], reduction)


def _parameter_server(servers: int) -> tf.distribute.Strategy:
    """The strategy of a coordinator; large variables are sharded over the servers."""
    partitioner = tf.distribute.experimental.partitioners.MinSizePartitioner(
        _MIN_SHARD_BYTES, max_shards=servers
    )
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    return tf.distribute.ParameterServerStrategy(resolver, variable_partitioner=partitioner)
