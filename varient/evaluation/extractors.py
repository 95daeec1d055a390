"""Networks that turn images into features: Inception from a local file, or our classifier.

Nothing is downloaded: torch-fidelity and clean-fid would fetch their weights, so both are given a file that was
checked here.  That of clean-fid is a program (TorchScript), whose hash must be known before it runs.  Features
are float32 and computed without TF32, whose rounding changes them by 6e-4.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from varient.evaluation.fidelity_classifier import FEATURES, LOGITS, register_classifier
from varient.files import sha256_of
from varient.models.checkpoint import CheckpointError, check_finite_tensors, check_kind
from varient.models.classifier import Classifier
from varient.models.file_kind import OLD_TORCH, TORCH, TORCH_SCRIPT
from varient.models.nested import flat_state_dict
from varient.models.torch_file import read_torch_file
from varient.paper.released import PUBLISHED_SHA256

POOL, SPATIAL = "pool", "spatial"
"""Layers of Inception, beside LOGITS: pool_3 (2048) and 7 channels of mixed_6 (2023), flattened as ADM does."""

FIDELITY_SHA256 = PUBLISHED_SHA256["weights-inception-2015-12-05-6726825d.pth"]
"""First digits of the SHA-256 of torch-fidelity's published Inception weights, from their file name."""

CLEAN_FID_SHA256 = PUBLISHED_SHA256["inception-2015-12-05.pt"]
"""SHA-256 of NVIDIA's torchscript Inception."""

FIDELITY_FILE = ("weights-inception-2015-12-05-6726825d.pth (96 MB, from the releases of "
                 "https://github.com/toshas/torch-fidelity; pt_inception-2015-12-05-6726825d.pth of pytorch-fid is "
                 "the same)")
CLEAN_FID_FILE = ("inception-2015-12-05.pt (from https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/"
                  "metrics/, the file that https://github.com/GaParmar/clean-fid downloads)")

_SFID_CHANNELS = 7
NO_STATE, _NO_SCRIPT = "not a plain state dict", "no torchscript Inception"


class ExtractorError(ValueError):
    """Weights that are missing or of another kind; one line with the expected file and where to get it."""


class Extractor(Protocol):
    """Images to features."""

    @property
    def name(self) -> str:
        """Identifies network, resizing and weights (by hash); features are comparable if the names are equal."""
        ...

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that a call returns."""
        ...

    @property
    def sha256(self) -> str:
        """Of the weights."""
        ...

    @property
    def device(self) -> str:
        """Where it runs, "cpu" or "cuda"."""
        ...

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Features (B, F), float32, by layer, of uint8 images (B, 3, S, S)."""
        ...


class FidelityInception:
    """torch-fidelity's InceptionV3: the 2015-12-05 weights behind TF1's own bilinear resize, as ADM's evaluator has it.

    Layers: POOL (2048, pool_3), LOGITS (1008, without bias, what IS is taken of), SPATIAL (2023: the first 7 channels
    of mixed_6, which is Mixed_6d.branch1x1 after its ReLU, 17 x 17 each).  SPATIAL is flattened channels last as in
    ADM's evaluator: mu_s and sigma_s of a reference batch are in that order.
    """

    layers = (POOL, LOGITS, SPATIAL)

    def __init__(self, weights: Path, *, sha256: str | None = None, device: str | torch.device = "cpu") -> None:
        """Load a torch.save'd state dict of 472 tensors.

        Args:
            sha256: the file's hash, 64 digits; None expects the published file.

        Raises:
            ExtractorError: no such file, another hash, not a plain state dict, tensors that do not fit.
        """
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        check_file(weights, TORCH, OLD_TORCH, refusal=NO_STATE, form="torch checkpoint", file=FIDELITY_FILE)
        digest = checked_digest(weights, sha256, FIDELITY_SHA256, FIDELITY_FILE)
        state = read_state(weights, FIDELITY_FILE)
        # The library unpickles its file without restrictions, so it is given a copy that was written here.
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "weights.pth"
            torch.save(state, copy)
            try:
                network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"],
                                                      feature_extractor_weights_path=str(copy))
            except RuntimeError as error:
                lines = [line.strip() for line in str(error).splitlines()]
                raise ExtractorError(f"{weights}: not torch-fidelity's Inception: "
                                     f"{(lines[1] if len(lines) > 1 else lines[0])[:160]}") from None
        self.name = f"torch-fidelity-inception-v3-{digest[:16]}"
        self.sha256 = digest
        self._network = network.to(device)
        self._device = torch.device(device)
        self.device = self._device.type
        self._spatial: Tensor | None = None
        network.Mixed_6d.branch1x1.register_forward_hook(self._keep_spatial)

    def _keep_spatial(self, _module: nn.Module, _inputs: tuple[Tensor, ...], output_BCHW: Tensor) -> None:
        self._spatial = output_BCHW[:, :_SFID_CHANNELS].permute(0, 2, 3, 1).flatten(1)

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Features (B, F), float32, by layer, of uint8 images (B, 3, S, S) of any side."""
        with torch.inference_mode(), full_precision():
            pool_BF, logits_BL = self._network(image_tensor(images).to(self._device))
        return {name: feature_array(value) for name, value in zip(self.layers, (pool_BF, logits_BL, self._spatial),
                                                           strict=True)}


class CleanInception:
    """clean-fid in mode ``clean``: Pillow's antialiased bicubic resize in float32, NVIDIA's torchscript Inception.

    Layer: POOL (2048).  Not comparable with ADM's numbers: the resize moves features by about 1 %.
    """

    layers = (POOL,)

    def __init__(self, weights: Path, *, sha256: str | None = None, device: str | torch.device = "cpu") -> None:
        """Load the torchscript file.

        Args:
            sha256: the file's hash, 64 digits; None expects the published file.  The file is a program that this
                process runs, so the caller must trust another one whose hash is given.

        Raises:
            ExtractorError: no such file, another hash, not a torchscript Inception.
        """
        from cleanfid.inception_torchscript import InceptionV3W
        from cleanfid.resize import build_resizer

        check_file(weights, TORCH_SCRIPT, refusal=_NO_SCRIPT, form="TorchScript archive", file=CLEAN_FID_FILE)
        digest = checked_digest(weights, sha256, CLEAN_FID_SHA256, CLEAN_FID_FILE)
        # The library expects a fixed file name.
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about torchscript as such
            (Path(folder) / "inception-2015-12-05.pt").symlink_to(weights.resolve())
            try:
                network = InceptionV3W(folder, download=False, resize_inside=False)
            except Exception as error:  # a damaged program may raise any
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
                raise ExtractorError(f"{weights}: {_NO_SCRIPT} ({reason}); expected {CLEAN_FID_FILE}") from None
        self.name = f"clean-fid-clean-{digest[:16]}"
        self.sha256 = digest
        self._network = network.to(device).eval()
        self._device = torch.device(device)
        self.device = self._device.type
        self._resize = build_resizer("clean")

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Features {POOL: (B, 2048) float32} of uint8 images (B, 3, S, S) of any side."""
        image_tensor(images)
        resized = np.stack([self._resize(image.transpose(1, 2, 0)).transpose(2, 0, 1) for image in images])
        resized = np.ascontiguousarray(resized)  # as in the library: rounding depends on the memory layout
        with torch.inference_mode(), full_precision():
            return {POOL: feature_array(self._network(torch.from_numpy(resized).to(self._device)))}


class ClassifierExtractor:
    """Our classifier of small images.  Layers: FEATURES (F, variance 1 on real images) and LOGITS (classes)."""

    layers = (FEATURES, LOGITS)

    def __init__(self, classifier: Classifier) -> None:
        """The name is the one that torch-fidelity knows the classifier by."""
        self.name = register_classifier(classifier)
        self.sha256 = self.name.rpartition("-")[2]
        self.device = next(classifier.parameters()).device.type
        self._classifier = classifier

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Features (B, F) and logits (B, classes), float32, of uint8 images (B, 3, S, S)."""
        device = next(self._classifier.parameters()).device
        with torch.inference_mode(), full_precision():
            outputs = self._classifier(image_tensor(images).to(device))
        return {name: feature_array(value) for name, value in zip(self.layers, outputs, strict=True)}


def check_file(path: Path, *kinds: str, refusal: str, form: str, file: str) -> None:
    """Check the kind of a file by its first bytes, before its hash, for a more helpful message.

    Raises:
        ExtractorError: no such file, or another kind.
    """
    if not path.exists():
        raise ExtractorError(f"{path}: no such file; expected {file}")
    try:
        check_kind(path, *kinds, form=form)
    except CheckpointError as error:
        raise ExtractorError(_refusal(path, refusal, error, file)) from None


def _refusal(path: Path, refusal: str, error: CheckpointError, file: str) -> str:
    return f"{path}: {refusal} ({str(error).removeprefix(f'{path}: ')}); expected {file}"


_SAID_IN = "evaluation.weights_sha256 in a config, --sha256 on the command line"
"""Where a user gives the hash of an Inception."""


def checked_digest(path: Path, given: str | None, published: str, file: str, said_in: str = _SAID_IN) -> str:
    """SHA-256 of a weights file.

    Args:
        published: how the hash of the published file begins; empty where nobody says.
        said_in: where a user gives the hash of other weights.

    Raises:
        ExtractorError: it is not the given one, or without one does not begin as the published one.
    """
    if given is not None and not re.fullmatch("[0-9a-fA-F]{64}", given):
        raise ExtractorError(f"{given!r} is no SHA-256: 64 hexadecimal digits are needed")
    expected = given or published
    digest = sha256_of(path)
    if not digest.startswith(expected.lower()):
        raise ExtractorError(f"{path}: SHA-256 is {digest}, expected {expected}{'...' if len(expected) < 64 else ''}; "
                             f"expected is {file}; for other weights give their hash ({said_in})")
    return digest


def read_state(path: Path, file: str) -> dict[str, Tensor]:
    """A plain state dict, read without running code of the file.

    Args:
        file: what is expected, for messages.

    Raises:
        ExtractorError: something else, or values that are not finite.
    """
    try:
        state = flat_state_dict(read_torch_file(path), str(path))
        check_finite_tensors(state, str(path))
    except CheckpointError as error:
        raise ExtractorError(_refusal(path, NO_STATE, error, file)) from None
    return dict(state)


def image_tensor(images: np.ndarray) -> Tensor:
    """Images uint8 (B, 3, S, S) as a tensor.

    Raises:
        ValueError: another shape or dtype.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images are {images.dtype} {images.shape}, expected uint8 (B, 3, S, S)")
    return torch.from_numpy(np.ascontiguousarray(images))


def feature_array(value: Tensor) -> np.ndarray:
    """Features of any float dtype and device as float32."""
    return value.float().cpu().numpy()


@contextmanager
def full_precision() -> Iterator[None]:
    """On a GPU, no TF32 and no choice of algorithms by benchmarking."""
    matmul, before = torch.backends.cuda.matmul, torch.backends.cuda.matmul.allow_tf32
    matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        matmul.allow_tf32 = before
