"""Which files of others a system's networks descend from: imported themselves, or trained from networks that were."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from varient.config import ExperimentConfig
from varient.files import sha256_kept
from varient.systems.names import BaseId
from varient.systems.protocol import System
from varient.systems.registry import networks_of, user_files


def imported_networks(system: System, config: ExperimentConfig) -> tuple[str, ...]:
    """Networks from files of others that the system's come from, and the names of weights that it reads as they are."""
    networks = dict.fromkeys(name for weights in system.weights for name in _imported(weights, config))
    return (*networks, *(path.name for path in _weight_files(system)))


def imported_sha256(system: System, config: ExperimentConfig, run_dir: Path) -> dict[str, str]:
    """SHA-256 of the file behind each of them; one whose network does not say is left out.

    Raises:
        CheckpointError: a network that is missing or damaged.
    """
    from varient.models.checkpoint import read_description

    found: dict[str, object] = {path.name: sha256_kept(path) for path in _weight_files(system)}
    for name in imported_networks(system, config):
        if name not in found and (path := run_dir / f"{name}.safetensors").exists():
            found[name] = read_description(path).get("imported_sha256")
    return {name: digest for name, digest in found.items() if isinstance(digest, str)}


def _imported(network: str, config: ExperimentConfig) -> Iterator[str]:
    """The imported networks that one descends from; itself where it is one."""
    if network == "tokenizer":
        if config.tokenizer.weights:
            yield network
        return
    if BaseId.parse(network):
        if config.base.weights:
            yield network
        else:
            yield from _imported("tokenizer", config)
        return
    family = networks_of(config).get(network)
    if family and family.released:
        yield network
        return
    # Supernets are fine-tuned from a base network, on the tokenizer's tokens; only one can be imported.
    for need in family.needs if family else ("tokenizer", str(BaseId())):
        yield from _imported(need, config)


def _weight_files(system: System) -> list[Path]:
    """Weights among the files of the user's that a system reads; what describes them is none."""
    return [path for path in user_files(system) if path.suffix != ".json"]
