"""The model file of every side: a ResNet of bottlenecks, in one class, as TorchServe wants it, and without torchvision.

He et al., Deep Residual Learning for Image Recognition (2015), and a smaller one of 26 layers, with the stride in the 3 x 3
convolution, as torchvision's.
"""

import torch
from torch import nn

NUM_LAYERS = 50
BLOCKS_OF = {26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 152: (3, 8, 36, 3)}
NUM_LABELS = 1000
EXPANSION = 4


class ResNetClassifier(nn.Module):
    """Pictures `(batch, 3, height, width) float32` -> logits `(batch, 1000)`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_convolution(3, 64, 7, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.blocks = nn.ModuleList()
        channels = 64
        for stage, num_blocks in enumerate(BLOCKS_OF[NUM_LAYERS]):
            for number in range(num_blocks):
                stride = 2 if stage and not number else 1
                self.blocks.append(_block(channels, 64 * 2**stage, stride))
                channels = EXPANSION * 64 * 2**stage
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, NUM_LABELS))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Run the network."""
        values = self.stem(pixel_values)
        for block in self.blocks:
            main, skip = block.children()
            values = torch.relu(main(values) + skip(values))
        logits: torch.Tensor = self.head(values)
        return logits


def _block(channels: int, width: int, stride: int) -> nn.ModuleDict:
    main = nn.Sequential(
        *(*_convolution(channels, width, 1), nn.ReLU()),
        *(*_convolution(width, width, 3, stride), nn.ReLU()),
        *_convolution(width, EXPANSION * width, 1),
    )
    skip = nn.Sequential()
    if stride != 1 or channels != EXPANSION * width:
        skip = nn.Sequential(*_convolution(channels, EXPANSION * width, 1, stride))
    return nn.ModuleDict({"main": main, "skip": skip})


def _convolution(channels: int, width: int, size: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(channels, width, size, stride, size // 2, bias=False), nn.BatchNorm2d(width)
