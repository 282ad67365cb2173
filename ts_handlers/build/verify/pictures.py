"""Pictures an archive is asked, and what the source's model and transformers' own post-processing answer."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from ts_handlers.build.image_outputs.made_pictures import sample_pictures
from ts_handlers.build.samples import encode_picture
from ts_handlers.build.sources.images import ImageSource
from ts_handlers.build.verify.compare import Expected
from ts_handlers.config.sections import HandlerConfig
from ts_handlers.imaging.boxes import format_detections, from_detector, from_queries
from ts_handlers.imaging.decoding import picture_from_pixels
from ts_handlers.imaging.masks import read_mask, run_lengths
from ts_handlers.outputs import default_function, one_axis, score_labels


def expected_pictures(source: ImageSource, config: HandlerConfig) -> list[Expected]:
    """Return pictures of several sizes with the source's answers.

    The source is fed what our preprocessing makes, which the source's loading compares with transformers' own: processors
    of one class differ among themselves by two levels of 256, which would show here.
    """
    found = []
    for pixels in sample_pictures():
        height, width = pixels.shape[:2]
        target = io.BytesIO()
        Image.fromarray(pixels).save(target, "PNG")
        payload = {"image": base64.b64encode(target.getvalue()).decode("ascii")}
        if source.task == "image-segmentation":
            payload["mask"] = "rle"
        answer = _answer(source, config, pixels)
        found.append(Expected(payload, answer, height * width, f"a picture of {width} x {height}"))
    return sorted(found, key=lambda item: item.length)


def _answer(source: ImageSource, config: HandlerConfig, pixels: Any) -> Any:
    item = encode_picture(source, picture_from_pixels(pixels))
    tensors = {name: torch.from_numpy(array[None]) for name, array in item.arrays.items() if name in source.input_names}
    if source.processor is None or source.task == "image-classification":
        outputs = source.run({name: tensor.numpy() for name, tensor in tensors.items()})
        return _by_our_functions(source, config, {name: array[0] for name, array in outputs.items()}, item)
    with torch.inference_mode():
        made = source.unused_model()(**tensors, return_dict=True)
    if source.task == "object-detection":
        return _detected(source, config, made, item.source)
    [mask] = source.processor.post_process_semantic_segmentation(made, target_sizes=[item.source])
    return run_lengths(np.asarray(mask, dtype=np.uint16))


def _detected(source: ImageSource, config: HandlerConfig, made: Any, size: tuple[int, int]) -> Any:
    [found] = source.processor.post_process_object_detection(
        made, threshold=config.output.threshold, target_sizes=torch.tensor([size])
    )
    order = torch.argsort(found["scores"], descending=True, stable=True)[: config.output.top_k]
    return [
        {
            source.labels[int(found["labels"][index])]: found["boxes"][index].tolist(),
            "score": float(found["scores"][index]),
        }
        for index in order.tolist()
    ]


def _by_our_functions(source: ImageSource, config: HandlerConfig, outputs: Mapping[str, Any], item: Any) -> Any:
    """Return the answer by the functions that handlers have: of files there is no other library."""
    settings = config.output
    if source.task == "image-classification":
        function = settings.function_to_apply or default_function(settings.problem_type, len(source.labels))
        return score_labels(one_axis(outputs["logits"]), source.labels, function)
    if source.task == "image-segmentation":
        return run_lengths(read_mask(outputs["logits"], item.source, settings.pixels, len(source.labels)))
    if "pred_boxes" in outputs:
        found = from_queries(outputs["logits"], outputs["pred_boxes"], len(source.labels), settings.function_to_apply)
    else:
        count = int(outputs["num_detections"]) if "num_detections" in outputs else len(outputs["scores"])
        found = from_detector(outputs["labels"][:count], outputs["scores"][:count], outputs["boxes"][:count], item.size)
    return format_detections(found, source.labels, item.source, threshold=settings.threshold, top_k=settings.top_k)
