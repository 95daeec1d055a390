"""The plan of a training against counts by hand: batches, hours, memory that fits."""

import json
from fractions import Fraction

import pytest
import torch
from conftest import ROOT
from training_fixtures import H100

from varient.config import ExperimentConfig, load_config
from varient.cost.gpus import device
from varient.cost.printer import training_answer
from varient.cost.sizes import MIB
from varient.cost.training_plan import plan_base, plan_supernet
from varient.cost.training_setting import ASSUMED_UTILISATION, TrainingSetting, setting_of
from varient.cost.training_work import forward_flops
from varient.terminal import print_answer
from varient.training.recipes import Supernet

# -- Table 7 at the paper's size ---------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def paper():
    """The paper's experiment with images whose tokens can be kept."""
    document = load_config(ROOT / "workflow/config/imagenet256.yaml").model_dump()
    document["data"]["augmentation"] = None
    return ExperimentConfig.model_validate(document)


def _cached(devices=8, **settings):
    return TrainingSetting(H100, devices, token_cache=True, **settings)


@pytest.mark.parametrize(("depth", "epochs", "share"), [(16, 25, 0.5958), (8, 28, 0.3649), (4, 32, 0.2494),
                                                        (2, 35, 0.1916)])
def test_expected_batches_of_the_papers_trainings(paper, depth, epochs, share):
    plan = plan_supernet(paper, Supernet(depth), _cached())
    steps = 1_281_167 // 1024
    # By fractions: p is 1/5 for 5 epochs, 1/5 + 4/5 i/15 for i = 1..15, then 1.
    subnet = steps * (5 * Fraction(1, 5) + sum(Fraction(1, 5) + Fraction(4, 5) * Fraction(i, 15) for i in range(1, 16))
                      + epochs - 20)
    assert (plan.steps_per_epoch, plan.total.steps, plan.total.images) == (1251, 1251 * epochs, 1_281_024 * epochs)
    assert plan.total.tokens == 680 * plan.total.images
    assert plan.total.subnet_batches == pytest.approx(float(subnet), rel=1e-12)
    assert plan.total.full_batches + plan.total.subnet_batches == pytest.approx(plan.total.steps, rel=1e-12)
    full, subnet_kind = plan.kinds
    assert full.token_layers == 30 * 680
    assert subnet_kind.token_layers == 91 * 30 + 589 * depth
    assert subnet_kind.token_layers / full.token_layers == pytest.approx(share, abs=1e-4)
    assert [phase.last for phase in plan.phases] == [5, 20, epochs]
    for name in ("steps", "subnet_batches", "token_layers", "flops", "hours"):
        assert sum(getattr(phase, name) for phase in plan.phases) == pytest.approx(getattr(plan.total, name))


def test_spread_of_subnet_batches_is_that_of_the_draws(smoke):
    plan = plan_supernet(smoke, Supernet(smoke.supernet.depths[0]), TrainingSetting(H100, devices=1))
    steps = plan.steps_per_epoch
    generator = torch.Generator().manual_seed(0)
    shares = torch.tensor(plan.probabilities).repeat_interleave(steps)
    drawn = (torch.rand(20_000, len(shares), generator=generator) < shares).sum(1).double()
    assert drawn.mean() == pytest.approx(plan.total.subnet_batches, rel=0.01)
    assert drawn.std() == pytest.approx(plan.total.subnet_deviation, rel=0.03, abs=0.01)


def test_state_bytes_of_the_papers_network(paper):
    memory = plan_supernet(paper, Supernet(16), _cached()).memory
    assert memory.weights + memory.gradients + memory.moments == 16 * 2_010_020_356


def test_largest_micro_batch_is_the_last_that_fits(paper):
    def fits(rows, **settings):
        return plan_supernet(paper, Supernet(16), _cached(micro_batch=rows, **settings)).fits

    plan = plan_supernet(paper, Supernet(16), _cached())
    assert not plan.fits and any("DOES NOT FIT" in note for note in plan.notes)
    assert fits(plan.largest_micro_batch) and not fits(2 * plan.largest_micro_batch)
    small = plan_supernet(paper, Supernet(16), TrainingSetting(device("rtx4090"), token_cache=True))
    assert small.largest_micro_batch is None


def test_trainings_with_two_zones_and_two_kinds_of_layers_have_a_probe(paper):
    assert plan_supernet(paper, Supernet(16), _cached()).memory.probe > 0
    document = json.loads(paper.model_dump_json())
    document["supernet"]["recipes"] = {"skip": {"bridge": 0}, "all": {"bridge": 10}}
    config = ExperimentConfig.model_validate(document)
    assert not any(plan_supernet(config, Supernet(16, name), _cached()).memory.probe for name in ("skip", "all"))
    digits = load_config(ROOT / "workflow/config/digits.yaml")
    assert plan_base(digits, TrainingSetting(H100, devices=1)).memory.probe == 0


def test_recomputation_trades_memory_for_work(paper):
    plain, again = (plan_supernet(paper, Supernet(8), _cached(recompute=flag)) for flag in (False, True))
    assert again.memory.peak < plain.memory.peak / 4
    assert again.total.flops == plain.total.flops < again.total.computed_flops < 1.34 * plain.total.flops
    assert again.total.hours / plain.total.hours == pytest.approx(again.total.computed_flops / plain.total.flops)


# -- hours -------------------------------------------------------------------------------------------------------------

def test_hours_are_flops_over_the_assumed_share_of_the_peak(paper):
    plan = plan_supernet(paper, Supernet(16), _cached())
    assert plan.total.hours * 3600 == pytest.approx(plan.total.flops / (8 * 989.4e12 * ASSUMED_UTILISATION))
    single = plan_supernet(paper, Supernet(16), _cached(precision="fp32"))
    assert single.total.hours / plan.total.hours == pytest.approx(989.4 / 66.9)
    assert any("ASSUMED" in note for note in plan.notes)


def test_encoding_on_the_way_is_added(paper):
    cached, encoded = (plan_supernet(paper, Supernet(16), TrainingSetting(H100, token_cache=flag))
                       for flag in (True, False))
    images = cached.total.images
    assert encoded.total.computed_flops - cached.total.computed_flops == pytest.approx(images * encoded.encoder_flops)
    assert (encoded.total.hours - cached.total.hours) * 3600 == pytest.approx(
        images * encoded.encoder_flops / (8 * 66.9e12 * 0.35))
    assert encoded.memory.tokenizer == 4 * 108_948_355 and cached.memory.tokenizer == 0


# -- other trainings ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "whole"), [("digits", 1797), ("fashion", 60_000)])
def test_base_of_the_miniatures(name, whole):
    config = load_config(ROOT / f"workflow/config/{name}.yaml")
    plan = plan_base(config, TrainingSetting(H100, devices=1, precision="fp32"))
    images, training = whole - config.data.holdout, config.base.training
    assert plan.num_images == images and plan.steps_per_epoch == images // training.batch_size
    assert plan.total.steps == plan.steps_per_epoch * training.epochs
    assert plan.total.subnet_batches == 0 and len(plan.kinds) == len(plan.phases) == 1 and not plan.encodes


def test_recipes(smoke):
    recipes = {"even": {"ratio": 0.5}, "multi": {"shared": True}, "skipall": {"bridge": 0},
               "kd": {"distillation": 0.5}, "auto": {"automatic": True}}
    document = json.loads(smoke.model_dump_json())
    document["supernet"]["recipes"] |= recipes
    config, depths = type(smoke).model_validate(document), smoke.supernet.depths
    plans = {name: plan_supernet(config, Supernet(depths[0], name), TrainingSetting(H100, devices=1))
             for name in recipes}
    assert plans["even"].total.subnet_batches == plans["even"].total.steps / 2
    assert len(plans["multi"].kinds) == 1 + len(depths)
    assert len({sum(kind.batches) for kind in plans["multi"].kinds[1:]}) == 1
    assert plans["skipall"].kinds[1].token_layers == config.pyramid.length * depths[0]
    full, subnet = plans["kd"].kinds
    assert full.extra_flops == 0 and subnet.extra_flops == sum(forward_flops(plans["kd"].shape, full.plan).values())
    assert plans["auto"].total.subnet_batches == pytest.approx(0.2 * plans["auto"].total.steps)
    assert any("never ended" in note for note in plans["auto"].notes)


@pytest.mark.parametrize(("make", "message"), [
    (lambda paper: plan_base(paper, TrainingSetting(H100)), "no training starts"),
    (lambda paper: plan_supernet(paper, Supernet(5), TrainingSetting(H100)), "no entry for depth 5"),
    (lambda paper: plan_supernet(paper, Supernet(16, "nope"), TrainingSetting(H100)), "supernet.recipes has no"),
    (lambda paper: plan_supernet(paper, Supernet(16), TrainingSetting(H100, 7)), "cannot be shared equally"),
    (lambda paper: plan_supernet(load_config(ROOT / "workflow/config/imagenet256.yaml"), Supernet(16), _cached()),
     "cannot be kept"),
    (lambda paper: plan_base(load_config(ROOT / "workflow/config/digits.yaml"), _cached()), "needs no token cache"),
    (lambda paper: TrainingSetting(H100, 0), "at least 1"),
    (lambda paper: TrainingSetting(H100, micro_batch=0), "below 1"),
    (lambda paper: TrainingSetting(H100, precision="fp8"), "precision"),
    (lambda paper: TrainingSetting(H100, strategy="tp"), "strategy"),
    (lambda paper: TrainingSetting(H100, 1, strategy="fsdp"), "2 devices")])
def test_impossible_trainings_are_refused(paper, make, message):
    with pytest.raises(ValueError, match=message):
        make(paper)


# -- what is printed ---------------------------------------------------------------------------------------------------

def test_the_document_is_json_and_says_what_is_what(paper):
    plan = plan_supernet(paper, Supernet(16), _cached(micro_batch=8))
    document = training_answer(plan).document
    assert json.loads(json.dumps(document)) == document
    assert document["accumulation"] == 16 and document["fits_device"]
    assert document["memory_mib"]["weights"] == round(4 * 2_010_020_356 / MIB, 2)
    assert document["sources"]["assumed"] == ["usable_share_of_device_memory", "utilisation"]


def test_tables_name_device_phases_and_assumption(paper, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    plan = plan_supernet(paper, Supernet(2), TrainingSetting(H100, recompute=True))
    print_answer(training_answer(plan), as_json=False)
    printed = capsys.readouterr().out
    for text in ("supernet-d2 of imagenet256", "8 x NVIDIA H100", "43,785", "(sd 66)", "ASSUMED",
                 "nothing to compare with"):
        assert text in printed


def test_a_setting_is_that_of_a_training_started_now(monkeypatch):
    monkeypatch.setenv("VARIENT_MICRO_BATCH", "16")
    monkeypatch.setenv("VARIENT_STRATEGY", "fsdp")
    training = load_config(ROOT / "workflow/config/imagenet256.yaml").supernet.training
    setting = setting_of("a100:4", training, token_cache=True)
    assert (setting.devices, setting.micro_batch, setting.strategy, setting.recompute) == (4, 16, "fsdp", False)
    assert (setting.precision, setting.token_cache) == ("fp16", True) and "A100" in setting.device.name
    with pytest.raises(ValueError, match="as in h100:8"):
        setting_of("h100:many", training)
    with pytest.raises(ValueError, match="p100"):
        setting_of("p100", training)
