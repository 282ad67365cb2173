"""Other names for the tensors of an ONNX graph, wherever they occur: weights, annotations, and the bodies of If and Loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx


def rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give tensors other names; what had those names before gets others.

    Args:
        graph: It is changed.
        names: Old name -> new name.
    """
    before = set(_names(graph))
    changes = {old: new for old, new in names.items() if old != new}
    for new in (before & set(changes.values())) - set(changes):
        number = 1
        while f"{new}_{number}" in before | set(changes.values()):
            number += 1
        changes[new] = f"{new}_{number}"
    _apply(graph, changes)


def _bodies(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from (*node.input, *node.output)
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        yield value.name
    for body in _bodies(graph):
        yield from _names(body)


def _apply(graph: onnx.GraphProto, changes: Mapping[str, str]) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = changes.get(name, name)
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = changes.get(value.name, value.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = changes.get(sparse.values.name, sparse.values.name)
    for annotation in graph.quantization_annotation:
        annotation.tensor_name = changes.get(annotation.tensor_name, annotation.tensor_name)
        for entry in annotation.quant_parameter_tensor_names:
            entry.value = changes.get(entry.value, entry.value)
    for body in _bodies(graph):
        _apply(body, changes)
