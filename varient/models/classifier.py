"""A small convolutional classifier, which replaces Inception for small images."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Classifier(nn.Module):
    """Images (B, 3, S, S) of uint8 values 0..255 -> features (B, feature_dim) and logits (B, num_classes).

    Features are the output of a batch norm without affine parameters, so over real images each has mean 0 and variance
    1.  This fixes the scale of FID, which grows with the square of the features.
    """

    def __init__(self, feature_dim: int, num_classes: int, image_size: int) -> None:
        super().__init__()
        flat = 64 * ((image_size + 1) // 2) ** 2
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 32, kernel_size=3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
            nn.Conv2d(64, 64, kernel_size=3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.Flatten(),
            nn.Linear(flat, feature_dim), nn.BatchNorm1d(feature_dim, affine=False))
        self.head = nn.Linear(feature_dim, num_classes)

    def forward(self, image_B3SS: Tensor) -> tuple[Tensor, Tensor]:
        feature_BF = self.trunk(image_B3SS.float() / 127.5 - 1)
        return feature_BF, self.head(F.relu(feature_BF))
