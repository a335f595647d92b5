"""Settings of the training: the section "train" of a configuration."""

import dataclasses
import math

from models.ops.choices import EMBEDDING_OPTIMIZERS, NATIVE_OPS, PRECISIONS, SHARDINGS
from preprocessing.errors import UserError
from preprocessing.json_checks import did_you_mean
from preprocessing.values.limits import limited

SCHEDULES = ("constant", "cosine", "plateau")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of the training.

    Attributes:
        batch_size: Requests per step, over all replicas.
        epochs: Maximum number of passes over the training split.
        max_steps: Maximum number of steps; 0 for no bound.
        learning_rate: Learning rate of Adam for the dense weights.
        embedding_learning_rate: Learning rate of the tables; 0 for `learning_rate`.
        schedule: Schedule of both learning rates: constant; cosine, which falls to 0 in
            `decay_steps`; or plateau, which multiplies by `plateau_factor` after `plateau_patience`
            evaluations without a better validation AUC. Steps of self-supervision alone keep a
            constant rate.
        warmup_steps: Steps in which the learning rates rise from 0, with any schedule.
        decay_steps: Steps of the cosine, the warm-up included.
        plateau_factor: Factor of the schedule plateau.
        plateau_patience: Patience of the schedule plateau, in evaluations.
        positive_weight: Weight of a sample with label 1 in the log loss; label 0 has weight 1.
            Scores are then no longer click probabilities.
        sample_weight: Name of a numeric feature without normalisation that weighs the samples in
            the log loss: of a request (user or context) or of a candidate (item). "" for none.
            Evaluation metrics ignore these weights.
        l2: Factor of the squared norm of the dense kernels in the loss.
        clip_norm: Bound on the gradient's global norm; 0 for none.
        oov_rate: Share of the known values that a step replaces by out-of-vocabulary ids, so that
            the rows of these ids are trained: values unseen in training are common in tests.
        evaluations_per_epoch: Number of evaluations of the validation AUC per epoch. CTR models
            overfit within a few epochs, so once per epoch is too seldom to catch the best weights.
            There are at least 40 steps between evaluations, however short the epoch.
        patience: Passes without a better validation AUC before training stops, a pass being
            `evaluations_per_epoch` evaluations; also passes without a lower self-supervised
            loss on the histories of the validation split before pre-training stops.
        pretrain_epochs: Maximum number of passes over the histories with the self-supervised loss
            alone, before the main loss starts.
        ssl_steps: Steps with the self-supervised loss alone for each step of the main loss: 4 means
            four before each step, 0.25 means one before every fourth step. They have a separate
            stream of histories and separate optimisers.
        ssl_learning_rate: Learning rate of the dense weights in steps with the self-supervised loss
            alone; 0 for `learning_rate`.
        ssl_embedding_learning_rate: Learning rate of the tables in these steps; 0 for
            `ssl_learning_rate`, or for `learning_rate` if that is 0 too.
        replay: Steps of the main loss on requests of the days before for each step on the new day,
            in a run that continues another one: 0.1 means one ahead of every tenth step.
        joint: Whether steps of the main loss minimise its sum with the self-supervised loss (MISS,
            eq. 17), with the optimisers of the main loss.
        sampling_rate: Share of the training samples (candidates with their labels) that is kept.
        label_noise: Share of the training labels that is flipped.
        unlabelled_histories: Whether self-supervision reads the histories of training requests that
            `sampling_rate` leaves without any sample.
        data_memory: Maximum size in MiB of a split that is decoded once and held in main memory;
            larger ones are read from their shards in every epoch. The batches are the same.
        steps_per_execution: Maximum number of steps that run without a return to Python; the
            weights are the same.
        checkpoint_minutes: Maximum age of the last checkpoint in minutes before another one is
            written; evaluations write one in any case.
        histograms: Whether TensorBoard gets the distributions of all trained weights at every
            evaluation.
        seed: Seed of initial weights, order of the data and random draws.
        deterministic: Whether TensorFlow uses deterministic operations only (slower).
        distribute: Strategy: auto, one_device, mirrored, multi_worker or parameter_server; see
            `models.distributed.distribution`.
        sharding: What each of several synchronous processes reads: batches, all of them, to train
            on its rows of each; or files, shards of its own, each of which one process reads.
        peer_timeout: Seconds to wait for the other processes of a cluster.
        embedding_optimizer: Optimiser of the tables: lazy_adam, adagrad or adam; see
            `models.ops.optimizers`.
        embedding_clip_norm: Bound on the global norm of the tables' gradients; `clip_norm` then
            bounds those of the other weights alone. 0 for one bound on all gradients.
        tables_on_cpu: Whether embedding tables and their optimiser stay in main memory, while one
            GPU computes.
        precision: Precision of training: float32, mixed_bfloat16 or mixed_float16. Metrics of the
            best weights and exported models use float32.
        native_ops: Whether steps use operations that were compiled for this machine: auto, where
            there are any and they do the same; or off. See `models.training.native_operations`.
    """

    batch_size: int = limited(128, at_least=1)
    epochs: int = limited(20, at_least=1)
    max_steps: int = limited(0, at_least=0)
    learning_rate: float = limited(1e-3, above=0)
    embedding_learning_rate: float = limited(0.0, at_least=0)
    schedule: str = "constant"
    warmup_steps: int = limited(0, at_least=0)
    decay_steps: int = limited(0, at_least=0)
    plateau_factor: float = limited(0.5, above=0, below=1)
    plateau_patience: int = limited(2, at_least=1)
    positive_weight: float = limited(1.0, above=0)
    sample_weight: str = ""
    l2: float = limited(0.0, at_least=0)
    clip_norm: float = limited(0.0, at_least=0)
    oov_rate: float = limited(0.05, at_least=0, below=1)
    evaluations_per_epoch: int = limited(4, at_least=1)
    patience: float = limited(1.25, above=0)
    pretrain_epochs: int = limited(0, at_least=0)
    ssl_steps: float = limited(0.0, at_least=0)
    ssl_learning_rate: float = limited(0.0, at_least=0)
    ssl_embedding_learning_rate: float = limited(0.0, at_least=0)
    replay: float = limited(0.0, at_least=0)
    joint: bool = False
    sampling_rate: float = limited(1.0, above=0, at_most=1)
    label_noise: float = limited(0.0, at_least=0, at_most=1)
    unlabelled_histories: bool = False
    data_memory: int = limited(512, at_least=0)
    steps_per_execution: int = limited(1, at_least=1)
    checkpoint_minutes: float = limited(10.0, above=0)
    histograms: bool = False
    seed: int = limited(1, at_least=0)
    deterministic: bool = False
    distribute: str = "auto"
    sharding: str = "batches"
    peer_timeout: float = limited(300.0, above=0)
    embedding_optimizer: str = "lazy_adam"
    embedding_clip_norm: float = limited(0.0, at_least=0)
    tables_on_cpu: bool = False
    precision: str = "float32"
    native_ops: str = "auto"

    def __post_init__(self) -> None:
        """Raises `UserError` on unknown names and on a schedule that makes no sense."""
        self._check_schedule()
        self._check_sharding()
        for name, choices in (
            ("embedding_optimizer", EMBEDDING_OPTIMIZERS),
            ("precision", PRECISIONS),
            ("native_ops", NATIVE_OPS),
        ):
            value = getattr(self, name)
            if value not in choices:
                raise UserError(
                    f"Expected train.{name} to be one of {', '.join(choices)}, found {value!r}.",
                    did_you_mean(value, choices),
                )

    def _check_sharding(self) -> None:
        """Raises `UserError` for an unknown sharding, or one that the strategy does not have."""
        if self.sharding not in SHARDINGS:
            raise UserError(
                f"Expected train.sharding to be one of {', '.join(SHARDINGS)}, found "
                f"{self.sharding!r}.",
                did_you_mean(self.sharding, SHARDINGS),
            )
        if self.sharding == "files" and self.distribute == "parameter_server":
            raise UserError(
                "Expected train.sharding=batches with --distribute=parameter_server, whose "
                "coordinator reads all shards for its workers, found 'files'.",
                "leave train.sharding out, or choose --distribute=multi_worker.",
            )

    def _check_schedule(self) -> None:
        """Raises `UserError` for unknown schedules and for inconsistent numbers of steps."""
        if self.schedule not in SCHEDULES:
            raise UserError(
                f"Expected train.schedule to be one of {', '.join(SCHEDULES)}, "
                f"found {self.schedule!r}.",
                did_you_mean(self.schedule, SCHEDULES),
            )
        if (self.schedule == "cosine") != (self.decay_steps > 0):
            raise UserError(
                "Expected train.decay_steps with train.schedule=cosine and only there, found "
                f"{self.decay_steps} with {self.schedule!r}.",
                "set both, for example to the steps of a few epochs, or none.",
            )
        if 0 < self.decay_steps <= self.warmup_steps:
            raise UserError(
                "Expected train.decay_steps, which include the warm-up, to be more than "
                f"train.warmup_steps={self.warmup_steps}, found {self.decay_steps}."
            )

    @property
    def has_ssl_steps(self) -> bool:
        """Whether there are steps with the self-supervised loss alone."""
        return self.pretrain_epochs > 0 or self.ssl_steps > 0

    def ssl_steps_ahead(self, step: int) -> int:
        """Number of steps with the self-supervised loss alone before a step of the main loss.

        Args:
            step: Number of the step, counted from 0.
        """
        return _steps_ahead(self.ssl_steps, step)

    def replayed_steps_ahead(self, step: int) -> int:
        """Number of steps on requests of the days before ahead of a step on the new day.

        Args:
            step: Number of the step, counted from 0.
        """
        return _steps_ahead(self.replay, step)


def _steps_ahead(rate: float, step: int) -> int:
    """Number of steps of another kind ahead of a step, if there are `rate` of them per step."""
    return math.ceil((step + 1) * rate) - math.ceil(step * rate)
