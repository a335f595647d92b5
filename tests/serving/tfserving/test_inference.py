import types

import numpy as np
import pytest

from serving.tfserving import inference
from serving.tfserving.protos import get_model_metadata_pb2
from serving.tfserving.status import ServingError

EXAMPLES = [b"one", b"two"]
SCORES = np.array([[0.5, 0.25], [1.0, 2.0]], np.float32)
LABELS = np.array([[b"a", b"b"], [b"c", b"d"]], object)
KINDS = {np.float32: "float", np.float64: "double", np.object_: "string"}


def servable(outputs, inputs=("inputs",), method=""):
    """Something that returns the outputs for any examples, under the name serving_default."""
    definitions = get_model_metadata_pb2.SignatureDefMap()
    definition = definitions.signature_def["serving_default"]
    definition.method_name = method
    for name in inputs:
        definition.inputs[name].name = name
    asked = []

    def predict(signature_name, arrays):
        asked.append({name: array.tolist() for name, array in arrays.items()})
        return outputs

    return types.SimpleNamespace(
        signature_defs=definitions,
        output_types=lambda name: {k: KINDS[v.dtype.type] for k, v in outputs.items()},
        predict=predict,
        asked=asked,
    )


def test_classes_with_scores():
    answers = servable({"classes": LABELS, "scores": SCORES})
    assert inference.classify(answers, "", EXAMPLES) == [
        [("a", 0.5), ("b", 0.25)],
        [("c", 1.0), ("d", 2.0)],
    ]
    assert answers.asked == [{"inputs": EXAMPLES}]


def test_classes_without_scores_and_scores_without_classes():
    assert inference.classify(servable({"scores": SCORES}), "", EXAMPLES)[0] == [
        ("", 0.5),
        ("", 0.25),
    ]
    assert inference.classify(servable({"classes": LABELS}), "", EXAMPLES)[1] == [
        ("c", 0.0),
        ("d", 0.0),
    ]


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_values(shape):
    values = np.array([1.5, 2.5], np.float32).reshape(shape)
    assert inference.regress(servable({"outputs": values}), "", EXAMPLES).tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("call", "outputs", "message"),
    [
        ("classify", {"y": SCORES}, "at least one of"),
        ("classify", {"classes": LABELS, "scores": SCORES, "y": SCORES}, "at least one of"),
        ("classify", {"scores": SCORES.astype(np.float64)}, "scores Tensor of type float"),
        ("classify", {"classes": SCORES}, "classes Tensor of type string"),
        ("classify", {"scores": SCORES[:1]}, r"scores of shape \[2, number of classes\]"),
        ("classify", {"scores": SCORES[:, 0]}, r"scores of shape \[2, number of classes\]"),
        ("classify", {"classes": LABELS[:, :1], "scores": SCORES}, "found 1 and 2"),
        ("regress", {"y": SCORES}, "one output Tensor outputs"),
        ("regress", {"outputs": SCORES[:, 0].astype(np.float64)}, "outputs Tensor of type float"),
        ("regress", {"outputs": SCORES}, r"either \[2\] or \[2, 1\], found \[2, 2\]"),
    ],
)
def test_signatures_of_another_form(call, outputs, message):
    with pytest.raises(ServingError, match=message):
        getattr(inference, call)(servable(outputs), "", EXAMPLES)


@pytest.mark.parametrize("call", ["classify", "regress"])
def test_inputs_and_names(call):
    run = getattr(inference, call)
    with pytest.raises(ServingError, match="No signature was found with the name: none"):
        run(servable({}), "none", EXAMPLES)
    for inputs in ((), ("x",), ("inputs", "x")):
        with pytest.raises(ServingError, match="one input Tensor inputs"):
            run(servable({}, inputs), "", EXAMPLES)


@pytest.mark.parametrize(
    ("call", "outputs"),
    [("classify", {"scores": SCORES}), ("regress", {"outputs": SCORES[:, 0]})],
)
def test_P2_method_name_is_checked_on_demand_only(call, outputs):
    run = getattr(inference, call)
    other = servable(outputs, method="tensorflow/serving/predict")
    assert len(run(other, "", EXAMPLES)) == 2
    with pytest.raises(ServingError, match=f"to be tensorflow/serving/{call}. Was: .*predict"):
        run(other, "", EXAMPLES, check_method=True)
    own = servable(outputs, method=f"tensorflow/serving/{call}")
    assert len(run(own, "", EXAMPLES, check_method=True)) == 2
