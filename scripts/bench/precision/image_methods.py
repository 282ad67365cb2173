"""The ways to make an engine of a convolutional network, from the functions that quantize any graph."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path

import onnx
import torch

from bench.efficientnet import example, model_input
from bench.photographs import Picture
from ts_handlers.build import export
from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.methods.catalogue import find_method
from ts_handlers.build.quantize.graph import Feed
from ts_handlers.build.quantize.int8 import CalibrationMethod, quantize_static
from ts_handlers.build.steps import step
from ts_handlers.errors import OperatorError

STATIC: tuple[CalibrationMethod, ...] = ("minmax", "percentile", "entropy")


def image_methods(pictures: Sequence[Picture]) -> tuple[Method, ...]:
    """Return the methods, calibrated on these pictures."""
    quantize_openvino = partial(_make_nncf, pictures=pictures)
    return (
        find_method("onnx", "fp32", None),
        *(
            Method("onnx", "int8", f"static-{method}", partial(_make_static, pictures=pictures, method=method))
            for method in STATIC
        ),
        *(
            Method("openvino", precision, None, partial(_make_openvino, precision=precision), packages=("openvino",))
            for precision in ("fp32", "bf16")
        ),
        Method("openvino", "int8", "nncf", quantize_openvino, packages=("openvino", "nncf")),
        *(
            Method("torch", precision, None, partial(_make_torch, precision=precision))
            for precision in ("fp32", "bf16")
        ),
    )


class ImageMaterial(Material):
    """A network on pictures as the methods know a model on texts; `source.model` is a `bench.efficientnet.Logits`."""

    @cached_property
    def exported(self) -> Path:
        """The network as fp32 ONNX with a dynamic batch."""
        path = self.work / "exported.onnx"
        with step(self.progress, "export to ONNX"), warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # what the exporter says of itself
            torch.onnx.export(
                self.source.model.network,
                (example(),),
                str(path),
                input_names=["pixel_values"],
                output_names=["logits"],
                dynamic_axes={"pixel_values": {0: "batch"}, "logits": {0: "batch"}},
                opset_version=export.OPSET,
                dynamo=False,
            )
        return path

    @cached_property
    def fused(self) -> Path:
        """The same: ONNX Runtime fuses convolutions when it loads them."""
        return self.exported


def feeds(pictures: Sequence[Picture]) -> Iterator[Feed]:
    """Yield the pictures one by one, each as a batch."""
    for picture in pictures:
        yield {name: array[None] for name, array in model_input(picture).arrays.items()}


def _make_static(material: Material, folder: Path, *, pictures: Sequence[Picture], method: CalibrationMethod) -> Engine:
    target, model = material.target, folder / "model.onnx"
    with step(material.progress, f"calibrate on {len(pictures)} pictures ({method}) and quantize to INT8"):
        done = quantize_static(
            onnx.load(str(material.exported)),
            model,
            feeds(pictures),
            method=method,
            reduce_range=not target.has_vnni,
            is_signed=target.is_arm,
        )
    return Engine(model, {"backend": "onnx", "precision": "int8"}, details={"quantization": done})


def _make_openvino(material: Material, folder: Path, *, precision: str) -> Engine:
    if precision == "bf16":
        _check_bf16(material)
    from ts_handlers.build.openvino import ir

    model, _ = ir.write_ir(ir.read_model(material.exported), None, folder)
    return Engine(model, ir.engine_runtime({"precision": precision}, None), (model.with_suffix(".bin"),))


def _make_nncf(material: Material, folder: Path, *, pictures: Sequence[Picture]) -> Engine:
    from ts_handlers.build.openvino import ir, nncf

    settings = nncf.NncfSettings(
        smooth_quant_alpha=nncf.NOT_SMOOTHED, is_transformer=False, has_full_range=material.target.has_vnni
    )
    with step(material.progress, f"quantize with NNCF on {len(pictures)} pictures"):
        quantized = nncf.quantize(ir.read_model(material.exported), None, list(feeds(pictures)), settings)
    path, _ = ir.write_ir(quantized, None, folder)
    runtime = ir.engine_runtime(nncf.int8_runtime(material), None)
    return Engine(path, runtime, (path.with_suffix(".bin"),), details={"quantization": settings.as_dict()})


def _make_torch(material: Material, folder: Path, *, precision: str) -> Engine:
    """Export the network with channels last, which is how torch's convolutions like pictures."""
    if precision == "bf16":
        _check_bf16(material)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    network = _ChannelsLast(copy.deepcopy(material.source.model.network), dtype).eval()
    shapes = {"pixel_values": {0: torch.export.Dim.AUTO}}
    with step(material.progress, "export to torch"), torch.no_grad():
        program = torch.export.export(network, (), {"pixel_values": example()}, dynamic_shapes=shapes)
        torch.export.save(program, folder / "model.pt2")
    return Engine(folder / "model.pt2", {"backend": "torch", "precision": precision})


class _ChannelsLast(torch.nn.Module):
    """A network that computes in a type of its own; floats go in and come out."""

    def __init__(self, network: torch.nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        self.network = network.to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(pixel_values.to(self._dtype).contiguous(memory_format=torch.channels_last))
        return logits.float()


def _check_bf16(material: Material) -> None:
    if not material.target.has_bf16:
        raise OperatorError(f"the CPU ({material.target.name}) does not multiply bf16")
