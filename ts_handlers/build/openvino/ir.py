"""Graphs as OpenVINO has them: read from ONNX, without the embedding table, and written as two files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as operators

from ts_handlers.build.engine import Engine, Material
from ts_handlers.build.openvino.shapes import shape_sections
from ts_handlers.build.quantize.graph import Feed
from ts_handlers.runtime.openvino import EMBEDDINGS, IDS, process_core
from ts_handlers.shapes import Array

TABLE_FILE = "embeddings.npy"

_LEAST_ROWS = 1000
"""Rows of an embedding table that is worth taking out: positions and types have fewer."""


def read_model(path: Path) -> Any:
    """Read an ONNX file or an IR."""
    return process_core().read_model(path)


def open_model(path: Path) -> tuple[Any, Array | None]:
    """Read a model, and take its embedding table out where it has one."""
    model = read_model(path)
    return model, take_out_embeddings(model)


def take_out_embeddings(model: Any) -> Array | None:
    """Make the rows of the word embedding table an input, in place; every compiled graph would have a copy of the table.

    Returns:
        The table `(vocabulary, hidden)` float32; None where there is none, and the model is left as it was.
    """
    lookup = next((node for node in model.get_ordered_ops() if _looks_up_words(node)), None)
    if lookup is None:
        return None
    table: Array = np.array(lookup.input_value(0).get_node().data, dtype=np.float32)
    rows = operators.parameter([-1, -1, table.shape[1]], np.float32, name=EMBEDDINGS)
    rows.output(0).set_names({EMBEDDINGS})
    for target in lookup.output(0).get_target_inputs():
        target.replace_source_output(rows.output(0))
    model.add_parameters([rows])
    model.validate_nodes_and_infer_types()
    return table


def with_embeddings(feed: Feed, table: Array | None) -> dict[str, Array]:
    """Return what the graph is fed, the rows of the table among it."""
    return dict(feed) if table is None else {**feed, EMBEDDINGS: table[feed[IDS]]}


def write_ir(model: Any, table: Array | None, folder: Path) -> tuple[Path, Path | None]:
    """Write the graph (model.xml, and model.bin with its weights) and the table; return the graph's file and the table's."""
    path = folder / "model.xml"
    _name_by_place(model)
    ov.save_model(model, path, compress_to_fp16=False)
    if table is None:
        return path, None
    np.save(folder / TABLE_FILE, table)
    return path, folder / TABLE_FILE


def engine_runtime(runtime: Mapping[str, Any], table_file: Path | None) -> dict[str, Any]:
    """Return `handler.runtime` of a graph with this table."""
    table = {} if table_file is None else {"embedding_file": table_file.name}
    return {"backend": "openvino", **runtime, **table}


def write_engine(
    model: Any,
    table: Array | None,
    material: Material,
    folder: Path,
    runtime: Mapping[str, Any],
    details: Mapping[str, Any],
) -> Engine:
    """Write the files of an engine, and choose the shapes that it has graphs for."""
    path, table_file = write_ir(model, table, folder)
    runtime = {**engine_runtime(runtime, table_file), "target_cpu": material.target.name}
    sections, chosen_by = shape_sections(material)
    extra = [path.with_suffix(".bin"), *([table_file] if table_file else [])]
    return Engine(path, runtime, tuple(extra), sections, {**details, "shapes": {"chosen_by": chosen_by}})


def _name_by_place(model: Any) -> None:
    """Name nodes that OpenVINO named by a counter of the process by their place: the same graph gives the same bytes."""
    for index, node in enumerate(model.get_ordered_ops()):
        if re.fullmatch(rf"{node.get_type_name()}(_\d+)+", node.friendly_name):
            node.friendly_name = f"{node.get_type_name()}_at_{index}"


def _looks_up_words(node: Any) -> bool:
    if node.get_type_name() != "Gather" or node.input_value(0).get_node().get_type_name() != "Constant":
        return False
    shape = list(node.input_value(0).get_node().shape)
    return len(shape) == 2 and shape[0] >= _LEAST_ROWS and _is_ids(node.input_value(1).get_node())


def _is_ids(node: Any) -> bool:
    """Say whether a node gives the token ids, perhaps in another type."""
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Parameter" and node.output(0).any_name == IDS)
