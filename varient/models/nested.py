"""Extraction of a network's state dict from training checkpoints, which nest it under various keys and prefixes.

A warning reports which state dict was used and what was ignored.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from varient.models.checkpoint import CheckpointError, is_plain, kind_of_tensor, printable

WEIGHTS = ("model", "module", "state_dict", "model_state_dict", "net", "network", "weights")
"""Keys under which trainers store a network's weights."""
AVERAGED = ("ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema")
"""Keys of weights that are averaged over training."""

_LOOKS = (
    ("a LlamaGen transformer", {"cls_embedding.embedding_table.weight"}),
    ("a DiT", {"y_embedder.embedding_table.weight"}),
    ("a VAR transformer", {"pos_start", "pos_1LC", "word_embed.weight"}),
    ("a LlamaGen tokenizer", {"encoder.conv_blocks.0.res.0.conv1.weight"}),
    ("a VAR VQVAE", {"quantize.embedding.weight", "quant_conv.weight"}),
)
_TRAINERS = (("a VAR training checkpoint", {"trainer"}), ("a DiT training checkpoint", {"model", "ema", "opt"}))
_UNKNOWN = "an unknown layout"

# Prefixes that torch.compile, FSDP and activation checkpointing add to names of modules or submodules.
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# Prefix of DDP and of torch's weight averaging, which also adds a counter.
_PREFIX, _COUNTER = "module.", "n_averaged"
_DEEPEST = 4
_NAMED_KEYS = 6

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExpectedWeights:
    """The network whose weights are expected in a file, and the keys that they may be nested under.

    Attributes:
        network: the network in the words of `looks_like`.
        wrappers: keys that the weights may be under, possibly several levels deep, in order of preference.
        reason: reason for this order, for the warning.
    """

    network: str
    wrappers: tuple[str, ...]
    reason: str


class StateDict(dict[str, Tensor]):
    """A flat state dict with its location in a file.

    Attributes:
        taken: keys that it was nested under, joined by dots; empty if the whole file is the state dict.
        left_out: other keys of the file, which are ignored.
    """

    def __init__(self, tensors: Mapping[str, Tensor], taken: str = "", left_out: Iterable[str] = ()) -> None:
        super().__init__(tensors)
        self.taken, self.left_out = taken, tuple(left_out)


def looks_like(names: Iterable[str]) -> str:
    """The network that has parameters of these names, in words."""
    names = set(names)
    return next((network for network, marks in _LOOKS if marks <= names), _UNKNOWN)


@contextmanager
def telling_look(names: Iterable[str]) -> Iterator[None]:
    """Add to a `CheckpointError` which network the file seems to contain."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{error} (the file looks like {looks_like(names)})") from None


def unwrap(content: object, expected: ExpectedWeights, origin: str) -> StateDict:
    """Extract the expected state dict from the content of a checkpoint; a warning reports what is ignored.

    If the file contains a single network of another kind, its weights are returned, so that loading them reports which
    names and shapes do not fit.

    Raises:
        CheckpointError: there are no weights, there are several networks but not the expected one, or the weights are
            not a flat dict of plain tensors.
    """
    if not isinstance(content, dict):
        raise CheckpointError(f"{origin}: expected a state dict, found {type(content).__name__}")
    places = list(_places(content, expected.wrappers))
    fitting = [path for path, names in places if looks_like(names) == expected.network]
    if not fitting and len(places) == 1:
        fitting = [places[0][0]]
    if not fitting:
        raise CheckpointError(f"{origin}: expected a state dict of {expected.network}, flat or under "
                              f"{', '.join(expected.wrappers)}; found {_found(content)}")
    taken = min(fitting, key=lambda path: [expected.wrappers.index(key) for key in path])
    tensors, left_out = content, []
    for depth, key in enumerate(taken):
        left_out += [".".join((*taken[:depth], str(other))) for other in tensors if other != key]
        tensors = tensors[key]
    place = ".".join(taken)
    flat, counters = _flat(tensors, f"{origin}: {place}" if place else origin)
    left_out = sorted(left_out) + counters
    _report(origin, place, left_out, expected.reason if len(fitting) > 1 else "")
    return StateDict(flat, place, left_out)


def flat_state_dict(content: object, origin: str) -> StateDict:
    """Validate the content of a file that is a plain state dict.

    Raises:
        CheckpointError: the content is not a flat dict of plain tensors.
    """
    if not isinstance(content, dict):
        raise CheckpointError(f"{origin}: expected a state dict, found {type(content).__name__}")
    return StateDict(_flat(content, origin)[0])


def _places(content: dict, wrappers: tuple[str, ...], path: tuple[str, ...] = ()
            ) -> Iterator[tuple[tuple[str, ...], set[str]]]:
    """Find nested dicts with tensors: their key paths, and the tensor names without prefixes."""
    tensors = [isinstance(value, Tensor) for value in content.values()]
    inner = [key for key in wrappers if isinstance(content.get(key), dict)] if len(path) < _DEEPEST else []
    if (any(tensors) and (all(tensors) or not inner)) or not (content or path):
        yield path, set(_plain_names(content))
    for key in inner:
        yield from _places(content[key], wrappers, (*path, key))


def _plain_names(names: Iterable[Any]) -> dict[str, Any]:
    """Parameter names without wrapper prefixes -> names in the file."""
    inside = {name: ".".join(part for part in str(name).split(".") if part not in _WRAPPERS) for name in names}
    while (named := [plain for plain in inside.values() if plain != _COUNTER]) and all(
            plain.startswith(_PREFIX) for plain in named):
        inside = {name: plain.removeprefix(_PREFIX) for name, plain in inside.items()}
    return {plain: name for name, plain in inside.items()}


def _flat(content: dict, origin: str) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors by parameter names without prefixes, and the names of counters, which are not parameters."""
    for name, value in content.items():
        if not isinstance(name, str):
            raise CheckpointError(f"{origin}: expected a flat dict of tensors, but its key {name!r:.60} is "
                                  f"{type(name).__name__}")
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{origin}: expected a flat dict of tensors, but {name[:200]} is "
                                  f"{type(value).__name__}")
        if not is_plain(value):
            raise CheckpointError(f"{origin}: {name[:200]} is a tensor that is {kind_of_tensor(value)}, expected plain "
                                  "numbers")
    plain = _plain_names(content)
    if len(plain) < len(content):
        twice = next(name for name in content if name not in plain.values())
        raise CheckpointError(f"{origin}: holds {twice[:200]} twice, with and without the prefixes of a wrapper")
    counters = [_COUNTER] if _COUNTER in plain and any(name.startswith(_PREFIX) for name in content) else []
    return {name: content[plain[name]].detach() for name in plain if name not in counters}, counters


def _report(origin: str, place: str, left_out: list[str], reason: str) -> None:
    if left_out:
        log.warning("%s is a training checkpoint: its '%s' is used, left out: %s%s", origin, place,
                    printable(", ".join(left_out)), f" ({reason})" if reason else "")
    elif place:
        log.info("%s: its '%s' is used", origin, place)


def _found(content: dict) -> str:
    """Description of a file's content, for an error message."""
    everywhere = tuple(dict.fromkeys((*content, *WEIGHTS, *AVERAGED, "trainer", "var_wo_ddp", "vae_local")))
    places = [(".".join(map(str, path)), looks_like(names)) for path, names in _places(content, everywhere)]
    if places:
        return ", ".join(f"{look} under '{place}'" if place else look for place, look in places[:_NAMED_KEYS])
    trainer = next((name for name, keys in _TRAINERS if keys <= set(content)), "")
    if trainer:
        return f"{trainer} that holds no weights"
    keys = ", ".join(f"{key!s:.40}" for key in list(content)[:_NAMED_KEYS])
    return f"{_UNKNOWN} without tensors (its keys are {keys})"
