"""The loss of a network on held-out images, as a record.

It shows a trade-off where scores of images show none: guidance and filters sharpen what is sampled, and FID takes its
features from a classifier.  The loss of a subnet is under the subnet's layers, that of the full network under all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from varient.config import ExperimentConfig
from varient.files import check_writable, sha256_kept
from varient.models.build import load_tokenizer, load_transformer
from varient.records import HeldOutLoss, HeldOutRecord, provenance, write_record
from varient.systems.lineage import imported_sha256
from varient.systems.pipeline import default_device, ready
from varient.systems.registry import resolve_system
from varient.systems.var import VARSystem, resolve
from varient.training.tokens import HeldOutTokens
from varient.training.validation import held_out_losses


def measure_held_out(config: ExperimentConfig, systems: Sequence[str], run_dir: Path, output: Path) -> HeldOutRecord:
    """Losses of the systems, which share one network, in float32 on the device of this process; writes the record.

    Raises:
        ValueError: an unknown system, one that is not VAR, systems of several networks, or fewer images than
            ``held_out_images``.
        CheckpointError: weights that are missing or do not fit.
        ImageFolderError: the folder's val does not match the config, or an image cannot be read.
        OutputError: a record that could not be written.
    """
    check_writable(output)
    found = _of_one_network(config, systems)
    paths = {name: run_dir / f"{name}.safetensors" for system in found for name in system.weights}
    tokenizer_path, network_path = paths["tokenizer"], paths[found[0].network]
    device = default_device()
    model = ready(load_transformer(config, network_path))
    images = HeldOutTokens(config, load_tokenizer(config, tokenizer_path), run_dir, config.held_out_images)
    plan_of = {system.name: system.plan_in(run_dir) for system in found}
    plans = list(dict.fromkeys(plan_of.values()))  # systems may differ in their sampling alone
    losses = dict(zip(plans, held_out_losses(model, images.batches(device), plans), strict=True))
    record = HeldOutRecord(
        network=found[0].network, num_images=losses[plans[0]].images, images_sha256=images.identity,
        losses=tuple(HeldOutLoss(system=name, loss=losses[plan].mean, loss_sd=losses[plan].sd,
                                 scales=losses[plan].scales) for name, plan in plan_of.items()),
        provenance=provenance(
            experiment=config.name, seed=config.seed, settings=config.digest("data", "patch_nums", "held_out_images"),
            weights_sha256={name: sha256_kept(path) for name, path in paths.items()},
            imported_sha256=imported_sha256(resolve_system(systems[0], config), config, run_dir), on=device.type))
    write_record(output, record)
    return record


def _of_one_network(config: ExperimentConfig, names: Sequence[str]) -> list[VARSystem]:
    found = []
    for name in names:
        system = resolve(name, config, None)
        if system is None:
            raise ValueError(f"system {name!r}: only VAR and its subnets have a loss on held-out tokens")
        found.append(system)
    if len(networks := {system.network: system.name for system in found}) != 1:
        raise ValueError("a record is of one network, the systems have " + (", ".join(
            f"{network} ({name})" for network, name in networks.items()) or "none"))
    return found
