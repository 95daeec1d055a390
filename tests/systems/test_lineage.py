"""From which files of others a system's networks come, by the config and by what lies in a run folder."""

from pathlib import Path

import pytest
from conftest import ROOT
from record_factory import provenance, score
from torch import nn

from varient.config import load_config
from varient.experiment import named_files
from varient.files import sha256_of
from varient.models.checkpoint import save_weights
from varient.paper.released import RELEASED, released_as, why_unknown
from varient.paper_size import unknown_weights
from varient.systems.lineage import imported_networks, imported_sha256
from varient.systems.registry import resolve_system

PAPER, DIGITS = (load_config(ROOT / f"workflow/config/{name}.yaml") for name in ("imagenet256", "digits"))


@pytest.mark.parametrize(("system", "networks"), [
    ("var-d30", {"tokenizer", "base"}), ("free-d16-r1to3", {"tokenizer", "base"}),
    ("variant-d16", {"tokenizer", "base"}), ("variant-d16-p10-full", {"tokenizer", "base"}),  # trained from the base
    ("code-n6", {"tokenizer", "code-drafter-n6", "code-refiner-n6"}),
    ("free-code-n6", {"tokenizer", "base", "code-small"}),
    ("dit-xl2", {"dit", "diffusion_pytorch_model.safetensors"}), ("llamagen-xxl", {"llamagen", "llamagen-tokenizer"})])
def test_networks_of_others_behind_a_system(system, networks):
    found = imported_networks(resolve_system(system, PAPER), PAPER)
    assert set(found) == networks and len(found) == len(networks)
    assert all(released_as(network) in RELEASED for network in found)


@pytest.mark.parametrize("system", ["var-d30", "variant-d16", "var-d30-b1", "variant-d16-p10-b1-full", "code-n6",
                                    "free-code-n6", "dit-mini", "llamagen-mini"])
def test_what_is_trained_here_has_none(system, tmp_path):
    assert imported_networks(resolve_system(system, DIGITS), DIGITS) == ()
    assert imported_sha256(resolve_system(system, DIGITS), DIGITS, tmp_path) == {}


def test_a_base_trained_here_on_tokens_of_others_has_their_tokenizer_alone():
    tokenizer = DIGITS.tokenizer.model_copy(update={"weights": Path("vae.pth"), "training": None})
    config = DIGITS.model_copy(update={"tokenizer": tokenizer})
    for system in ("var-d30", "var-d30-b1", "variant-d4-b1"):
        assert imported_networks(resolve_system(system, config), config) == ("tokenizer",)


def test_each_file_of_the_papers_config_is_among_the_released_ones():
    named = {path.name for path in named_files(PAPER)} - {"imagenet", "config.json"}
    assert named <= set(RELEASED)


def test_hashes_come_from_the_networks_of_the_run(tmp_path):
    save_weights(tmp_path / "tokenizer.safetensors", nn.Linear(1, 1), {"imported_sha256": "a" * 64})
    save_weights(tmp_path / "base.safetensors", nn.Linear(1, 1), {})  # by an older version, which did not say
    supernet = resolve_system("variant-d16", PAPER)
    assert imported_sha256(supernet, PAPER, tmp_path) == {"tokenizer": "a" * 64}
    decoder = tmp_path / "diffusion_pytorch_model.safetensors"
    decoder.write_bytes(b"values")
    settings = PAPER.systems | {"dit": PAPER.systems["dit"] | {"vae": str(tmp_path)}}
    config = PAPER.model_copy(update={"systems": settings})
    assert imported_sha256(resolve_system("dit-xl2", config), config, tmp_path) == {decoder.name: sha256_of(decoder)}


@pytest.mark.parametrize(("network", "sha256", "why"), [
    ("tokenizer", RELEASED["vae_ch160v4096z32.pth"].sha256, ""),
    ("tokenizer", "a" * 64, "but vae_ch160v4096z32.pth has 7c3ec27a"),
    ("tokenizer", None, "nothing says"),
    ("base", "a" * 64, "of var_d30.pth no published one is known"),
    ("extractor", "6726825d" + "0" * 56, ""),
    ("extractor", "7726825d" + "0" * 56, "has 6726825d"),
    ("code-drafter-n7", "a" * 64, "no such network")])
def test_a_file_is_known_by_the_published_hash_of_its_own_network(network, sha256, why):
    found = why_unknown(network, sha256)
    assert (found == "") if why == "" else why in found


@pytest.mark.parametrize(("protocol", "network", "file"), [
    ("fd-dinov2", "dinov2-extractor", "model.safetensors"), ("cmmd", "clip-extractor", "open_clip_model.safetensors")])
def test_the_weights_of_encoders_are_unknown_until_somebody_adds_their_hash(protocol, network, file):
    record = score("real-val", 2.0, cmmd=1.0, protocol=protocol, experiment=PAPER.name,
                   provenance=provenance(PAPER.name, weights_sha256={"extractor": "a" * 64}))
    assert unknown_weights(PAPER, record)[network] == f"SHA-256 aaaaaaaa, and of {file} no published one is known"
