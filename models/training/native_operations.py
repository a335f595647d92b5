"""Whether a training uses compiled operations, and the line that says so."""

from models.config.training import TrainConfig
from models.core.base import CTRModel
from models.distributed.distribution import Distribution
from models.keras import tf
from models.layers.attention.local_activation import LocalActivation
from models.ops.native import library

_TITLE = "attention unit"


def use(model: CTRModel, train: TrainConfig, distribution: Distribution) -> str:
    """Lets the steps of a model use compiled operations where they can.

    Args:
        model: Model with weights; evaluating and exporting it do not change.
        train: Settings of the training.
        distribution: Distribution under which the model was built.

    Returns:
        What the steps use and why, as a line; "" if the model has nothing that could be compiled,
        or its user wants nothing compiled.
    """
    units = [unit for unit in model.submodules if isinstance(unit, LocalActivation)]
    units = [unit for unit in units if unit.has_native_form]
    if not units or train.native_ops == "off":
        return ""
    if reason := _reason_against(train, distribution):
        return f"{_TITLE}: TensorFlow's operations, because {reason}"
    compiled = library.find()
    if compiled is None:
        return (
            f"{_TITLE}: TensorFlow's operations; `{library.BUILD}` compiles a faster one for this "
            "machine"
        )
    operations = library.load(compiled)
    for unit in units:
        unit.use_native(operations)
    return f"{_TITLE}: compiled operation ({compiled.name})"


def _reason_against(train: TrainConfig, distribution: Distribution) -> str:
    """Why a training cannot use compiled operations; "" if it can."""
    if distribution.cluster is not None or distribution.replicas > 1:
        return "the compiled one is for a single replica"
    if tf.config.list_logical_devices("GPU"):
        return "the compiled one is for CPUs"
    if train.precision != "float32":
        return f"the compiled one is for float32, not {train.precision}"
    if train.deterministic:
        return "a deterministic run does not depend on what is compiled"
    return ""
