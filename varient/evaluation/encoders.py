"""Encoders beside Inception, from local files: DINOv2 by timm for FD-DINOv2, CLIP's image tower by open_clip for CMMD.

Networks are built without weights and filled from a file of the released layout, so nothing is downloaded.  Each sees
an image as its reference implementation shows it: 8-bit pixels resized by Pillow's bicubic filter, which is
antialiased, then normalised.  Features are float32.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from varient.evaluation.extractors import (
    ExtractorError,
    check_file,
    checked_digest,
    feature_array,
    full_precision,
    image_tensor,
    read_state,
)
from varient.models.build import without_weights
from varient.models.checkpoint import CheckpointError, load_strictly, read_tensors
from varient.models.file_kind import OLD_TORCH, SAFETENSORS, TORCH, kind_of

EMBEDDING = "embedding"
"""The only layer of an encoder."""

DINOV2_FILE = ("model.safetensors (1.2 GB, from https://huggingface.co/timm/vit_large_patch14_dinov2.lvd142m; "
               "dinov2_vitl14_pretrain.pth of facebookresearch/dinov2 has the same weights)")
CLIP_FILE = ("open_clip_model.safetensors (1.7 GB, from https://huggingface.co/timm/vit_large_patch14_clip_336.openai)")

_DINOV2_MODEL = {"model_name": "vit_large_patch14_dinov2"}
_CLIP_MODEL = "ViT-L-14-336-quickgelu"
"""OpenAI's weights are of a network with QuickGELU, which open_clip's `ViT-L-14-336` alone does not have."""
_VISUAL = "visual."
_INSTALL = "pip install 'varient[encoders]'"
_FORM = "safetensors file or torch checkpoint"

log = logging.getLogger(__name__)


class _Encoder:
    """A network that turns resized and normalised pixels into a vector each.

    Attributes:
        name: identifies network, resizing and weights (by hash).
        sha256: of the weights file.
        device: where it runs, "cpu" or "cuda".
    """

    layers = (EMBEDDING,)
    SIDE: int
    MEAN: tuple[float, float, float]
    STD: tuple[float, float, float]

    def __init__(self, name: str, network: nn.Module, sha256: str, device: str | torch.device) -> None:
        self.name, self.sha256 = f"{name}-{sha256[:16]}", sha256
        self._network = network.eval().requires_grad_(False).to(device)
        self._device = torch.device(device)
        self.device = self._device.type

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Features {EMBEDDING: (B, F) float32} of uint8 images (B, 3, S, S) of any side."""
        image_tensor(images)
        with torch.inference_mode(), full_precision():
            return {EMBEDDING: feature_array(self._embed(self.pixels(images).to(self._device)))}

    @classmethod
    def pixels(cls, images: np.ndarray) -> Tensor:
        """What the network sees of uint8 images (B, 3, S, S): (B, 3, SIDE, SIDE), float32."""
        resized = [np.asarray(Image.fromarray(image.transpose(1, 2, 0)).resize((cls.SIDE, cls.SIDE),
                                                                               Image.Resampling.BICUBIC))
                   for image in images]
        pixel_B3SS = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).contiguous().float().div_(255)
        mean, std = (torch.tensor(values)[:, None, None] for values in (cls.MEAN, cls.STD))
        return pixel_B3SS.sub_(mean).div_(std)

    def _embed(self, pixel_B3SS: Tensor) -> Tensor:
        return self._network(pixel_B3SS)


class DinoV2(_Encoder):
    """DINOv2 ViT-L/14 without registers, as dgm-eval runs it: 224 x 224, ImageNet's mean and deviation.

    Layer: EMBEDDING (1024), the class token after the last norm.
    """

    SIDE, MEAN, STD = 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self, weights: Path, *, sha256: str | None = None, device: str | torch.device = "cpu") -> None:
        """Load timm's safetensors file, or the released torch checkpoint.

        Args:
            sha256: the file's hash, 64 digits; None takes any.

        Raises:
            ExtractorError: no timm, no such file, another hash, no weights of this network.
        """
        try:
            import timm
        except ImportError:
            raise ExtractorError(f"FD-DINOv2 needs timm: {_INSTALL}") from None
        state, digest = _read(weights, sha256, DINOV2_FILE)
        state.pop("mask_token", None)  # of the released checkpoint: it serves the training alone
        network = without_weights(lambda: timm.create_model(**_DINOV2_MODEL, pretrained=False))
        _fill(network, state, weights, DINOV2_FILE)
        position = network.pos_embed.detach()
        network.set_input_size((self.SIDE, self.SIDE))  # resamples the positions too, in timm's way
        network.pos_embed = nn.Parameter(_positions(position, network.patch_embed.grid_size[0]))
        super().__init__("dgm-eval-dinov2-vit-l-14", network, digest, device)


class Clip(_Encoder):
    """OpenAI's CLIP ViT-L/14 for 336 x 336 pixels, as CMMD's authors run it.

    Layer: EMBEDDING (768), the projected image embedding, scaled to length 1.
    """

    SIDE = 336
    MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

    def __init__(self, weights: Path, *, sha256: str | None = None, device: str | torch.device = "cpu") -> None:
        """Load open_clip's file; its text tower may lack, and is left out with a warning in the log.

        Args:
            sha256: the file's hash, 64 digits; None takes any.

        Raises:
            ExtractorError: no open_clip, no such file, another hash, no weights of this network.
        """
        try:
            import open_clip
        except ImportError:
            raise ExtractorError(f"CMMD needs open_clip: {_INSTALL}") from None
        state, digest = _read(weights, sha256, CLIP_FILE)
        whole = without_weights(lambda: open_clip.CLIP(**open_clip.get_model_config(_CLIP_MODEL)))
        text = {name for name in whole.state_dict() if not name.startswith(_VISUAL)} & state.keys()
        _fill(whole.visual, {name.removeprefix(_VISUAL): tensor for name, tensor in state.items()
                             if name not in text}, weights, CLIP_FILE)
        if text:
            log.warning("%s: its text tower (%d tensors) is left out", weights, len(text))
        super().__init__("cmmd-clip-vit-l-14-336", whole.visual, digest, device)

    def _embed(self, pixel_B3SS: Tensor) -> Tensor:
        return F.normalize(self._network(pixel_B3SS), dim=-1)


def _read(path: Path, sha256: str | None, file: str) -> tuple[dict[str, Tensor], str]:
    """Tensors of a file, and its hash.

    Raises:
        ExtractorError: no such file, another hash, a file of another kind, or a damaged one.
    """
    check_file(path, SAFETENSORS, TORCH, OLD_TORCH, refusal="no weights", form=_FORM, file=file)
    digest = checked_digest(path, sha256, "", file)
    if kind_of(path) != SAFETENSORS:
        return read_state(path, file), digest
    try:
        return read_tensors(path), digest
    except CheckpointError as error:
        raise ExtractorError(f"{error}; expected {file}") from None


def _fill(network: nn.Module, state: Mapping[str, Tensor], path: Path, file: str) -> None:
    """Load a state dict that must fit.

    Raises:
        ExtractorError: other names or shapes, or values that are not finite.
    """
    try:
        load_strictly(network, state, str(path))
    except CheckpointError as error:
        raise ExtractorError(f"{error}; expected {file}") from None


def _positions(position_1ND: Tensor, side: int) -> Tensor:
    """Position embeddings (1, 1 + side^2, D) of a smaller grid, as DINOv2's released code takes them.

    The filter is bicubic without antialiasing and of a scale with 0.1 added to the side; timm's own is antialiased.
    """
    token_11D, patch_1PD = position_1ND[:, :1], position_1ND[:, 1:]
    grid = math.isqrt(patch_1PD.shape[1])
    patch_1DHW = patch_1PD.reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
    patch_1DHW = F.interpolate(patch_1DHW, scale_factor=(side + 0.1) / grid, mode="bicubic")
    return torch.cat([token_11D, patch_1DHW.flatten(2).transpose(1, 2)], dim=1)
