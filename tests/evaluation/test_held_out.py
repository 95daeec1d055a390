"""The record of a network's losses on held-out images."""

import pytest
import torch
from conftest import ROUNDING
from torch.nn import functional as F

from varient.evaluation.held_out import measure_held_out
from varient.files import sha256_of
from varient.models.checkpoint import save_weights
from varient.models.vqvae import from_uint8
from varient.records import HeldOutRecord, read_record
from varient.systems.registry import resolve_system
from varient.training.data import load_images

SYSTEMS = ["variant-d2", "variant-d2-n8", "variant-d2-full", "variant-d2-plain"]


@pytest.fixture
def experiment(smoke):
    """With the randomness of a training, which a loss must not have."""
    return smoke.model_copy(update={"transformer": smoke.transformer.model_copy(
        update={"drop_path_rate": 0.5, "cond_drop_rate": 0.5})})


@pytest.fixture
def run_dir(experiment, tmp_path):
    """Random networks of the experiment."""
    torch.manual_seed(0)
    pipeline = resolve_system("var-d6", experiment).load(None, "fp32")
    save_weights(tmp_path / "tokenizer.safetensors", pipeline.tokenizer, {})
    with torch.no_grad():
        pipeline.model.head.weight.normal_()  # the initial head is nearly zero, so that all plans would agree
    save_weights(tmp_path / "supernet-d2.safetensors", pipeline.model, {})
    return tmp_path


def _by_hand(config, run_dir, system):
    """The mean loss of all held-out tokens, one image at a time through the sampler's networks."""
    pipeline = resolve_system(system, config).load(run_dir, "fp32")
    images, losses = load_images(config.data, "holdout"), []
    with torch.no_grad():
        for image, label in zip(images.images[:40], images.labels, strict=False):
            idx_1L = pipeline.tokenizer.encode(from_uint8(image[None]))
            logits_1LV = pipeline.model(label[None], pipeline.tokenizer.quantize.teacher_input(idx_1L), pipeline.plan)
            losses.append(F.cross_entropy(logits_1LV[0], idx_1L[0]).item())
    return sum(losses) / len(losses)


def test_the_losses_are_those_of_each_systems_own_layers(experiment, run_dir, monkeypatch):
    held_out = load_images(experiment.data, "holdout")
    monkeypatch.setattr("varient.training.tokens.load_images", lambda data, split: type(held_out)(
        held_out.images[:40], held_out.labels[:40]))
    record = measure_held_out(experiment, SYSTEMS, run_dir, run_dir / "record.json")
    assert read_record(run_dir / "record.json", HeldOutRecord) == record
    assert (record.network, record.num_images) == ("supernet-d2", 40)
    assert [loss.system for loss in record.losses] == SYSTEMS
    for loss in record.losses:
        assert loss.loss == pytest.approx(_by_hand(experiment, run_dir, loss.system), rel=10 * ROUNDING)
        assert len(loss.scales) == 10
    assert len({loss.loss for loss in record.losses}) == 3  # how tokens are drawn has no say
    assert record.losses[3].loss == record.losses[0].loss


def test_the_record_says_of_what_it_is(experiment, run_dir):
    record = measure_held_out(experiment, ["variant-d2"], run_dir, run_dir / "record.json")
    assert record.num_images == experiment.data.holdout == 360
    assert record.images_sha256 == load_images(experiment.data, "holdout").identity
    provenance = record.provenance
    assert provenance.weights_sha256 == {name: sha256_of(run_dir / f"{name}.safetensors")
                                         for name in ("tokenizer", "supernet-d2")}
    assert (provenance.experiment, provenance.seed) == ("smoke", 0) and provenance.device.startswith("CPU")
    again = measure_held_out(experiment, ["variant-d2-full", "variant-d2"], run_dir, run_dir / "again.json")
    assert again.losses[1] == record.losses[0]  # nothing is drawn


def test_a_number_of_images_is_spaced_evenly_over_the_held_out_ones(experiment, run_dir):
    images = load_images(experiment.data, "holdout")
    some = experiment.model_copy(update={"held_out_images": 40})
    record = measure_held_out(some, ["variant-d2"], run_dir, run_dir / "some.json")
    every_ninth = type(images)(images.images[::9], images.labels[::9])
    assert (record.num_images, record.images_sha256) == (40, every_ninth.identity)
    whole = measure_held_out(experiment, ["variant-d2"], run_dir, run_dir / "whole.json")
    assert record.provenance.settings != whole.provenance.settings and record.losses != whole.losses


@pytest.mark.parametrize(("systems", "message"), [
    (["variant-d2", "variant-d4"], "supernet-d2 .variant-d2., supernet-d4"),
    (["variant-d2", "var-d6"], "base .var-d6."),
    (["dit-mini"], "'dit-mini': only VAR"),
    (["variant-d3"], "supernets for d = 4, 2"),
])
def test_systems_of_several_networks_or_families_are_refused_first(experiment, tmp_path, systems, message):
    with pytest.raises(ValueError, match=message):
        measure_held_out(experiment, systems, tmp_path / "nowhere", tmp_path / "record.json")
    assert list(tmp_path.iterdir()) == []
