"""CoDe as a row: its settings, its networks in training, its sampler."""

from functools import partial

import numpy as np
import pytest
import torch
from conftest import TINY_PYRAMID, assert_close, tiny_tokenizer, tiny_transformer

import varient.baselines.code as code
from varient.baselines.code.decoding import CodeSampler
from varient.baselines.code.training import _distillation, _prediction
from varient.config import ConfigError
from varient.experiment import parse_experiment
from varient.generation import images
from varient.models.checkpoint import CheckpointError, load_weights, save_weights
from varient.plan import DepthPlan
from varient.sampling import Guidance, NotFiniteError
from varient.systems.registry import networks_of, resolve_system
from varient.training.tokens import Batch, token_loss

SECTION = {"refiner": {"depth": 3, "embed_dim": 16, "num_heads": 2}, "top_k": 0,
           "small": {"training": {"epochs": 1, "batch_size": 512, "learning_rate": 1e-3}},
           "pairs": {6: {"drafter": {"training": {"epochs": 1, "batch_size": 512, "learning_rate": 1e-3}},
                         "refiner": {"training": {"epochs": 1, "batch_size": 512, "learning_rate": 1e-3}}}}}


@pytest.fixture
def experiment(smoke):
    return parse_experiment(smoke.model_dump(mode="json") | {"systems": {"code": SECTION}, "rows": []}, "test")


def _with(config, **changes):
    settings = config.model_dump(mode="json") | {"systems": {"code": SECTION | changes}, "rows": []}
    return parse_experiment(settings, "test")


def test_ids_weights_and_steps(experiment):
    tuned, free = resolve_system("code-n6", experiment), resolve_system("free-code-n3", experiment)
    assert tuned.weights == ("tokenizer", "code-drafter-n6", "code-refiner-n6") and tuned.steps == "6+4"
    assert free.weights == ("tokenizer", "base", "code-small") and free.steps == "3+7"
    assert tuned.published_as == "code-n6" and free.published_as == "free-code-n3"
    assert set(networks_of(experiment)) == {"code-small", "code-drafter-n6", "code-refiner-n6", "key-change",
                                              "head-kinds"}


@pytest.mark.parametrize(("name", "message"), [
    ("code-n10", "drafter takes 1..9 scales"), ("free-code-n0", "drafter takes 1..9 scales"),
    ("code-n7", "fine-tuned pairs for N = 6"), ("code", "system 'code' is unknown; known forms: code-n<N>"),
])
def test_wrong_ids_say_what_there_is(experiment, name, message):
    with pytest.raises(ValueError, match=message):
        resolve_system(name, experiment)


def test_wrong_settings_are_named(experiment):
    with pytest.raises(ConfigError, match=r"test: systems.code.temperatures: 2 for 10 scales"):
        _with(experiment, temperatures=[1.0, 1.0])
    with pytest.raises(ConfigError, match=r"test: systems.code.small: needs exactly one of 'weights'"):
        _with(experiment, small={})
    with pytest.raises(ConfigError, match=r"test: systems.code.refiner: embed_dim = 15 is not divisible"):
        _with(experiment, refiner={"depth": 3, "embed_dim": 15, "num_heads": 2})


def test_parameters_are_those_of_the_networks(experiment):
    system = resolve_system("code-n6", experiment)
    sampler = system.load(None, "fp32")
    counted = {"drafter": sum(p.numel() for p in sampler.drafter.parameters()),
               "refiner": sum(p.numel() for p in sampler.refiner.parameters())}
    assert system.parameters() == counted


def _sampler() -> CodeSampler:
    return CodeSampler(tiny_transformer(), tiny_transformer(depth=3, seed=2), tiny_tokenizer(), 3,
                       Guidance(1.5, 0, 0.96, (1.1, 1.1, 1.1, 1.0, 1.0)), 16)


def test_an_image_does_not_depend_on_its_batch():
    draw, labels = partial(images, _sampler(), seed=5), [i % 5 for i in range(7)]
    together = draw(labels, range(7))
    alone = [draw([labels[i]], [i]) for i in range(7)]
    assert together.dtype == np.uint8 and np.array_equal(together, np.concatenate(alone))


def test_both_caches_are_shown_in_turn():
    seen = []
    _sampler().latents([0, 1], [0, 1], 0, on_cache=lambda cache: seen.append(cache.peak_bytes))
    assert seen == [0, 0]  # each before its first scale


def test_each_scale_is_told_once():
    seen = []
    _sampler().latents([0, 1], [0, 1], 0, on_scale=seen.append)
    assert seen == [*_sampler().told_scales] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("broken", ["drafter", "refiner"])
def test_either_network_stops_the_sampling_when_it_computes_nan(broken):
    sampler = _sampler()
    getattr(sampler, broken).head.bias.data[0] = torch.nan
    with pytest.raises(NotFiniteError, match="not finite"):
        sampler.latents([0, 1], [0, 1], 0)


@pytest.mark.parametrize("scales", [1, 3, 5])
def test_a_short_plan_computes_what_the_whole_network_does(scales):
    model, quantizer = tiny_transformer(), tiny_tokenizer().quantize
    idx_BL = torch.randint(0, 32, (2, TINY_PYRAMID.length), generator=torch.Generator().manual_seed(0))
    label_B, x_BLv = torch.tensor([1, 2]), quantizer.teacher_input(idx_BL)
    end = TINY_PYRAMID.end(scales)
    short = model(label_B, x_BLv, DepthPlan.full(6, scales))
    assert short.shape[1] == end
    assert_close(short, model(label_B, x_BLv)[:, :end], 1e-5)
    loss = _prediction(model, DepthPlan.full(6, scales))(Batch(label_B, x_BLv, idx_BL))
    assert_close(loss, token_loss(model(label_B, x_BLv)[:, :end], idx_BL[:, :end]), 1e-5)


def test_distillation_is_zero_for_the_teacher_itself_and_looks_at_late_scales_alone():
    teacher, student, quantizer = tiny_transformer(), tiny_transformer(depth=3, seed=2), tiny_tokenizer().quantize
    idx_BL = torch.randint(0, 32, (2, TINY_PYRAMID.length), generator=torch.Generator().manual_seed(0))
    batch = Batch(torch.tensor([1, 2]), quantizer.teacher_input(idx_BL), idx_BL)
    assert_close(_distillation(teacher, teacher, 2)(batch), torch.tensor(0.0), 1e-6)
    wanted, given = (model(*batch[:2])[:, TINY_PYRAMID.end(3):].softmax(-1) for model in (teacher, student))
    divergence = (wanted * (wanted / given).log()).sum(-1).mean()  # KL(teacher || student), by definition
    assert_close(_distillation(student, teacher, 3)(batch), divergence, 1e-5)


def test_networks_are_trained_from_each_other(experiment, tmp_path):
    base = resolve_system("var-d6", experiment).load(None, "fp32")
    save_weights(tmp_path / "tokenizer.safetensors", base.tokenizer, {})
    save_weights(tmp_path / "base.safetensors", base.model, {})
    for name, network in networks_of(experiment).items():
        network.make(tmp_path, tmp_path / f"{name}.safetensors")
    sampler = resolve_system("code-n6", experiment).load(tmp_path, "fp32")
    small = resolve_system("free-code-n6", experiment).load(tmp_path, "fp32").refiner
    assert not torch.equal(sampler.drafter.head.weight, base.model.head.weight)
    assert torch.equal(sampler.drafter.pos_1LC[:, 15:], base.model.pos_1LC[:, 15:])  # late scales had no gradient
    assert not torch.equal(sampler.refiner.head.weight, small.head.weight)


def test_the_authors_files_are_read_as_released_vars_are(smoke, tmp_path):
    section = SECTION | {"small": {"weights": str(tmp_path / "var_d3.pth")}}
    config = parse_experiment(smoke.model_dump(mode="json") | {"systems": {"code": section}, "rows": []}, "test")
    small = networks_of(config)["code-small"]
    assert small.released == tmp_path / "var_d3.pth"
    refiner = code.resolve("free-code-n6", config, code.Settings.model_validate(section)).load(None, "fp32").refiner
    torch.save(refiner.state_dict(), tmp_path / "var_d3.pth")
    small.make(tmp_path, tmp_path / "out.safetensors")
    assert "imported_sha256" in load_weights(tmp_path / "out.safetensors", refiner)
    torch.save({"trainer": {"var_wo_ddp": refiner.state_dict(), "config": {}}}, tmp_path / "var_d3.pth")
    small.make(tmp_path, tmp_path / "out.safetensors")
    described = load_weights(tmp_path / "out.safetensors", refiner)
    assert (described["taken"], described["left_out"]) == ("trainer.var_wo_ddp", ["trainer.config"])
    torch.save({"model": refiner.state_dict() | {"head.bias": torch.full((refiner.head.out_features,), torch.nan)}},
               tmp_path / "var_d3.pth")
    with pytest.raises(CheckpointError, match="var_d3.pth has tensors .* 1 not finite .*: head.bias"):
        small.make(tmp_path, tmp_path / "again.safetensors")
    assert not (tmp_path / "again.safetensors").exists()
