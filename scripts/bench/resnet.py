"""ResNet-50 for both sides: the same seeded weights as a state dict and as ONNX, pictures, and the stock environment."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from bench.stock import TORCH
from bench.venv import Venv

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

MODEL_CLASS = '''\
"""The model file of the stock archive, as pytorch/serve's image_classifier examples have theirs."""

from torchvision.models.resnet import Bottleneck, ResNet


class ResNet50ImageClassifier(ResNet):
    def __init__(self):
        super().__init__(Bottleneck, [3, 4, 6, 3])
'''

# The head is scaled so that pictures get different labels with a margin: with the weights as drawn every picture is
# given the same one, and no comparison of answers could tell two models apart.
_MAKE_MODEL = """
import sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
folder, pictures, seed, opset = sys.argv[1:]
sys.path.insert(0, folder)
import stock_resnet_handler
import torch
from PIL import Image
from model import ResNet50ImageClassifier
torch.manual_seed(int(seed))
model = ResNet50ImageClassifier().eval()
process = stock_resnet_handler.StockImageClassifier.image_processing
files = sorted(Path(pictures).iterdir())[:16]
batch = torch.stack([process(Image.open(file).convert("RGB")) for file in files])
with torch.inference_mode():
    logits = model(batch)
    scale = 3.0 / logits.std(0)
    model.fc.weight.data *= scale[:, None]
    model.fc.bias.data = (model.fc.bias.data - logits.mean(0)) * scale
torch.save(model.state_dict(), Path(folder) / "resnet50.pth")
torch.onnx.export(model, (batch[:2],), str(Path(folder) / "resnet50.onnx"), input_names=["pixel_values"],
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
    """

    weights: Path
    model_file: Path
    onnx: Path
    labels: Path


def resnet_venv(work_dir: Path) -> Venv:
    """Return the environment of the stock side, made if need be; both sides' files are made with it."""
    venv = Venv(work_dir / "resnet-venv")
    venv.ensure(REQUIREMENTS, ("--no-deps", TORCHVISION))
    return venv


def make_resnet(venv: Venv, work_dir: Path, pictures: Path) -> ResNet:
    """Write the model's files into `work_dir`, unless they are there."""
    folder = work_dir / "resnet50"
    if not (folder / "resnet50.onnx").is_file():
        print(f"making the model {folder}", flush=True)
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        (unfinished / "model.py").write_text(MODEL_CLASS, encoding="utf-8")
        shutil.copy(STOCK_HANDLER, unfinished)
        names = {str(index): f"class_{index}" for index in range(NUM_LABELS)}
        (unfinished / "index_to_name.json").write_text(json.dumps(names), encoding="utf-8")
        venv.run("-c", _MAKE_MODEL, unfinished, pictures, str(SEED), str(OPSET))
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    return ResNet(
        weights=folder / "resnet50.pth",
        model_file=folder / "model.py",
        onnx=folder / "resnet50.onnx",
        labels=folder / "index_to_name.json",
    )
