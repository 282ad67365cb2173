"""Checkpoints of images for the tests: small random models of several architectures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.pictures import scene

COLOURS = ("red", "green", "blue", "white", "black", "grey", "mixed")


def labels(*names: str) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def _write(folder: Path, model_class: str, config: Any, processor_class: str, **processor: Any) -> None:
    model = getattr(transformers, model_class)(config)
    _calm(model)
    model.save_pretrained(folder)
    settings = json.loads(getattr(transformers, f"{processor_class}Pil")(**processor).to_json_string())
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _calm(model: Any) -> None:
    """Let batch normalization take its statistics from a picture: without them activations grow with every block."""
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    if not norms:
        return
    for module in norms:
        module.momentum = 1.0
    picture = torch.from_numpy(scene(128, 128, 5)).permute(2, 0, 1)[None].float() / 128 - 1
    with torch.inference_mode():
        model.train()(pixel_values=picture.repeat(2, 1, 1, 1))
    model.eval()


def vit(folder: Path) -> None:
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=64,
        patch_size=16,
        initializer_range=0.3,
        **labels(*COLOURS),
    )
    _write(folder, "ViTForImageClassification", config, "ViTImageProcessor", size={"height": 64, "width": 64})


def resnet(folder: Path) -> None:
    config = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", **labels(*COLOURS)
    )
    _write(
        folder,
        "ResNetForImageClassification",
        config,
        "ConvNextImageProcessor",
        size={"shortest_edge": 96},
        crop_pct=0.875,
    )


def detr(folder: Path) -> None:
    backbone = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    config = transformers.DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_queries=12,
        init_std=0.5,
        **labels("cat", "dog", "cup"),
    )
    size = {"shortest_edge": 64, "longest_edge": 128}
    _write(folder, "DetrForObjectDetection", config, "DetrImageProcessor", size=size)


def yolos(folder: Path) -> None:
    config = transformers.YolosConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=[64, 96],
        patch_size=16,
        num_detection_tokens=8,
        initializer_range=0.3,
        **labels("cat", "dog", "cup"),
    )
    size = {"height": 64, "width": 96}
    _write(folder, "YolosForObjectDetection", config, "YolosImageProcessor", size=size, do_pad=False)


def segformer(folder: Path) -> None:
    config = transformers.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[16, 32],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=32,
        initializer_range=0.3,
        **labels("sky", "road", "car", "tree"),
    )
    size = {"height": 64, "width": 96}
    _write(folder, "SegformerForSemanticSegmentation", config, "SegformerImageProcessor", size=size)


IMAGE_MAKERS: dict[str, Callable[[Path], None]] = {
    "tiny-vit": vit,
    "tiny-resnet": resnet,
    "tiny-detr": detr,
    "tiny-yolos": yolos,
    "tiny-segformer": segformer,
}
"""Name -> function that writes the checkpoint."""


def write_image_model(kind: str, folder: Path) -> Path:
    """Write the checkpoint named `kind` into `folder`."""
    torch.manual_seed(7)
    folder.mkdir(parents=True, exist_ok=True)
    IMAGE_MAKERS[kind](folder)
    return folder
