"""OpenVINO: fp32, bf16 (which costs next to no accuracy and needs no calibration), and INT8 by NNCF.

One graph is compiled for each of a few shapes, which are chosen by what calls cost on this machine.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.steps import step
from ts_handlers.errors import OperatorError

PACKAGES = ("openvino",)


def make_float(material: Material, folder: Path, *, precision: str) -> Engine:
    """Convert the exported graph; the file has fp32, bf16 is what it is computed in.

    Raises:
        OperatorError: The serving CPU only emulates bf16.
    """
    if precision == "bf16" and not material.target.has_bf16:
        raise OperatorError(f"the serving CPU ({material.target.name}) does not multiply bf16; take fp32 or int8")
    from ts_handlers.build.openvino import ir

    exported = material.exported
    with step(material.progress, "convert to OpenVINO"):
        model = ir.read_model(exported)
        table = ir.take_out_embeddings(model)
    return ir.write_engine(model, table, material, folder, {"precision": precision}, {})


def make_int8(material: Material, folder: Path) -> Engine:
    """Quantize the exported graph by the ranges of its activations.

    What has no integers is computed in bf16 where the serving CPU can.
    """
    if material.calibration is None:
        raise OperatorError("NNCF measures activations; give --calibration FILE")
    from ts_handlers.build.openvino import ir, nncf

    settings = nncf.NncfSettings(has_full_range=material.target.has_vnni)
    model = ir.read_model(material.exported)
    table = ir.take_out_embeddings(model)
    fed = nncf.calibration_feeds(material, material.calibration, table)
    with step(material.progress, f"quantize with NNCF on {len(fed)} batches of samples"):
        quantized = nncf.quantize(model, fed, settings)
    return ir.write_engine(
        quantized, table, material, folder, nncf.int8_runtime(material), {"quantization": settings.as_dict()}
    )


METHODS = (
    *(
        Method("openvino", precision, None, partial(make_float, precision=precision), packages=PACKAGES)
        for precision in ("fp32", "bf16")
    ),
    Method("openvino", "int8", "nncf", make_int8, packages=(*PACKAGES, "nncf"), needs_calibration=True),
)
