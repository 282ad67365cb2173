"""OpenVINO: fp32, bf16 (which costs next to no accuracy and needs no calibration), and INT8 by NNCF.

One graph is compiled for each of a few shapes, at the lengths of the calibration texts.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path

from ts_handlers.build.engine import Engine, Material, Method
from ts_handlers.build.held_out import EVERY, open_on_one_thread
from ts_handlers.build.methods.smooth import prepare
from ts_handlers.build.quantize.sensitivity import search
from ts_handlers.build.steps import step
from ts_handlers.errors import OperatorError
from ts_handlers.runtime import Session

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
        model, table = ir.open_model(exported)
    return ir.write_engine(model, table, material, folder, {"precision": precision}, {})


def make_int8(material: Material, folder: Path) -> Engine:
    """Quantize the exported graph by the ranges of its activations, smoothed by NNCF.

    What has no integers is computed in bf16 where the serving CPU can.
    """
    dataset = material.calibrated()
    from ts_handlers.build.openvino import ir, nncf

    settings = nncf.NncfSettings(has_full_range=material.target.has_vnni)
    model, table = ir.open_model(material.exported)
    samples = dataset.spread(nncf.MAX_TEXTS)
    with step(material.progress, f"quantize with NNCF on {len(samples)} samples"):
        quantized = nncf.quantize(model, table, nncf.calibration_feeds(material, samples), settings)
    done = {"method": "nncf", **settings.as_dict(), "calibration_samples": len(samples)}
    return ir.write_engine(quantized, table, material, folder, nncf.int8_runtime(material), {"quantization": done})


def make_accurate(material: Material, folder: Path) -> Engine:
    """Quantize the exported graph, and let NNCF take back what costs more accuracy than the gate allows.

    Accuracy is measured on every third of the calibration samples; the gate's own samples stay unseen.
    """
    dataset = material.calibrated()
    if material.source.task != "text-classification":
        raise OperatorError("--quantizer nncf-accuracy needs a right label for each text; take nncf or nncf-mixed")
    from ts_handlers.build.openvino import ir, nncf

    chosen = range(0, len(dataset), -(-len(dataset) // nncf.MAX_TEXTS))
    samples = [pair for index, pair in enumerate(zip(dataset, dataset.labels, strict=True)) if index in chosen]
    settings = nncf.NncfSettings(has_full_range=material.target.has_vnni)
    model, table = ir.open_model(material.exported)
    fed = nncf.calibration_feeds(material, [item for number, (item, _) in enumerate(samples) if number % EVERY])
    labelled = [({name: array[None] for name, array in item.arrays.items()}, label) for item, label in samples[::EVERY]]
    max_drop = material.limits.max_accuracy_drop / 100
    with step(material.progress, f"quantize with NNCF, accuracy controlled on {len(labelled)} samples"):
        quantized = nncf.quantize_by_accuracy(model, table, fed, labelled, max_drop, settings)
    done = {"method": "nncf-accuracy", **settings.as_dict(), "max_drop": max_drop, "labelled_samples": len(labelled)}
    return ir.write_engine(quantized, table, material, folder, nncf.int8_runtime(material), {"quantization": done})


def make_mixed(material: Material, folder: Path) -> Engine:
    """Quantize smoothed and rounded weights, and compute the worst products in float until the limits hold."""
    prepared = prepare(material, "exported")
    held_out = prepared.held_out
    from ts_handlers.build.openvino import ir, mixed, nncf

    settings = nncf.NncfSettings(smooth_quant_alpha=nncf.NOT_SMOOTHED, has_full_range=material.target.has_vnni)
    model, table = ir.open_model(prepared.rounded)
    fed = nncf.calibration_feeds(material, held_out.measured)
    with step(material.progress, f"quantize with NNCF on {len(held_out.measured)} samples"):
        quantized = nncf.quantize(model, table, fed, settings)
    runtime = nncf.int8_runtime(material)
    _, table_file = ir.write_ir(quantized.clone(), table, folder)

    def candidate(kept: Collection[str]) -> Session:
        path, _ = ir.write_ir(mixed.in_float(quantized, kept), None, folder)
        return open_on_one_thread(path, ir.engine_runtime(runtime, table_file))

    with step(material.progress, f"search what to compute in float, judged on {len(held_out.judged)} samples"):
        kept, quality = search(
            mixed.quantized_products(quantized),
            lambda names: held_out.quality(candidate(names)),
            material.limits,
            evaluate_alone=lambda names: held_out.first_impression(candidate(names)),
            progress=material.progress,
        )
    done = {"method": "nncf-mixed", **settings.as_dict(), **prepared.details, "kept": list(kept)}
    final = mixed.in_float(quantized, kept)
    details = {"quantization": {**done, "held_out": quality.as_dict()}}
    return ir.write_engine(final, table, material, folder, runtime, details)


METHODS = (
    *(
        Method("openvino", precision, None, partial(make_float, precision=precision), packages=PACKAGES)
        for precision in ("fp32", "bf16")
    ),
    *(
        Method("openvino", "int8", name, make, (*PACKAGES, "nncf"), needs_calibration=True, is_automatic=is_automatic)
        for name, make, is_automatic in (
            ("nncf", make_int8, True),
            ("nncf-mixed", make_mixed, True),
            ("nncf-accuracy", make_accurate, False),  # it needs labels to calibrate on, and many minutes
        )
    ),
)
