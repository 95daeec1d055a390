"""LPIPS: how alike two pictures are to AlexNet (Zhang et al. 2018), by torchmetrics with weights from a local file.

torchmetrics ships the five linear layers and would download AlexNet through torchvision.  It is given a file that was
checked here, in a folder that torch takes for its own cache.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from varient.evaluation.extractors import NO_STATE, ExtractorError, check_file, checked_digest, read_state
from varient.models.file_kind import OLD_TORCH, TORCH

ALEXNET = "alexnet-owt-7be5be79.pth"
ALEXNET_SHA256 = "7be5be79"
"""How the SHA-256 of torchvision's AlexNet begins, from its file name."""
ALEXNET_FILE = f"{ALEXNET} (244 MB, torchvision's, from https://download.pytorch.org/models/{ALEXNET})"
LEAST_SIDE = 31
"""Below it nothing is left for AlexNet's last layer."""


class Lpips:
    """LPIPS of version 0.1 with AlexNet, at the images' own size.

    Attributes:
        sha256: of AlexNet's file.
    """

    def __init__(self, weights: Path, *, sha256: str | None = None, device: str = "cpu") -> None:
        """Load AlexNet's state dict.

        Args:
            sha256: the file's hash, 64 digits; None expects the published file.

        Raises:
            ExtractorError: no torchmetrics, no such file, another hash, or no state dict of AlexNet.
        """
        try:
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
        except ImportError:
            raise ExtractorError("LPIPS needs torchmetrics: pip install 'varient[lpips]'") from None
        check_file(weights, TORCH, OLD_TORCH, refusal=NO_STATE, form="torch checkpoint", file=ALEXNET_FILE)
        self.sha256 = checked_digest(weights, sha256, ALEXNET_SHA256, ALEXNET_FILE, "--lpips-sha256")
        state, cache = read_state(weights, ALEXNET_FILE), torch.hub.get_dir()
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "checkpoints").mkdir()
            torch.save(state, Path(folder) / "checkpoints" / ALEXNET)
            torch.hub.set_dir(folder)
            try:
                metric = LearnedPerceptualImagePatchSimilarity(net_type="alex")
            except RuntimeError as error:
                reason = str(error).splitlines()[-1].strip()[:160]
                raise ExtractorError(f"{weights}: not torchvision's AlexNet ({reason}); expected "
                                     f"{ALEXNET_FILE}") from None
            finally:
                torch.hub.set_dir(cache)
        self._network = metric.net.to(device)
        self._device = device

    def __call__(self, a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
        """Distance (B,), float32, of uint8 images."""
        with torch.inference_mode():
            a, b = (image.to(self._device).float() / 127.5 - 1 for image in (a_BCHW, b_BCHW))
            return self._network(a, b).flatten().cpu()
