"""Images in the form that torch-fidelity reads."""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset


class ImageSet(Dataset):
    """Images (N, 3, S, S), uint8, one tensor an item, as torch-fidelity reads them."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(self.images[index])
