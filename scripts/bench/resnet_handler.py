"""Our side of the picture benchmark: a handler as a team would write it, JPEG -> {label: probability}, best five."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ts_handlers import InferenceHandler, ModelInput, RequestError
from ts_handlers.outputs import score_labels

CROP = 224
SHORT_SIDE = 256
NUM_CHANNELS = 3
TOP_K = 5
# ImageNet's, as torchvision and the stock handler have them, for pixels of 0 to 255.
MEAN = 255.0 * np.array([0.485, 0.456, 0.406], dtype=np.float32)
INVERSE_STD = (1.0 / (255.0 * np.array([0.229, 0.224, 0.225]))).astype(np.float32)


class PictureHandler(InferenceHandler):
    """Classifies pictures. A picture is a sequence of three channels: all are equally long, so nothing is padded."""

    def prepare(self) -> None:
        names = json.loads((self.model_dir / "index_to_name.json").read_text(encoding="utf-8"))
        self._labels = [str(names[str(index)]) for index in range(len(names))]

    @property
    def max_length(self) -> int:
        return NUM_CHANNELS

    def warmup_input(self, length: int) -> ModelInput:
        return ModelInput({"pixel_values": np.zeros((length, CROP, CROP), dtype=np.float32)}, length)

    def preprocess(self, data: list[dict[str, Any]]) -> Any:
        """Hand picture bodies on as Latin-1 strings: a body of raw bytes would be read as UTF-8 text."""
        return super().preprocess([{name: _as_text(value) for name, value in row.items()} for row in data])

    def decode(self, instance: Any) -> Image.Image:
        try:
            body = instance.encode("latin-1") if isinstance(instance, str) else instance
            picture = Image.open(io.BytesIO(body))
            width, height = picture.size
            scale = SHORT_SIDE / min(width, height)
            picture.draft("RGB", (round(width * scale), round(height * scale)))  # the JPEG decoder halves large ones
            return picture.convert("RGB")
        except (OSError, TypeError, ValueError) as error:
            raise RequestError("the body is no picture that can be read; send a JPEG or PNG file") from error

    def transform(self, example: Image.Image) -> Sequence[ModelInput]:
        """Scale the short side to 256 and cut the middle 224 x 224 out: in one step, so that no margin is scaled."""
        width, height = example.size
        side = min(width, height) * CROP / SHORT_SIDE
        left, top = (width - side) / 2, (height - side) / 2
        cropped = example.resize((CROP, CROP), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
        pixels = (np.asarray(cropped, dtype=np.float32) - MEAN) * INVERSE_STD
        return [ModelInput({"pixel_values": pixels.transpose(2, 0, 1)}, NUM_CHANNELS)]

    def format(
        self, example: Image.Image, inputs: Sequence[ModelInput], outputs: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        del example, inputs
        return score_labels(outputs[0]["logits"], self._labels, "softmax", top_k=TOP_K)


def _as_text(value: Any) -> Any:
    return value.decode("latin-1") if isinstance(value, (bytes, bytearray)) else value
