"""ResNet-26, -50 or -152 for all sides: the same seeded weights as a state dict and as ONNX, and the stock environment."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from bench.stock import TORCH
from bench.venv import Venv

PREPROCESSOR_FILE = "preprocessor_config.json"

SEED = 7
NUM_LABELS = 1000
OPSET = 17

TORCHVISION = "torchvision==0.28.0"  # of torch 2.13; its dependencies would bring the CUDA build of torch
REQUIREMENTS = (
    TORCH,
    "torchserve==0.12.0",
    "torch-model-archiver==0.12.0",
    "captum==0.9.0",
    "onnx==1.20.1",
    "pillow>=10",
    "pyyaml>=6",
    "psutil>=5.9",
)

STOCK_HANDLER = Path(__file__).with_name("stock_resnet_handler.py")
OUR_HANDLER = Path(__file__).with_name("resnet_handler.py")

MODEL_FILE = Path(__file__).with_name("resnet_model.py")

# Resize(256), CenterCrop(224) and ImageNet's mean and deviation, as the stock handler has them.
PREPROCESSOR = {
    "resize_size": 256,
    "crop_size": 224,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "interpolation": "bilinear",
}

# With the weights as drawn activations double with every block, so batch normalization takes its statistics from
# pictures. What a block adds is a fifth of what goes through it, as most blocks of a trained network change little: else
# rounding errors grow with every block, too. And every picture would be given the same label, so the head is scaled until
# they get different ones with a margin: no comparison of answers could tell two models apart.
_MAKE_MODEL = """
import sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
folder, pictures, seed, opset = sys.argv[1:]
sys.path.insert(0, folder)
import stock_resnet_handler
import torch
from PIL import Image
from model import ResNetClassifier
torch.manual_seed(int(seed))
model = ResNetClassifier()
process = stock_resnet_handler.StockImageClassifier.image_processing
files = sorted(Path(pictures).iterdir())[:16]
batch = torch.stack([process(Image.open(file).convert("RGB")) for file in files])
for module in model.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
        module.momentum = 1.0  # only what this batch has
with torch.no_grad():
    for block in model.blocks:
        block["main"][-1].weight.fill_(0.2)
with torch.inference_mode():
    model.train()(batch)
    logits = model.eval()(batch)
    scale = 3.0 / logits.std(0)
    head = model.head[-1]
    head.weight.data *= scale[:, None]
    head.bias.data = (head.bias.data - logits.mean(0)) * scale
torch.save(model.state_dict(), Path(folder) / "resnet.pth")
torch.onnx.export(model, (batch[:2],), str(Path(folder) / "resnet.onnx"), input_names=["pixel_values"],
    output_names=["logits"], dynamic_axes={"pixel_values": {0: "batch"}, "logits": {0: "batch"}},
    opset_version=int(opset), dynamo=False)
"""


@dataclass(frozen=True, slots=True)
class ResNet:
    """The files of the model.

    Attributes:
        weights: State dict, for the stock handler.
        model_file: The class it belongs to.
        onnx: The same weights, input `pixel_values` (batch, 3, 224, 224) float32, output `logits` (batch, 1000).
        labels: index_to_name.json of both archives.
        preprocessor: What is done to a picture, as the stock handler does it.
    """

    weights: Path
    model_file: Path
    onnx: Path
    labels: Path
    preprocessor: Path


def resnet_venv(work_dir: Path) -> Venv:
    """Return the environment of the stock side, made if need be; both sides' files are made with it."""
    venv = Venv(work_dir / "resnet-venv")
    venv.ensure(REQUIREMENTS, ("--no-deps", TORCHVISION))
    return venv


def make_resnet(venv: Venv, work_dir: Path, pictures: Path, num_layers: int = 50) -> ResNet:
    """Write the files of a ResNet of 26, 50 or 152 layers into `work_dir`, unless they are there."""
    folder = work_dir / f"resnet{num_layers}"
    if not (folder / "resnet.onnx").is_file():
        print(f"making the model {folder}", flush=True)
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        code = MODEL_FILE.read_text(encoding="utf-8").replace("NUM_LAYERS = 50", f"NUM_LAYERS = {num_layers}")
        (unfinished / "model.py").write_text(code, encoding="utf-8")
        (unfinished / PREPROCESSOR_FILE).write_text(json.dumps(PREPROCESSOR), encoding="utf-8")
        shutil.copy(STOCK_HANDLER, unfinished)
        names = {str(index): f"class_{index}" for index in range(NUM_LABELS)}
        (unfinished / "index_to_name.json").write_text(json.dumps(names), encoding="utf-8")
        venv.run("-c", _MAKE_MODEL, unfinished, pictures, str(SEED), str(OPSET))
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    return ResNet(
        weights=folder / "resnet.pth",
        model_file=folder / "model.py",
        onnx=folder / "resnet.onnx",
        labels=folder / "index_to_name.json",
        preprocessor=folder / PREPROCESSOR_FILE,
    )
