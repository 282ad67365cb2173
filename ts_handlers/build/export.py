"""A source model -> ONNX, with attention fused for ONNX Runtime."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch

from ts_handlers.build.sources.model import ModelSource
from ts_handlers.errors import OperatorError, all_lines

OPSET = 17
"""Newest opset the TorchScript exporter writes; it has LayerNormalization, which the optimizer fuses further."""

FUSABLE = frozenset({"bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra"})
"""Architectures whose graph ONNX Runtime's "bert" optimizer fuses (xlm-roberta and camembert are roberta's code, and not in
the tests); others run unfused. The check against the source judges each build."""


class _Positional(torch.nn.Module):
    """The model with positional inputs and a tuple of outputs, as the exporter wants it."""

    def __init__(self, source: ModelSource) -> None:
        super().__init__()
        self.model = source.unused_model()
        self.input_names = source.input_names
        self.output_names = source.output_names

    def forward(self, *arrays: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = self.model(**dict(zip(self.input_names, arrays, strict=True)), return_dict=True)
        return tuple(outputs[name] for name in self.output_names)


def export_onnx(source: ModelSource, path: Path) -> None:
    """Write the model as fp32 ONNX with dynamic batch and length, or, where pictures keep their shape, height and width.

    The TorchScript exporter is used although it is deprecated: from the graph of the torch.export based one, ONNX
    Runtime's optimizer fuses no attention.

    Raises:
        OperatorError: The exporter cannot.
    """
    example = source.example()
    module = source.scripted() or _Positional(source).eval()  # the exporter gives a model back in its wrapper's mode
    with _quiet_exporter(), torch.inference_mode():
        try:
            torch.onnx.export(
                module,
                tuple(example[name] for name in source.input_names),
                str(path),
                input_names=list(source.input_names),
                output_names=list(source.output_names),
                dynamic_axes=source.dynamic_axes(),
                opset_version=OPSET,
                dynamo=False,
            )
        except OperatorError:
            raise
        except Exception as error:  # a model can be beyond the exporter in many ways
            raise OperatorError(
                f"{source.architecture} cannot be exported to ONNX ({all_lines(error)}); use --backend torch"
            ) from error


def fuse(source: ModelSource, path: Path, fused_path: Path) -> dict[str, int]:
    """Fuse attention, GELU and the embedding into ONNX Runtime's operators.

    SkipLayerNormalization is left out: on the CPU its kernel takes longer than the addition and the normalization do
    apart (`ts_handlers.runtime.onnx.session` keeps ONNX Runtime from fusing them when it loads the model).

    Returns:
        How many of each operator of ONNX Runtime's own domain the graph has; empty where the architecture is not known
        to the optimizer and the graph is left as it was.
    """
    if source.model.config.model_type not in FUSABLE:
        shutil.copyfile(path, fused_path)
        return {}
    from onnxruntime.transformers import optimizer  # a large import, only where it is used
    from onnxruntime.transformers.fusion_options import FusionOptions

    config = source.model.config
    options = FusionOptions("bert")
    options.enable_skip_layer_norm = False
    options.enable_bias_skip_layer_norm = False
    with _quiet_optimizer():
        model = optimizer.optimize_model(
            str(path),
            model_type="bert",
            num_heads=config.num_attention_heads,
            hidden_size=config.hidden_size,
            optimization_options=options,
            opt_level=0,
        )
        model.save_model_to_file(str(fused_path))
    return count_operators(fused_path)


def count_operators(path: Path) -> dict[str, int]:
    """Count the operators of ONNX Runtime's own domain in a model."""
    graph = onnx.load(str(path), load_external_data=False).graph
    return dict(sorted(Counter(node.op_type for node in graph.node if node.domain == "com.microsoft").items()))


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence what the exporter says of itself (deprecation, constants it traced): the check of the result judges it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _quiet_optimizer() -> Iterator[None]:
    logger: Any = logging.getLogger("onnxruntime.transformers")
    root = logging.getLogger()
    levels = logger.level, root.level
    logger.setLevel(logging.ERROR)
    root.setLevel(logging.ERROR)  # some of its modules log to the root
    try:
        yield
    finally:
        logger.setLevel(levels[0])
        root.setLevel(levels[1])
