"""One image in a process of its own, as a script would have it: import torch, load the model, classify, print, exit.

python one_image.py MODEL_FILE WEIGHTS LABELS PICTURE
"""

import importlib.util
import json
import sys

import numpy as np
import torch
from PIL import Image

SHORT_SIDE, CROP = 256, 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


def main(model_file: str, weights: str, labels: str, picture: str) -> None:
    """Print the label of the picture."""
    model = load_class(model_file)()
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.eval()
    with torch.inference_mode():
        index = int(model(read_picture(picture)).argmax())
    with open(labels, encoding="utf-8") as file:  # noqa: PTH123  # one import less
        print(json.load(file)[str(index)])


def load_class(model_file: str) -> type[torch.nn.Module]:
    """Return the class of the model file."""
    spec = importlib.util.spec_from_file_location("model", model_file)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{model_file} is no Python file; give the one with the model's class")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: type[torch.nn.Module] = module.ResNetClassifier
    return found


def read_picture(path: str) -> torch.Tensor:
    """Return `(1, 3, 224, 224) float32`: the short side scaled to 256, the middle cut out, normalized."""
    image = Image.open(path).convert("RGB")
    scale = SHORT_SIDE / min(image.size)
    image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = round((image.width - CROP) / 2), round((image.height - CROP) / 2)
    pixels = np.asarray(image.crop((left, top, left + CROP, top + CROP)), dtype=np.float32) / 255
    values = (pixels - np.array(MEAN, dtype=np.float32)) / np.array(STD, dtype=np.float32)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)[None]))


if __name__ == "__main__":
    main(*sys.argv[1:])
