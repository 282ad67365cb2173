"""ResNet-26, -50 or -152 for all sides: seeded weights, and what belongs to them."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAMS = Path(__file__).with_name("programs")
LAYERS = (26, 50, 152)
SEED = 7
NUM_LABELS = 1000

# Resize(256), CenterCrop(224) and ImageNet's mean and deviation, as the stock handler has them.
PREPROCESSOR: Mapping[str, Any] = {
    "resize_size": 256,
    "crop_size": 224,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "interpolation": "bilinear",
}


@dataclass(frozen=True, slots=True)
class ResNet:
    """The files of the model.

    Attributes:
        weights: State dict.
        model_file: The class it belongs to.
        labels: index_to_name.json.
        preprocessor: What is done to a picture, as the stock handler does it.
    """

    weights: Path
    model_file: Path
    labels: Path
    preprocessor: Path

    def build_options(self) -> tuple[str | Path, ...]:
        """Return the source and its options, as `ts-handlers build` takes them."""
        words = (self.weights, "--model-file", self.model_file, "--labels", self.labels)
        return (*words, "--preprocessor", self.preprocessor, "--task", "image-classification")


def make_resnet(work_dir: Path, pictures: Path, num_layers: int) -> ResNet:
    """Write the files of a ResNet of so many layers into `work_dir`, unless they are there.

    Args:
        work_dir: Where.
        pictures: Folder of pictures to fit batch normalization to.
        num_layers: One of LAYERS.
    """
    folder = work_dir / f"resnet{num_layers}"
    if not folder.is_dir():
        print(f"making the model {folder}", flush=True)
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        code = (PROGRAMS / "resnet_model.py").read_text(encoding="utf-8")
        (unfinished / "model.py").write_text(
            code.replace("NUM_LAYERS = 50", f"NUM_LAYERS = {num_layers}"), encoding="utf-8"
        )
        (unfinished / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR), encoding="utf-8")
        names = {str(index): f"class_{index}" for index in range(NUM_LABELS)}
        (unfinished / "index_to_name.json").write_text(json.dumps(names), encoding="utf-8")
        _write_weights(unfinished, sorted(pictures.iterdir())[:16])
        unfinished.rename(folder)
    return ResNet(
        *(folder / name for name in ("resnet.pth", "model.py", "index_to_name.json", "preprocessor_config.json"))
    )


def _write_weights(folder: Path, pictures: Sequence[Path]) -> None:
    """Draw weights, and fit them to pictures.

    With the weights as drawn activations double with every block, so batch normalization takes its statistics from pictures.
    What a block adds is a fifth of what goes through it, as most blocks of a trained network change little: else rounding
    errors grow with every block, too. And every picture would be given the same label, so the head is scaled until they get
    different ones: no comparison of answers could tell two models apart. Scores stay small, so that what INT8 changes of
    them is within what `build` allows an archive.
    """
    import numpy as np
    import torch
    from PIL import Image

    torch.manual_seed(SEED)
    model = runpy.run_path(str(folder / "model.py"))["ResNetClassifier"]()
    resized = [np.asarray(Image.open(file).convert("RGB").resize((224, 224)), dtype=np.float32) for file in pictures]
    pixels = (np.stack(resized) / 255 - PREPROCESSOR["mean"]) / PREPROCESSOR["std"]
    batch = torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # only what this batch has
    with torch.inference_mode():
        for block in model.blocks:
            block["main"][-1].weight.fill_(0.2)
        model.train()(batch)
        logits = model.eval()(batch)
        scale, head = 0.1 / logits.std(0), model.head[-1]
        head.weight.data *= scale[:, None]
        head.bias.data = (head.bias.data - logits.mean(0)) * scale
    torch.save(model.state_dict(), folder / "resnet.pth")
