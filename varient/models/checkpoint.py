"""Weight files of our own: safetensors with a description and a digest, loaded strictly.

The header of a file has one metadata entry, ``varient``: the description as a JSON object, which includes the XXH3-128
digest of description and tensors.  There is only one entry because safetensors writes several in random order, which
would make the files irreproducible.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from varient.files import atomic_path
from varient.models.file_kind import SAFETENSORS, kind_of

_ENTRY, _DIGEST = "varient", "xxh3_128"
_FORM = "safetensors file"

log = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A weight file is missing, damaged or has wrong shapes; the message names file, key and what is expected."""

    def __init__(self, message: str) -> None:
        """Keep the message on one line, even if it contains names from a damaged file."""
        super().__init__(printable(message))


def printable(text: str) -> str:
    """Escape all non-printable characters, such as line breaks in names from untrusted files."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def save_weights(path: Path, model: nn.Module, description: dict) -> None:
    """Write the parameters and buffers of ``model``, with a JSON-serializable ``description`` in the file's header."""
    save_tensors(path, model.state_dict(), description)


def save_tensors(path: Path, state: Mapping[str, Tensor], description: dict) -> None:
    """As `save_weights`, from a state dict."""
    _write(path, {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, description)


def copy_in_half_precision(source: Path, target: Path) -> None:
    """Copy a file written by `save_weights` with its floats rounded to float16, half as large.

    Raises:
        CheckpointError: no such file, a damaged one, or values beyond float16.
    """
    tensors, description = _read(source)
    halved = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    if beyond := [name for name, tensor in halved.items() if not _is_finite(tensor)]:
        raise CheckpointError(f"{source}: has values that are not finite in float16: {_listed(beyond)}")
    _write(target, halved, description)


def load_weights(path: Path, model: nn.Module) -> dict:
    """Fill ``model`` from a file written by `save_weights`; return its description.

    Raises:
        CheckpointError: no such file, a damaged file, keys and shapes that differ from the model's, or values that are
            not finite.
    """
    tensors, description = _read(path)
    load_strictly(model, tensors, str(path))
    return description


def check_weights(path: Path) -> dict:
    """Verify the digest of a file's tensors and return its description.

    Raises:
        CheckpointError: no such file, or a damaged one.
    """
    return _read(path)[1]


def read_description(path: Path) -> dict:
    """The description that was passed to `save_weights`; no tensor is read.

    Raises:
        CheckpointError: no such file, or a damaged one.
    """
    with _opened(path) as file:
        return _split_entry(path, file.metadata())[0]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of anybody's safetensors file, memory-mapped; where it has a digest, that is not verified.

    Raises:
        CheckpointError: no such file, or a damaged one.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)


def check_kind(path: Path, *kinds: str, form: str) -> str:
    """Detect the kind of a file (`varient.models.file_kind`) by its first bytes.

    Args:
        kinds: accepted kinds.
        form: description of the expected format, for the message.

    Raises:
        CheckpointError: the file is missing, cannot be read, or is of another kind.
    """
    try:
        kind = kind_of(path)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except OSError as error:
        raise CheckpointError(f"{path}: not a readable {form} ({error.strerror or error})") from None
    if kind not in kinds:
        raise CheckpointError(f"{path}: not a readable {form}, but {kind}")
    return kind


def load_strictly(model: nn.Module, tensors: Mapping[str, Tensor], origin: str, *, values: bool = True) -> None:
    """Load a state dict whose keys and shapes must match the model's and whose values must be finite.

    A model on the meta device gets copies of the tensors in the model's dtypes; any other model is filled in place.

    Args:
        origin: beginning of error messages.
        values: False only compares keys, shapes and dtype kinds, and does not change the model.

    Raises:
        CheckpointError: as `check_fit`.
    """
    own = model.state_dict()
    check_fit(tensors, own, origin, type(model).__name__, values=values)
    if not values:
        return
    if any(tensor.is_meta for tensor in own.values()):
        # Copies, because mapped tensors may be unaligned, and kernels may then round differently.
        tensors = {name: tensor.detach().to(own[name].dtype, copy=True) for name, tensor in tensors.items()}
        model.load_state_dict(tensors, strict=True, assign=True)
    else:
        model.load_state_dict(tensors, strict=True)


def check_fit(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], origin: str, network: str, *,
              values: bool = True) -> None:
    """Check that a state dict fits a network: keys, shapes, dtype kinds, and finite values.

    Args:
        expected: state dict of the network; may be on the meta device.
        values: whether to check that values are finite, which reads all of them.

    Raises:
        CheckpointError: names the differences, at most six of each kind.
    """
    shared = {name: tensor for name, tensor in tensors.items() if name in expected}
    wrong = {
        "missing": [name for name in expected if name not in tensors],
        "unexpected": [name for name in tensors if name not in expected],
        "of another shape": [f"{name} {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
                             for name, tensor in shared.items() if tensor.shape != expected[name].shape],
        "of another kind": [f"{name} is {kind_of_tensor(tensor)}, expected {_kind_of_dtype(expected[name].dtype)}"
                            for name, tensor in shared.items() if not _is_like(tensor, expected[name])],
    }
    _refuse(wrong, f"{origin} does not fit {network}")
    if values:  # in the network's dtype, because a float64 value may overflow in float32
        check_finite_tensors(shared, origin, expected)


def check_finite_tensors(tensors: Mapping[str, Tensor], origin: str, like: Mapping[str, Tensor] | None = None) -> None:
    """Check that no value is NaN or infinite.

    Args:
        like: tensors of the same names, in whose dtypes the values must be finite.

    Raises:
        CheckpointError: names the tensors, at most six.
    """
    wrong = [name for name, tensor in tensors.items()
             if not _is_finite(tensor.detach().to(like[name].dtype) if like else tensor.detach())]
    _refuse({"not finite (NaN or infinite)": wrong}, f"{origin} has tensors that no network can work with")


def kind_of_tensor(tensor: Tensor) -> str:
    """Dtype kind and storage of a tensor in words, for messages."""
    if tensor.is_meta:
        return "without values"
    if tensor.is_quantized:
        return "quantised"
    if tensor.layout is not torch.strided or tensor.is_nested:
        return "sparse or nested"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "larger than what is stored of it"
    return _kind_of_dtype(tensor.dtype)


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is dense, real and completely stored."""
    return kind_of_tensor(tensor) in ("floating point", "integer", "boolean")


def _kind_of_dtype(dtype: torch.dtype) -> str:
    if dtype.is_complex:
        return "complex"
    if dtype.is_floating_point:
        return "floating point" if dtype.itemsize > 1 else "8-bit floating point"
    return "boolean" if dtype is torch.bool else "integer"


def _is_like(tensor: Tensor, expected: Tensor) -> bool:
    return kind_of_tensor(tensor) == _kind_of_dtype(expected.dtype)


def _is_finite(tensor: Tensor) -> bool:
    # aminmax propagates NaN and allocates no tensor of this size.
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    return all(value.isfinite() for value in tensor.aminmax())


def _refuse(wrong: Mapping[str, list[str]], prefix: str) -> None:
    problems = [f"{len(names)} {kind}: {_listed(names)}" for kind, names in wrong.items() if names]
    if problems:
        raise CheckpointError(f"{prefix}: {'; '.join(problems)}")


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:6])}{', ...' if len(names) > 6 else ''}"


def _write(path: Path, tensors: dict[str, Tensor], description: dict) -> None:
    description = json.loads(json.dumps(description))  # as it will be read back: tuples become lists
    entry = json.dumps(description | {_DIGEST: _digest(tensors, description)}, sort_keys=True)
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={_ENTRY: entry})
        except SafetensorError as error:  # raised by safetensors if the disk is full
            raise OSError(str(error)) from None


def _read(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Memory-mapped tensors and description, after verifying the digest."""
    with _opened(path) as file:
        description, expected = _split_entry(path, file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        if expected is None:
            log.warning("%s was written without a digest of its tensors: damaged tensors would not be detected", path)
        elif _digest(tensors, description) != expected:
            raise CheckpointError(f"{path}: damaged: its tensors are not those that were written; make the file again")
    return tensors, description


def _split_entry(path: Path, metadata: dict[str, str] | None) -> tuple[dict, str | None]:
    """Description, and digest if there is one."""
    try:
        description = json.loads((metadata or {}).get(_ENTRY, "{}"))
        return description, description.pop(_DIGEST, None)
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise CheckpointError(f"{path}: damaged: its description is no JSON object; make the file again") from None


def _digest(tensors: Mapping[str, Tensor], description: dict) -> str:
    """Digest of the description and of each tensor's name, dtype, shape and bytes, in the order of the names.

    It detects damage, not forgery (no digest inside the file could).  XXH3 adds 3 % to loading from the page cache.
    """
    digest = xxhash.xxh3_128(json.dumps(description, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    check_kind(path, SAFETENSORS, form=_FORM)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # a damaged header may raise any type
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: not a readable {_FORM} ({reason[:300]})") from None
