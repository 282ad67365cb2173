"""One image in a process of its own, as a script would have it: import torch, load the model, classify, print, exit.

python one_image.py MODEL_FILE WEIGHTS LABELS < PICTURE
"""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

SHORT_SIDE, CROP = 256, 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's

model_file, weights, labels = sys.argv[1:]
spec = importlib.util.spec_from_file_location("model", model_file)
if spec is None or spec.loader is None:
    raise SystemExit(f"{model_file} is no Python file; give the one with the model's class")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
model = module.ResNetClassifier()
model.load_state_dict(torch.load(weights, weights_only=True))
model.eval()

image = Image.open(sys.stdin.buffer).convert("RGB")
scale = SHORT_SIDE / min(image.size)
image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BILINEAR)
left, top = round((image.width - CROP) / 2), round((image.height - CROP) / 2)
pixels = np.asarray(image.crop((left, top, left + CROP, top + CROP)), dtype=np.float32) / 255
values = (pixels - np.array(MEAN, dtype=np.float32)) / np.array(STD, dtype=np.float32)
with torch.inference_mode():
    index = int(model(torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)[None]))).argmax())
print(json.loads(Path(labels).read_text(encoding="utf-8"))[str(index)])
