"""Supernets trained by the recipes, on networks of the smoke configuration."""

import numpy as np
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file
from torch.nn import functional as F

from varient.ablations import arms
from varient.config import ConfigError, Recipe, load_config, parse_config
from varient.experiment import parse_experiment
from varient.files import sha256_of
from varient.models.build import build_transformer
from varient.models.checkpoint import CheckpointError, load_weights, save_weights
from varient.models.transformer import VAR
from varient.systems.names import BaseId
from varient.systems.registry import resolve_system
from varient.training.base import train_base
from varient.training.course import supernet_course
from varient.training.curves import read_curves
from varient.training.recipes import Supernet, schedule_of, supernet_of
from varient.training.schedule import AutomaticSchedule, FixedRatioSchedule, ProgressiveSchedule, ReorderedSchedule
from varient.training.supernet import copy_kept_weights, train_supernet
from varient.training.token_training import TokenTraining
from varient.training.tokens import prediction_divergence, scale_losses


@pytest.fixture
def experiment(smoke):
    settings = smoke.model_dump(mode="json")
    settings["supernet"]["recipes"] |= {"distil": {"distillation": 0.5}, "p100": {"ratio": 1.0}}
    settings["supernet"]["phases"] = {"4": [2, 2, 1], "2": [2, 2, 2]}
    return parse_config(settings, "test")


@pytest.fixture
def files(experiment, tmp_path):
    torch.manual_seed(0)
    pipeline = resolve_system("var-d6", experiment).load(None, "fp32")
    save_weights(tmp_path / "tokenizer.safetensors", pipeline.tokenizer, {})
    save_weights(tmp_path / "base.safetensors", pipeline.model, {})
    return tmp_path / "tokenizer.safetensors", tmp_path / "base.safetensors"


def _train(config, files, name, folder="run", depth=2, seed=0):
    supernet = Supernet(depth, name, seed)
    output = files[0].parent / folder / f"{supernet.weights(config)}.safetensors"
    train_supernet(config, supernet, *files, output)
    model = build_transformer(config)
    description = load_weights(output, model)
    return output, model.state_dict(), description


def test_recipes_choose_the_schedule(experiment):
    phases = (2, 3, 4)
    assert schedule_of(experiment.recipe(None), phases) == ProgressiveSchedule(phases)
    assert schedule_of(experiment.recipe("p50"), phases) == FixedRatioSchedule(9, 0.5)
    assert schedule_of(experiment.recipe("auto"), phases) == AutomaticSchedule(9)
    phased = ProgressiveSchedule(phases)
    assert schedule_of(Recipe(last_ratio=0.8), phases) == ProgressiveSchedule(phases, 0.8)
    assert schedule_of(Recipe(order="reversed"), phases, 5) == ReorderedSchedule.reversed(phased)
    assert schedule_of(Recipe(order="shuffled"), phases, 5) == ReorderedSchedule.shuffled(phased, 5)


def test_a_training_follows_the_order_and_the_rate_of_its_recipe(experiment, files):
    """Subnet batches first in reversed order; the learning rate as recorded step by step."""
    settings = experiment.model_dump(mode="json")
    settings["supernet"]["phases"] = {"4": [2, 0, 2], "2": [2, 0, 2]}
    settings["supernet"]["recipes"] = {"back": {"order": "reversed", "learning_rate": 1e-4},
                                       "decay": {"schedule": "cosine"}}
    config = parse_config(settings | {"ablations": None}, "test")
    output, *_ = _train(config, files, "back")
    curves = read_curves(output.parent / "training-supernet-d2-back/curves.npz")
    per_epoch = config.supernet.training.batches_per_epoch
    assert curves["loss/subnet"][0].tolist()[:2 * per_epoch] == [*range(2 * per_epoch)]  # p = 1 in the first epochs
    assert "loss/full" in curves and min(curves["loss/full"][0]) >= 2 * per_epoch
    assert np.allclose(curves["learning_rate"][1], 1e-4)
    output, *_ = _train(config, files, "decay")
    rates = read_curves(output.parent / "training-supernet-d2-decay/curves.npz")["learning_rate"][1]
    assert rates[0] == pytest.approx(config.supernet.training.learning_rate) and (np.diff(rates) < 0).all()


def test_a_shuffled_order_is_another_for_another_seed(experiment):
    settings = experiment.model_dump(mode="json")
    settings["supernet"]["recipes"]["mixed"] = {"order": "shuffled"}
    config = parse_config(settings, "test")
    orders = [supernet_course(config, Supernet(2, "mixed", seed)).schedule.order for seed in range(4)]
    assert len(set(orders)) > 1 and orders[1] == supernet_course(
        config.model_copy(update={"seed": 1}), Supernet(2, "mixed")).schedule.order


def test_a_supernet_starts_from_the_base_of_its_name(experiment, files):
    """Trained beside that of the experiment's own base, which it neither reads nor overwrites."""
    own, other = Supernet(2), Supernet(2, "p50", 1, 3)
    assert (own.starts_from, other.starts_from) == ("base", "base-b3")
    assert (own.weights(experiment), other.weights(experiment, 4)) == ("supernet-d2", "supernet-d2-p50-s1-b3-e4")
    for supernet in (own, other):
        assert supernet_of(supernet.weights(experiment), experiment) == supernet
    folder = files[0].parent / "run"
    for supernet in (own, Supernet(2, base=3)):
        train_supernet(experiment, supernet, *files, folder / f"{supernet.weights(experiment)}.safetensors")
    assert {path.name for path in folder.iterdir()} == {
        "supernet-d2.safetensors", "training-supernet-d2", "supernet-d2-b3.safetensors", "training-supernet-d2-b3"}


def test_base_networks_of_other_seeds_are_other_networks(smoke, tmp_path):
    torch.manual_seed(0)
    save_weights(tmp_path / "tokenizer.safetensors", resolve_system("var-d6", smoke).load(None, "fp32").tokenizer, {})
    made = []
    for base in (0, 1):
        output = tmp_path / f"{BaseId(base)}.safetensors"
        train_base(smoke, tmp_path / "tokenizer.safetensors", output, base=base)
        made.append((output.name, load_weights(output, build_transformer(smoke))["settings"]))
    assert [name for name, _ in made] == ["base.safetensors", "base-b1.safetensors"]
    assert (tmp_path / "training-base").is_dir() and (tmp_path / "training-base-b1").is_dir()
    sections = ("data", "patch_nums", "tokenizer", "transformer", "base")
    assert made[0][1] == f"{smoke.digest(*sections)}:{sha256_of(tmp_path / 'tokenizer.safetensors')}"  # as ever
    assert made[1][1] != made[0][1]
    weights = [load_file(tmp_path / name) for name, _ in made]
    assert any(not torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_subnet_without_a_bridge_leaves_the_other_layers_alone(experiment, files):
    """p = 1 and N = 0: no token ever meets a layer outside I_d, so nothing moves there, weight decay included."""
    settings = experiment.model_dump(mode="json")
    settings["supernet"]["recipes"] = {"alone": {"ratio": 1.0, "bridge": 0}}
    settings["ablations"] = None
    config = parse_config(settings, "test")
    _, weights, _ = _train(config, files, "alone")
    base = build_transformer(config)
    load_weights(files[1], base)
    moved = {name for name, value in base.state_dict().items() if not torch.equal(value, weights[name])}
    layers = {int(name.split(".")[1]) for name in moved if name.startswith("blocks.")}
    assert layers == {0, 5}


def test_with_a_bridge_they_learn(experiment, files):
    _, weights, _ = _train(experiment, files, "p100")
    base = build_transformer(experiment)
    load_weights(files[1], base)
    assert not torch.equal(weights["blocks.3.ffn.fc1.weight"], base.state_dict()["blocks.3.ffn.fc1.weight"])


def test_one_supernet_trains_all_its_depths(experiment, files, monkeypatch):
    seen = set()
    forward = VAR.forward

    def noted(self, label_B, x_BLv, plan=None, class_BC=None):
        seen.add(len(plan.layers(10)))
        return forward(self, label_B, x_BLv, plan, class_BC)

    monkeypatch.setattr(VAR, "forward", noted)
    output, _, description = _train(experiment, files, "multi")
    assert output.name == "supernet-multi.safetensors" and description["subnet_depths"] == [4, 2]
    assert seen == {6, 4, 2}


def test_the_weights_at_the_phases_ends_are_those_of_a_training_that_ended_there(experiment, files):
    """So the learning rate is constant and a step's draws depend on nothing but its number."""
    output, *_ = _train(experiment, files, None)
    settings = experiment.model_dump(mode="json")
    settings["supernet"]["phases"]["2"] = [2, 2, 0]
    short, weights, _ = _train(parse_config(settings, "test"), files, None, "short")
    kept = build_transformer(experiment)
    description = load_weights(output.parent / "training-supernet-d2/epoch-4.safetensors", kept)
    assert description["epoch"] == 4
    assert all(torch.equal(value, weights[name]) for name, value in kept.state_dict().items())
    assert not (short.parent / "training-supernet-d2/epoch-4.safetensors").exists()  # its end is the output
    assert (short.parent / "training-supernet-d2/epoch-2.safetensors").exists()


def test_kept_weights_are_copied_if_they_are_the_supernets_own(experiment, files, tmp_path):
    output, *_ = _train(experiment, files, None)
    kept = output.parent / "training-supernet-d2/epoch-2.safetensors"
    copy_kept_weights(output, 2, tmp_path / "copy.safetensors")
    assert (tmp_path / "copy.safetensors").read_bytes() == kept.read_bytes()
    other, *_ = _train(experiment, files, None, "other", seed=1)
    kept.write_bytes((other.parent / "training-supernet-d2-s1/epoch-2.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="is of another training than"):
        copy_kept_weights(output, 2, tmp_path / "again.safetensors")
    whole = (tmp_path / "copy.safetensors").read_bytes()
    kept.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="epoch-2.safetensors: damaged"):
        copy_kept_weights(output, 2, tmp_path / "again.safetensors")
    kept.unlink()
    with pytest.raises(CheckpointError, match="are missing; delete .*supernet-d2.safetensors to train it again"):
        copy_kept_weights(output, 2, tmp_path / "again.safetensors")
    assert not (tmp_path / "again.safetensors").exists()


def test_validation_is_recorded_and_moves_no_weight(experiment, files):
    settings = experiment.model_dump(mode="json")
    settings["supernet"]["recipes"]["p50"]["validate_every"] = 2
    often, weights, _ = _train(experiment, files, "p50")
    seldom, others, _ = _train(parse_config(settings, "test"), files, "p50", "seldom")
    assert all(torch.equal(value, others[name]) for name, value in weights.items())
    per_epoch = experiment.supernet.training.batches_per_epoch
    for output, epochs in ((often, [1, 2, 3, 4, 5]), (seldom, [2, 4])):
        curves = read_curves(output.parent / "training-supernet-d2-p50/curves.npz")
        for network in ("subnet", "full"):
            steps, losses = curves[f"validation/{network}"]
            assert steps.tolist() == [per_epoch * epoch for epoch in epochs] and (losses > 0).all()


def test_other_seeds_are_other_trainings(experiment, files):
    first, second = (_train(experiment, files, None, seed=seed)[0].read_bytes() for seed in (0, 1))
    assert first != second


def test_distillation_adds_the_full_networks_view(experiment, files):
    output, *_ = _train(experiment, files, "distil")
    curves = read_curves(output.parent / "training-supernet-d2-distil/curves.npz")
    assert (curves["loss/distillation"][1] > 0).all()
    # What is minimised is half of each; without rounding of the curves' float32, exactly.
    steps = {int(step): at for at, step in enumerate(curves["loss/subnet"][0])}
    total = dict(zip(curves["loss"][0].tolist(), curves["loss"][1].tolist(), strict=True))
    for at, step in enumerate(curves["loss/distillation"][0].tolist()):
        parts = curves["loss/subnet"][1][steps[step]], curves["loss/distillation"][1][at]
        assert total[step] == pytest.approx(np.mean(parts), rel=1e-5)


def test_the_target_of_a_distillation_is_what_the_full_network_samples_from(experiment, files, monkeypatch):
    """Stochastic depth leaves branches out for the student alone; afterwards the network is in training again."""
    settings = experiment.model_dump(mode="json")
    settings["transformer"]["drop_path_rate"] = 0.5
    config = parse_config(settings, "test")
    forward, targets, students = VAR.forward, [], []

    def noted(self, label_B, x_BLv, plan=None, class_BC=None):
        logits_BLV = forward(self, label_B, x_BLv, plan, class_BC)
        with torch.random.fork_rng(), torch.no_grad():
            training, sampled_BLV = self.training, forward(self.eval(), label_B, x_BLv, plan, class_BC)
            self.train(training)
        same = torch.equal(logits_BLV, sampled_BLV)
        if torch.is_grad_enabled():
            students.append((training, same))
        else:
            targets.append((plan.is_full, same))
        return logits_BLV

    monkeypatch.setattr(VAR, "forward", noted)
    _train(config, files, "distil")
    assert targets and set(targets) == {(True, True)}
    assert set(students) == {(True, False)}


def test_divergence_by_definition():
    torch.manual_seed(0)
    wanted, given = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    p, q = wanted.softmax(-1), given.softmax(-1)
    expected = (p * (p.log() - q.log())).sum(-1).mean()
    torch.testing.assert_close(prediction_divergence(wanted, given), expected)
    assert prediction_divergence(wanted, wanted).abs() < 1e-6


def test_losses_of_the_scales_average_to_the_whole(smoke):
    torch.manual_seed(0)
    logits, idx = torch.randn(2, smoke.pyramid.length, 16), torch.randint(16, (2, smoke.pyramid.length))
    losses = scale_losses(logits, idx, smoke.pyramid)
    whole = sum(losses[k] * smoke.pyramid.tokens(k) for k in smoke.pyramid.scales) / smoke.pyramid.length
    torch.testing.assert_close(whole, F.cross_entropy(logits.flatten(0, 1), idx.flatten()))


def test_curves_tell_the_zones_and_the_layers_apart(experiment, files):
    output, *_ = _train(experiment, files, None)
    curves = read_curves(output.parent / "training-supernet-d2/curves.npz")
    assert {"gradient_norm/shared", "gradient_norm/full_only", "gradient_norm/full/bridge/shared",
            "gradient_norm/subnet/flexible/full_only", "loss/full/r1", "loss/subnet/r10"} <= set(curves)


def test_the_probe_of_the_curves_takes_the_first_rows_of_a_batch(experiment, files, monkeypatch):
    settings = experiment.model_dump(mode="json")
    settings["supernet"]["training"]["batch_size"] = 40
    forward, rows = VAR.forward, []

    def noted(self, label_B, x_BLv, plan=None, class_BC=None):
        rows.append(len(label_B))
        return forward(self, label_B, x_BLv, plan, class_BC)

    monkeypatch.setattr(VAR, "forward", noted)
    _train(parse_config(settings, "test"), files, None)
    epochs, per_epoch = 6, experiment.supernet.training.batches_per_epoch
    assert rows == ([32, 32] + [40] * per_epoch) * epochs


def test_an_automatic_training_that_was_stopped_goes_on_to_the_same_bits(experiment, files, monkeypatch):
    whole, *_ = _train(experiment, files, "auto", "whole")
    monkeypatch.setenv("VARIENT_SAVE_EVERY", "5")
    calls = []

    def stop(self, step, evaluate):
        calls.append(step)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return validate(self, step, evaluate)

    validate = TokenTraining._validate
    with monkeypatch.context() as patch:
        patch.setattr(TokenTraining, "_validate", stop)
        with pytest.raises(KeyboardInterrupt):
            _train(experiment, files, "auto", "stopped")
    again, *_ = _train(experiment, files, "auto", "stopped")
    assert whole.read_bytes() == again.read_bytes()
    curves = read_curves(again.parent / "training-supernet-d2-auto/curves.npz")
    assert len(curves["validation/subnet"][0]) == 5  # after each of six epochs but the last


def _identity(config, supernet, **changes):
    """Digest of a supernet's settings with changes of the section `supernet`; keys of dicts in it are added."""
    settings = config.model_dump(mode="json") | {"ablations": None}
    for name, value in changes.items():
        old = settings["supernet"][name]
        settings["supernet"][name] = old | value if isinstance(old, dict) else value
    changed = parse_config(settings, "test")
    return changed.digest(*supernet.depends(changed))


ALONE, TOGETHER, FIXED = Supernet(4), Supernet(4, "multi"), Supernet(4, "p50")


@pytest.mark.parametrize(("changes", "retrained"), [
    ({"phases": {"4": [2, 2, 2]}}, {ALONE, FIXED}),
    ({"phases": {"2": [2, 2, 3]}}, {TOGETHER}),  # it has as many epochs as its shallowest subnet
    ({"depths": [4, 3, 2], "phases": {"3": [1, 1, 1]}}, {TOGETHER}),
    ({"recipes": {"p50": {"ratio": 0.4}}}, {FIXED}),
    ({"recipes": {"p30": {"ratio": 0.3}}}, set()),
    ({"counterparts": {"16": 2, "4": 4}}, set()),
    ({"bridge": 5}, {ALONE, TOGETHER, FIXED}),
    ({"selection": "nested"}, {ALONE, TOGETHER, FIXED}),
    ({"training": {"learning_rate": 1e-5}}, {ALONE, TOGETHER, FIXED}),
])
def test_a_supernet_is_trained_again_for_what_its_weights_depend_on(experiment, changes, retrained):
    assert {supernet for supernet in (ALONE, TOGETHER, FIXED)
            if _identity(experiment, supernet, **changes) != _identity(experiment, supernet)} == retrained


@pytest.mark.parametrize(("supernet", "digest"), [
    (Supernet(16), "e21c37cbad7a4e1d"), (Supernet(16, "p10"), "92f119ad1b8a0dcd"),
    (Supernet(16, "p80", 1), "e527e5ccac846f76"), (Supernet(16, "skip"), "61274de532a14579"),
    (Supernet(4, "multi"), "57d283285fd30f30"), (Supernet(4, "auto"), "e69c36337177e389"),
    (Supernet(4, "early"), "7306949110f1fcb0"), (Supernet(4, "distil"), "37c9da51c36af31a")])
def test_networks_of_the_digits_are_still_those_that_were_trained(supernet, digest):
    """Settings that came later are no reason to train again where they are not set."""
    config = load_config(ROOT / "workflow/config/digits.yaml")
    assert config.digest(*supernet.depends(config)).startswith(digest)
    assert config.digest("data", "patch_nums", "tokenizer", "transformer", "base").startswith("18c42ae8e02e5500")


@pytest.mark.parametrize("later", [{"last_ratio": 0.8}, {"order": "reversed"}, {"learning_rate": 1e-4},
                                   {"schedule": "cosine"}])
def test_settings_that_came_later_train_anew_where_they_are_set(experiment, later):
    changed = _identity(experiment, TOGETHER, recipes={"multi": {"shared": True} | later})
    assert changed != _identity(experiment, TOGETHER)


def test_a_nested_subnet_depends_on_the_depths_it_is_chosen_through(experiment):
    more = {"depths": [5, 4, 2], "phases": {"5": [1, 1, 1]}}
    assert _identity(experiment, ALONE, selection="nested") != _identity(experiment, ALONE, selection="nested", **more)
    assert _identity(experiment, ALONE) == _identity(experiment, ALONE, **more)


@pytest.mark.parametrize(("recipe", "message"), [
    ({"full": {}}, "a recipe cannot be named 'full'"),
    ({"end1": {}}, "a recipe cannot be named 'end1'"),
    ({"n7": {}}, "should match pattern"),
    ({"both": {"ratio": 0.5, "automatic": True}}, "a recipe with a fixed ratio cannot be automatic"),
    ({"high": {"bridge": 11}}, "bridge N = 11 is above the 10 scales"),
    ({"often": {"ratio": 1.5}}, "less than or equal to 1"),
    ({"back": {"ratio": 0.5, "order": "reversed"}}, "'order' is about the three phases, which 'ratio' replaces"),
    ({"back": {"ratio": 0.0, "last_ratio": 0.5}}, "'last_ratio' is about the three phases, which 'ratio' replaces"),
    ({"back": {"automatic": True, "order": "shuffled"}}, "which 'automatic' replaces"),
    ({"back": {"order": "rising"}}, "order"),
])
def test_recipes_that_cannot_be_are_refused(smoke, recipe, message):
    settings = smoke.model_dump(mode="json")
    settings["supernet"]["recipes"] |= recipe
    with pytest.raises(ConfigError, match=message):
        parse_experiment(settings, "test")


def test_a_ratio_is_no_three_phases(smoke):
    settings = smoke.model_dump(mode="json")
    settings["ablations"]["ratios"] = {"multi": 1}
    with pytest.raises(ConfigError, match="recipe 'multi' has no fixed ratio"):
        arms(parse_config(settings, "test"))


def test_ablations_that_name_what_is_not_there_are_refused(smoke):
    settings = smoke.model_dump(mode="json")
    settings["ablations"]["ratios"] = {"p77": 1}
    with pytest.raises(ConfigError, match="supernet.recipes has no 'p77'"):
        parse_experiment(settings, "test")
