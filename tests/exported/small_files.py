"""Exported classifiers that are written without torch's exporter, in milliseconds."""

import json

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the extra export")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

CLASSES = ("cat", "dog", "Ærø", "d", "e")


def write_classifier(path, pipeline, size, multi_label=True):
    """Writes an ``.onnx`` file whose logits weigh the mean colours of the four quarters of a picture."""
    draw = np.random.default_rng(0)
    weights = draw.normal(0, 6, (12, len(CLASSES))).astype(np.float32)
    weights -= weights.mean(0)  # of grey pictures, logits of about 0
    pool = size // 2
    nodes = [
        helper.make_node("AveragePool", ["images"], ["means"], kernel_shape=[pool, pool], strides=[pool, pool]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(CLASSES)])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    entry = model.metadata_props.add()
    entry.key = "tresnet_downstream"
    content = {"kind": "classifier", "classes": CLASSES, "multi_label": multi_label, "pipeline": pipeline}
    entry.value = json.dumps(content)
    onnx.save(model, path)
    return path
