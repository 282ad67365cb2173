"""The stock side of the picture benchmark: TorchServe's built-in image_classifier, unchanged, on a CPU build of torch.

torchvision's package for CUDA is the only one there is. Beside a CPU build of torch its compiled operators do not load,
and it fails while it is imported because it describes two of them; none is used to classify a picture. They are declared
here, before the built-in handler imports torchvision, and that is all this file does.
"""

import torch

_OPERATORS = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
for _name in ("nms", "qnms"):
    _OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]

from ts.torch_handler import image_classifier  # noqa: E402  # after the declarations


class StockImageClassifier(image_classifier.ImageClassifier):  # type: ignore[misc]  # TorchServe has no types
    """The built-in handler: a handler file must define its class itself."""
