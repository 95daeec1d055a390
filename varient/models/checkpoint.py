"""Weight files of our own: safetensors with a description, loaded strictly."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from varient.files import atomic_path


class CheckpointError(ValueError):
    """A weight file that is missing, damaged or of another shape; the message names file, key and expectation."""


def save_weights(path: Path, model: nn.Module, description: dict) -> None:
    """Write the parameters and buffers of ``model``; ``description`` (JSON) travels in the file's header."""
    save_tensors(path, model.state_dict(), description)


def save_tensors(path: Path, state: Mapping[str, torch.Tensor], description: dict) -> None:
    """As `save_weights`, from a state dict."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    _write(path, tensors, {"varient": json.dumps(description, sort_keys=True)})


def copy_in_half_precision(source: Path, target: Path) -> None:
    """Copy a file written by `save_weights` with its floats rounded to float16, half as large.

    Raises:
        CheckpointError: no such file, or a damaged one.
    """
    tensors, metadata = _read(source)
    halved = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    _write(target, halved, metadata)


def load_weights(path: Path, model: nn.Module) -> dict:
    """Fill ``model`` from a file written by `save_weights`; return its description.

    Raises:
        CheckpointError: no such file, a damaged file, or keys and shapes that differ from the model's.
    """
    tensors, metadata = _read(path)
    load_strictly(model, tensors, str(path))
    return json.loads(metadata.get("varient", "{}"))


def read_description(path: Path) -> dict:
    """What `save_weights` was told about the weights; no tensor is read.

    Raises:
        CheckpointError: no such file, or a damaged one.
    """
    with _opened(path) as file:
        return json.loads((file.metadata() or {}).get("varient", "{}"))


def load_strictly(model: nn.Module, tensors: dict[str, torch.Tensor], origin: str) -> None:
    """Load a state dict whose keys and shapes must be the model's own.

    A model on the meta device takes copies of the tensors for its own, in its dtypes; any other is filled in place.

    Raises:
        CheckpointError: names the differences, at most six of each kind.
    """
    own = model.state_dict()
    wrong = {
        "missing": [name for name in own if name not in tensors],
        "unexpected": [name for name in tensors if name not in own],
        "of another shape": [f"{name} {tuple(tensors[name].shape)}, expected {tuple(own[name].shape)}"
                             for name in own if name in tensors and tensors[name].shape != own[name].shape],
    }
    problems = [f"{len(names)} {kind}: {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}"
                for kind, names in wrong.items() if names]
    if problems:
        raise CheckpointError(f"{origin} does not fit {type(model).__name__}: {'; '.join(problems)}")
    if any(tensor.is_meta for tensor in own.values()):
        # Copies: a file maps its tensors to any address, and kernels may round otherwise off a cache line.
        tensors = {name: tensor.to(own[name].dtype, copy=True) for name, tensor in tensors.items()}
        model.load_state_dict(tensors, strict=True, assign=True)
    else:
        model.load_state_dict(tensors, strict=True)


def _write(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:  # how safetensors tells of a full disk
            raise OSError(str(error)) from None


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        return tensors, file.metadata() or {}


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from None
