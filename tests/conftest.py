"""Shared pieces of the tests: golden cases of the released code, and networks small enough to run in milliseconds."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from itertools import count
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from nullgpu.machine import NullMachine, what_is_missing
from torch import Tensor

from varient.claims import noise
from varient.config import ExperimentConfig, TokenizerSpec, TransformerSpec, load_config
from varient.models.official import load_var, load_vqvae
from varient.models.transformer import VAR, initialize
from varient.models.vqvae import VQVAE
from varient.paper.released import PUBLISHED_SHA256, RELEASED
from varient.pyramid import Pyramid
from varient.training.data import Visit, batch_indices

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 2e-5
"""Largest absolute difference to the released code's float32 results of many layers (golden/README.md)."""
LATENT_TOLERANCE = 1e-5
"""The same for sums over scales of codebook vectors: f_hat and what the transformer reads of it."""
IMAGE_TOLERANCE = 1e-5
"""The same for images in [0, 1] of a generation."""
ROUNDING = 2e-6
"""The same for what a few operations make: losses, norms, probabilities."""

VAR_PARAMETERS = {16: 310_283_520, 20: 600_917_136, 24: 1_033_399_360, 30: 2_010_020_356}
"""Parameters of the released transformers by depth, buffers left out."""

PUBLISHED = {name: file.sha256 or f"{at:064x}" for at, (name, file) in enumerate(RELEASED.items(), 1)}
"""Hashes of all released files, as if each had been published."""

torch.set_num_threads(1)
os.environ.setdefault("VARIENT_DEVICE", "cpu")
"""Tests compare with numbers of a CPU; those that want a GPU, marked `gpu`, say so themselves."""


def benchmark(name: str) -> ModuleType:
    """A script of `benchmarks` as a module."""
    spec = spec_from_file_location(name, ROOT / f"benchmarks/{name}.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look their annotations up
    spec.loader.exec_module(module)
    return module


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests run last: what breaks often should show first.

    Of those that need a GPU, the ones whose processes want it for themselves (`alone`) come before those by which this
    process begins to compute on it.
    """
    def place(item: pytest.Item) -> tuple[bool, bool]:
        gpu = item.get_closest_marker("gpu")
        return "slow" in item.keywords, gpu is not None and not gpu.kwargs.get("alone", False)

    items.sort(key=place)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU with its driver and 4 GB free"))


@dataclass(frozen=True)
class Golden:
    """One recorded case: inputs, outputs and weights of the released code, with its constructor arguments."""

    arrays: dict[str, np.ndarray]

    @property
    def config(self) -> dict:
        return json.loads(str(self.arrays["config"]))

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key])

    def state_dict(self, *prefixes: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): self[name] for prefix in prefixes for name in self.arrays
                if name.startswith(prefix)}

    def transformer(self, prefix: str = "sd/var/", section: str = "var") -> VAR:
        settings, vae = dict(self.config[section]), self.config["vae"]
        pyramid, num_classes = Pyramid(settings.pop("patch_nums")), settings.pop("num_classes")
        model = VAR(TransformerSpec(**settings), pyramid, num_classes=num_classes, vocab_size=vae["vocab_size"],
                    z_channels=vae.get("z_channels") or vae["Cvae"])
        load_var(model, self.state_dict(prefix), "golden")
        return model.eval()

    def tokenizer(self, *prefixes: str, settings: dict | None = None) -> VQVAE:
        """The tokenizer; parts that the case does not exercise and leaves out keep their initial weights."""
        settings = dict(settings or self.config["vae"])
        pyramid = Pyramid(settings.pop("v_patch_nums"))
        model = VQVAE(TokenizerSpec(**settings), pyramid)
        tensors = self.state_dict(*(prefixes or ("sd/vae/",)))
        left_out = tuple(self.config.get("vae_keys_left_out", ()))
        if left_out:
            tensors |= {name: value for name, value in model.state_dict().items() if name.startswith(left_out)}
        load_vqvae(model, tensors, "golden")
        return model.eval()


def golden(name: str) -> Golden:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return Golden({key: file[key] for key in file.files})


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(ours.detach(), theirs, atol=tolerance, rtol=0)


TINY_PYRAMID = Pyramid((1, 1, 2, 3, 4))


def tiny_transformer(depth: int = 6, seed: int = 0, **settings: object) -> VAR:
    torch.manual_seed(seed)
    spec = TransformerSpec(depth=depth, embed_dim=16, num_heads=2, **settings)
    model = VAR(spec, TINY_PYRAMID, num_classes=5, vocab_size=32, z_channels=8)
    initialize(model, gamma=1.0)
    with torch.no_grad():
        model.head.weight.normal_()  # the initial head is nearly zero; tests want logits that differ
    return model.eval()


def tiny_tokenizer(seed: int = 1) -> VQVAE:
    torch.manual_seed(seed)
    spec = TokenizerSpec(vocab_size=32, z_channels=8, ch=8, ch_mult=(1, 2), num_res_blocks=1, norm_groups=4)
    return VQVAE(spec, TINY_PYRAMID).eval().requires_grad_(False)


def visits(first_step: int, *, num_items: int, batch_size: int, seed: int) -> Iterator[Visit]:
    """The visits of a training's steps from ``first_step`` on, without end."""
    for step in count(first_step):
        indices = batch_indices(step, num_items=num_items, batch_size=batch_size, seed=seed)
        yield Visit(step // (num_items // batch_size), indices)


@pytest.fixture
def no_network(monkeypatch):
    """No socket can be opened."""
    def refuse(*_arguments, **_settings):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr("socket.socket", refuse)


@pytest.fixture
def smoke() -> ExperimentConfig:
    return load_config(ROOT / "workflow/config/smoke.yaml")


@pytest.fixture(scope="session")
def null_machine(tmp_path_factory: pytest.TempPathFactory) -> NullMachine:
    """A machine with GPUs that do nothing, built for this session."""
    if reason := what_is_missing():
        pytest.skip(f"a GPU that does nothing {reason}")
    return NullMachine.build(tmp_path_factory.mktemp("nullgpu"))


@pytest.fixture
def assumed(monkeypatch: pytest.MonkeyPatch) -> float:
    """Relative standard deviation that tests of the rule assume between unknown trainings, whatever is assumed now."""
    monkeypatch.setattr(noise, "UNKNOWN_TRAINING_SPREAD", 0.15)
    return 0.15


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each released file has a published hash."""
    for name, digest in PUBLISHED.items():
        monkeypatch.setitem(PUBLISHED_SHA256, name, digest)
