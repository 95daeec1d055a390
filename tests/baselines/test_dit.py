import argparse
import json
from copy import deepcopy

import pytest
import torch
from conftest import assert_close, golden
from diffusers import AutoencoderKL
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import nn

from varient.baselines import dit
from varient.baselines.dit import training
from varient.baselines.dit.diffusion import Diffusion
from varient.baselines.dit.network import DiT, build_network, initialize
from varient.baselines.dit.released import load_released, read_released
from varient.baselines.dit.sampling import Guidance, ImageNoise, denoise, guided_prediction, load_vae
from varient.baselines.dit.settings import Shape
from varient.config import DataConfig
from varient.cost.parameters import dit_parameters
from varient.models.checkpoint import CheckpointError, load_weights, read_description, save_weights
from varient.sampling import NotFiniteError
from varient.training.loop import fit

NO_CLASS = 7  # of the golden network
PASS = 8e-6   # one pass: 1e-6 measured; LayerNorm eps 1e-5 costs 1.1e-5
SHAPE = {"depth": 2, "hidden_size": 16, "num_heads": 2, "patch_size": 2}
TINY = dit.Settings.model_validate(
    {"size": "tiny", "model": SHAPE, "space": "pixels", "steps": 4,
     "training": {"epochs": 1, "batch_size": 128, "learning_rate": 3e-3, "ema_decay": 0.9}})


@pytest.fixture(scope="module")
def case():
    return golden("dit_tiny")


@pytest.fixture
def released(case):
    """The golden weights in the authors' layout."""
    return case.state_dict("sd/")


@pytest.fixture(scope="module")
def network(case):
    model = _golden_network(case)
    load_released(model, case.state_dict("sd/"), "golden")
    return model


def _golden_network(case):
    settings = case.config["dit"]
    shape = Shape(**{name: settings[name] for name in Shape.model_fields})
    return DiT(shape, side=settings["input_size"], channels=settings["in_channels"],
               num_classes=settings["num_classes"]).eval().requires_grad_(False)


def _assert_relative(ours, theirs):
    """An untrained network makes samples of hundreds, so the largest value is the measure: 4e-7 of it measured."""
    assert_close(ours, theirs, 1e-5 * theirs.abs().max().item())


def test_the_network_matches_the_released_code(case, network):
    assert_close(network(case["in/x"], case["in/t"], case["in/y"]), case["out/forward"], PASS)


def test_the_epsilon_of_every_norm_is_the_authors(network):
    """In the recorded case another one costs hardly more than rounding."""
    norms = [module for module in network.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 2 * len(network.network.transformer_blocks) + 1
    assert {norm.eps for norm in norms} == {1e-6}


def test_guidance_matches_the_released_code(case, network):
    guided = guided_prediction(network, case["in/cfg_x"], int(case["in/cfg_t"]), case["in/cfg_y"], NO_CLASS,
                               Guidance(case.config["cfg_scale"], channels=3))
    assert_close(guided, case["out/forward_with_cfg"][:2], PASS)  # the authors drop the other half of the rows


def test_guidance_of_one_is_the_conditional_pass(case, network):
    label_B = case["in/cfg_y"]
    plain = guided_prediction(network, case["in/cfg_x"], 3, label_B, NO_CLASS, Guidance(scale=1))
    assert torch.equal(plain, network(case["in/cfg_x"], torch.full_like(label_B, 3), label_B))


def test_respaced_steps_match_the_released_code(case):
    process = Diffusion(5)
    assert torch.equal(process.time_T, case["out/respaced_timestep_map"])
    assert torch.equal(process.time_T.flip(0), case["out/ddpm_t"])
    assert_close(process.beta_T.float(), case["out/respaced_betas"], 1e-7)


def test_sampling_matches_the_released_code_step_by_step(case, network):
    noise, seen = iter(case["in/ddpm_noise"][:, :2]), []
    denoise(lambda x_BCHW, time: guided_prediction(network, x_BCHW, time, case["in/cfg_y"], NO_CLASS, Guidance()),
            Diffusion(5), case["in/ddpm_z"], lambda: next(noise),
            on_step=lambda step, x_BCHW, reverse: seen.append((x_BCHW, reverse.x0_BCHW)))
    assert len(seen) == 5
    for k, (x_BCHW, x0_BCHW) in enumerate(seen):
        _assert_relative(x_BCHW, case["out/ddpm_sample"][k, :2])
        _assert_relative(x0_BCHW, case["out/ddpm_pred_xstart"][k, :2])


def test_the_losses_match_the_released_code(case, network):
    process, x0_BCHW, step_B, noise_BCHW = Diffusion(), case["in/loss_x0"], case["in/loss_t"], case["in/loss_noise"]
    assert step_B.min() == 0  # where the bound is a likelihood of bytes
    xt_BCHW = process.noised(x0_BCHW, step_B, noise_BCHW)
    assert_close(xt_BCHW, case["out/q_sample"], 3e-6)
    squared_B, bound_B = process.losses(network(xt_BCHW, step_B, case["in/loss_y"]), x0_BCHW, step_B, noise_BCHW)
    assert_close(squared_B, case["out/loss_mse"], 3e-6)
    assert_close(bound_B, case["out/loss_vb"], 5e-6)
    assert_close(squared_B + bound_B, case["out/loss"], 5e-6)


def test_the_bound_teaches_the_variance_alone(case):
    process, x0_BCHW, step_B = Diffusion(), case["in/loss_x0"], case["in/loss_t"]
    prediction = case["in/loss_noise"].repeat(1, 2, 1, 1).mul(0.5).requires_grad_()
    process.losses(prediction, x0_BCHW, step_B, case["in/loss_noise"])[1].sum().backward()
    noise_part, variance_part = prediction.grad.chunk(2, dim=1)
    assert not noise_part.any() and variance_part.any()


@pytest.mark.parametrize("steps", [2, 50, 250, 1000])
def test_steps_reach_from_the_first_time_to_the_last(steps):
    times = Diffusion(steps).time_T
    assert len(times.unique()) == steps and times[0] == 0 and times[-1] == 999


def test_dit_xl2_has_the_authors_parameters():
    with torch.device("meta"):
        model = DiT(Shape(depth=28, hidden_size=1152, num_heads=16), side=32, channels=4, num_classes=1000)
    assert sum(p.numel() for p in model.parameters()) + model.position_1LD.numel() == 675_129_632 == dit_parameters()
    with pytest.raises(CheckpointError, match="292 missing"):  # the keys of the released file
        load_released(model, {}, "empty")


def test_a_system_counts_its_parameters_without_building_it(smoke):
    model = build_network(smoke, TINY)
    held = sum(p.numel() for p in model.parameters()) + model.position_1LD.numel()
    assert dit.resolve("dit-tiny", smoke, TINY).parameters() == {"dit": held}


def test_labels_are_dropped_by_nobody_in_the_network(case, network):
    inputs = case["in/x"], case["in/t"], case["in/y"]
    network.train()
    in_training = network(*inputs)
    network.eval()
    assert torch.equal(in_training, network(*inputs))


def test_a_fresh_block_is_the_identity_and_the_output_zero(smoke):
    torch.manual_seed(0)
    model = build_network(smoke, TINY)
    initialize(model)
    through = []
    for block in model.network.transformer_blocks:
        block.register_forward_hook(lambda _, inputs, output: through.append(torch.equal(inputs[0], output)))
    assert not model(torch.randn(2, 3, 8, 8), torch.tensor([0, 999]), torch.tensor([0, 10])).any()
    assert through == [True, True]


# Released files.

@pytest.mark.parametrize(("change", "message"), [
    (lambda sd: sd.pop("final_layer.linear.bias"), "1 missing: final_layer.linear.bias"),
    (lambda sd: sd.update(extra=torch.zeros(1)), "1 unexpected: extra"),
    (lambda sd: sd.update({"blocks.1.attn.qkv.bias": torch.zeros(3)}), r"qkv.bias \(3,\), expected \(144,\)"),
    (lambda sd: sd.update(pos_embed=torch.zeros(1, 64, 48)), r"pos_embed \(1, 64, 48\), expected \(1, 16, 48\)"),
    (lambda sd: sd.update(pos_embed=sd["pos_embed"].roll(1, 1)), "pos_embed is not the sine-cosine table"),
])
def test_a_wrong_file_says_what_is_wrong(case, released, change, message):
    change(released)
    with pytest.raises(CheckpointError, match=message):
        load_released(_golden_network(case), released, "dit.pt")


def test_a_swapped_file_is_recognised(case):
    with pytest.raises(CheckpointError, match="looks like a VAR transformer"):
        load_released(_golden_network(case), golden("var_tf_l2").state_dict("sd/"), "var.pth")


def test_a_training_checkpoint_gives_its_average_and_says_so(tmp_path, released, caplog):
    torch.save({"model": {name: tensor + 1 for name, tensor in released.items()}, "ema": released,
                "opt": {"state": {}, "param_groups": []}, "args": argparse.Namespace(model="DiT-XL/2", epochs=1400)},
               tmp_path / "0400000.pt")
    tensors = read_released(tmp_path / "0400000.pt")
    assert all(torch.equal(tensors[name], released[name]) for name in released)
    assert "its 'ema' is used, left out: args, model, opt" in caplog.text


class Ran(Exception):
    pass


class Code:
    def __reduce__(self):
        return _ran, ()


def _ran():
    raise Ran


@pytest.mark.parametrize(("content", "message"), [
    ([1, 2], "found list"),
    ({"model": {}}, "an unknown layout without tensors"),
    ({"weight": Code()}, "holds more than tensors"),
])
def test_a_file_with_other_content_is_named_and_not_run(tmp_path, content, message):
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(CheckpointError, match=message):
        read_released(tmp_path / "file.pt")


@pytest.mark.parametrize(("name", "change", "kind"), [
    ("blocks.1.attn.qkv.weight", lambda tensor: tensor.index_fill(0, torch.tensor(0), torch.nan), "not finite"),
    ("final_layer.linear.bias", lambda tensor: tensor + torch.inf, "not finite"),
    ("pos_embed", lambda tensor: tensor * torch.nan, "not finite"),
    ("x_embedder.proj.weight", torch.Tensor.bool, "boolean"),
    ("pos_embed", torch.Tensor.int, "integer"),
])
def test_numbers_that_no_network_can_work_with_are_named_as_in_the_file(case, released, name, change, kind):
    released[name] = change(released[name])
    with pytest.raises(CheckpointError, match=f"dit.pt .*{kind}") as caught:
        load_released(_golden_network(case), released, "dit.pt")
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_missing_and_truncated_files_are_named(tmp_path, released):
    path = tmp_path / "dit.pt"
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        read_released(path)
    torch.save(released, path)
    whole = path.read_bytes()
    for kept in (0.9, 0.1, 0):
        path.write_bytes(whole[:int(len(whole) * kept)])
        with pytest.raises(CheckpointError, match="not a readable torch checkpoint"):
            read_released(path)


def test_an_imported_network_is_what_the_system_loads(tmp_path, smoke, case, released, network):
    config = _with_images_of(smoke, 64, classes=7)
    settings = dit.Settings(size="tiny", model=Shape(depth=2, hidden_size=48, num_heads=3), space="latent",
                            vae=_save_vae(tmp_path / "vae"), weights=tmp_path / "dit.pt")
    torch.save(released, settings.weights)
    (made,) = dit.networks(config, settings)
    assert (made.name, made.released, made.needs) == ("dit", settings.weights, ())
    made.make(tmp_path, tmp_path / "dit.safetensors")
    described = read_description(tmp_path / "dit.safetensors")
    assert (described["taken"], described["left_out"], described["released"]) == ("", [], "unknown")
    sampler = dit.resolve("dit-tiny", config, settings).load(tmp_path, "fp32")
    assert_close(sampler.network(case["in/x"], case["in/t"], case["in/y"]), case["out/forward"], PASS)


# Sampling.

@pytest.fixture
def run_dir(tmp_path, smoke):
    """A run folder with a small network whose output is not zero, unlike that of a fresh one."""
    torch.manual_seed(3)
    model = build_network(smoke, TINY)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    save_weights(tmp_path / "dit.safetensors", model, {})
    return tmp_path


def test_an_image_depends_on_seed_index_and_label_alone(smoke, run_dir):
    sampler = dit.resolve("dit-tiny", smoke, TINY).load(run_dir, "fp32")
    labels, indices = [i % 10 for i in range(7)], [100 + i for i in range(7)]
    together = sampler.latents(labels, indices, 5)
    for size in (1, 3):
        parts = [sampler.latents(labels[at:at + size], indices[at:at + size], 5) for at in range(0, 7, size)]
        _assert_relative(torch.cat(parts), together)
    assert together.shape == (7, 3, 8, 8)
    other_seed, other_index = sampler.latents(labels, indices, 6), sampler.latents(labels, range(7), 5)
    assert all((together - other).abs().amax(dim=(1, 2, 3)).min() > 0.1 for other in (other_seed, other_index))
    assert (together - sampler.latents([9] * 7, indices, 5)).abs().amax(dim=(1, 2, 3)).min() > 1e-3


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_network_that_computes_nan_stops_the_sampling(smoke, run_dir, value):
    sampler = dit.resolve("dit-tiny", smoke, TINY).load(run_dir, "fp32")
    sampler.network.network.proj_out_2.bias[0] = value
    with pytest.raises(NotFiniteError, match="DiT computes values that are not finite"):
        sampler.latents([1, 2], [0, 1], 0)


def test_noise_is_drawn_per_image():
    together, alone = ImageNoise(1, [4, 9, 2], (3, 8, 8), "cpu"), ImageNoise(1, [9], (3, 8, 8), "cpu")
    drawn = [together() for _ in range(3)]
    assert all(torch.equal(batch[1:2], alone()) for batch in drawn)
    values = torch.stack(drawn)
    assert values.unique().numel() > 0.99 * values.numel() and abs(values.mean()) < 0.1 and abs(values.std() - 1) < 0.1


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_weights_draw_in_float32(smoke, monkeypatch, run_dir, precision):
    monkeypatch.setenv("VARIENT_DEVICE", "cpu")  # 16 bits on a CPU have to be asked for
    sampler = dit.resolve("dit-tiny", smoke, TINY).load(run_dir, precision)
    x_BCHW = sampler.latents([1, 2], [0, 1], 0)
    exact = dit.resolve("dit-tiny", smoke, TINY).load(run_dir, "fp32").latents([1, 2], [0, 1], 0)
    assert x_BCHW.dtype == torch.float32 and 0 < (x_BCHW - exact).abs().max() < 0.05 * exact.abs().max()


def test_labels_and_cache_policies_are_checked(smoke):
    sampler = dit.resolve("dit-tiny", smoke, TINY).load(None, "fp32")
    for label in (-1, 10):
        with pytest.raises(ValueError, match="labels must lie in 0..9"):
            sampler.latents([label], [0], 0)
    with pytest.raises(ValueError, match="keeps nothing between steps"):
        sampler.latents([1], [0], 0, cache_policy="lean")


def test_bytes_come_back_as_they_went_in(smoke):
    sampler = dit.resolve("dit-tiny", smoke, TINY).load(None, "fp32")
    levels = torch.arange(256, dtype=torch.uint8)
    x_BCHW = training.from_uint8(levels).reshape(1, 1, 16, 16)
    assert torch.equal(sampler.decode(x_BCHW).flatten(), levels)
    assert sampler.decode(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]


# Stable Diffusion's latents.

def _with_images_of(config, image_size, classes=5):
    return config.model_copy(update={"data": DataConfig(source="imagenet", image_size=image_size, num_classes=classes)})


def _save_vae(folder, **settings):
    torch.manual_seed(0)
    shape = {"block_out_channels": (8,) * 4, "down_block_types": ("DownEncoderBlock2D",) * 4,
             "up_block_types": ("UpDecoderBlock2D",) * 4, "norm_num_groups": 4, "latent_channels": 4}
    AutoencoderKL(**(shape | settings)).save_pretrained(folder)
    return folder


def _latent_settings(vae):
    return dit.Settings(size="tiny", model=Shape(**SHAPE), space="latent", vae=vae, weights="unused.pt", steps=3)


def test_latents_are_decoded_by_the_local_vae(tmp_path, smoke):
    config, settings = _with_images_of(smoke, 32), _latent_settings(_save_vae(tmp_path / "vae"))
    torch.manual_seed(0)
    model = build_network(config, settings)
    initialize(model)
    save_weights(tmp_path / "dit.safetensors", model, {})
    sampler = dit.resolve("dit-tiny-2", config, settings).load(tmp_path, "fp32")
    x_BCHW = sampler.latents([0, 4, 1], [0, 1, 2], 0)
    images = sampler.decode(x_BCHW)
    assert x_BCHW.shape == (3, 4, 4, 4) and len(sampler.networks) == 2
    assert images.shape == (3, 3, 32, 32) and images.dtype == torch.uint8
    pixels = load_vae(settings.vae).decode(x_BCHW[1:2] / 0.18215).sample
    assert_close(images[1:2].float(), (127.5 * pixels + 128).clamp(0, 255).floor(), 1)


@torch.no_grad()
def test_far_from_zero_the_vae_loses_no_digits(tmp_path):
    """diffusers' attention leaves channels-last behind, where torch's norms lose digits on a CPU."""
    vae = load_vae(_save_vae(tmp_path)).eval()
    vae.decoder.mid_block.attentions[0].to_out[0].bias += 30
    torch.manual_seed(0)
    latent = torch.randn(2, 4, 16, 16)
    exact = deepcopy(vae).double().decode(latent.double()).sample.float()
    for layout in (torch.contiguous_format, torch.channels_last):
        ours = vae.decode(latent.contiguous(memory_format=layout)).sample
        assert_close(ours, exact, 2e-5)  # 3.5e-6 measured; 1.5e-4 with the norms as diffusers feeds them


def test_a_wrong_vae_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config.json; .* local copy"):
        load_vae(tmp_path / "none")
    with pytest.raises(CheckpointError, match="a VAE of 8 channels at 1/8 of the side, expected 4 at 1/8"):
        load_vae(_save_vae(tmp_path / "wide", latent_channels=8))
    file = _save_vae(tmp_path / "cut") / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="not a readable VAE"):
        load_vae(tmp_path / "cut")
    (_save_vae(tmp_path / "config") / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"not a readable VAE|does not fit"):
        load_vae(tmp_path / "config")


@pytest.mark.parametrize("name", ["config.json", "diffusion_pytorch_model.safetensors"])
@pytest.mark.parametrize(("content", "kind"), [
    (b"<!DOCTYPE html><p>404", "HTML page"), (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    (b"", "empty file"), (b"Not Found", "text")])
def test_a_page_in_place_of_a_file_of_the_vae_is_named(tmp_path, name, content, kind):
    file = _save_vae(tmp_path / "vae") / name
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name}: not a readable VAE.*{kind}"):
        load_vae(tmp_path / "vae")


@pytest.mark.parametrize("config", ["[]", "[1]", '{"_class_name": 3}', '{"block_out_channels": "a"}',
                                    '{"block_out_channels": [8], "down_block_types": [null]}'])
def test_a_config_of_something_else_is_named(tmp_path, config):
    (_save_vae(tmp_path / "vae") / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match="vae") as caught:
        load_vae(tmp_path / "vae")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"layers_per_block": 10 ** 9}, {"block_out_channels": [10 ** 6] * 4},
                                    {"block_out_channels": [8] * 10 ** 4}, {"latent_channels": 10 ** 9}])
def test_a_config_that_asks_for_any_amount_of_memory_is_refused_at_once(tmp_path, change):
    path = _save_vae(tmp_path / "vae") / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    refused = "vae.* (does not fit: config.json describes|has more than|overflowed)"
    with pytest.raises(CheckpointError, match=refused) as caught:
        load_vae(tmp_path / "vae")
    assert "\n" not in str(caught.value)


def test_a_vae_with_nan_is_refused(tmp_path):
    file = _save_vae(tmp_path / "vae") / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"decoder.conv_in.bias": tensors["decoder.conv_in.bias"] * torch.nan}, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match="1 not finite .*decoder.conv_in.bias"):
        load_vae(tmp_path / "vae")


# Training.

def test_training_writes_the_averaged_weights(tmp_path, smoke, monkeypatch):
    kept = {}
    monkeypatch.setattr(training, "fit", lambda model, *args, **settings: kept.update(model=model) or fit(
        model, *args, **settings))
    (made,) = dit.networks(smoke, TINY)
    made.make(tmp_path, tmp_path / "dit.safetensors")
    model = build_network(smoke, TINY)
    assert load_weights(tmp_path / "dit.safetensors", model)["kind"] == "dit"
    trained = kept["model"].network.state_dict()
    far = {name: (tensor - trained[name]).abs().max().item() for name, tensor in model.state_dict().items()}
    assert 0 < max(far.values()) < 0.1
    sampler = dit.resolve("dit-tiny", smoke, TINY).load(tmp_path, "fp32")
    assert sampler.decode(sampler.latents([3], [0], 0)).shape == (1, 3, 8, 8)


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path, smoke, monkeypatch):
    monkeypatch.setenv("VARIENT_SAVE_EVERY", "3")
    for name in ("unbroken", "killed"):
        (tmp_path / name).mkdir()
    training.train(smoke, TINY, tmp_path / "unbroken/dit.safetensors")
    with monkeypatch.context() as patch:
        def stop(step, **settings):
            if step == 8:
                raise KeyboardInterrupt
            return batch_indices(step, **settings)
        batch_indices = training.batch_indices
        patch.setattr(training, "batch_indices", stop)
        with pytest.raises(KeyboardInterrupt):
            training.train(smoke, TINY, tmp_path / "killed/dit.safetensors")
    assert list((tmp_path / "killed/training-dit").glob("states-*/state-*.pt"))
    seen = []
    monkeypatch.setattr(training, "drop_labels", lambda *args, drop=training.drop_labels: seen.append(1) or drop(*args))
    training.train(smoke, TINY, tmp_path / "killed/dit.safetensors")
    assert len(seen) == 11 - 6  # of 11 steps 6 were kept
    ours, theirs = ((tmp_path / name / "dit.safetensors").read_bytes() for name in ("killed", "unbroken"))
    assert ours == theirs


# Names and settings.

@pytest.mark.parametrize(("name", "steps", "published_as"), [
    ("dit-tiny", "4", "dit-xl2"), ("dit-tiny-250", "250", "dit-xl2-250"), ("dit-tiny-50", "50", "dit-xl2")])
def test_names_of_systems(smoke, name, steps, published_as):
    system = dit.resolve(name, smoke, TINY)
    assert (system.name, system.steps, system.published_as) == (name, steps, published_as)
    assert system.weights == ("dit",) and system.cache_policies == ("none",)
    assert system.protocol()["steps"] == int(steps)


@pytest.mark.parametrize("name", ["var-d30", "dit", "dit-", "ditto-tiny", "dit-tiny-0", "dit-tiny-050", "dit-tiny-x"])
def test_other_names_are_left_to_others(smoke, name):
    assert dit.resolve(name, smoke, TINY) is None


@pytest.mark.parametrize(("name", "message"), [
    ("dit-xl2", "the DiT of smoke is dit-tiny"), ("dit-tiny-1", "2..1000 steps"), ("dit-tiny-1001", "2..1000 steps")])
def test_systems_that_the_experiment_has_not(smoke, name, message):
    with pytest.raises(ValueError, match=message):
        dit.resolve(name, smoke, TINY)


@pytest.mark.parametrize(("change", "message"), [
    ({"training": None}, "exactly one of"),
    ({"weights": "dit.pt"}, "exactly one of"),
    ({"space": "latent"}, "'vae'"),
    ({"vae": "vae"}, "'vae'"),
    ({"space": "latent", "vae": "vae"}, "training is for space = pixels"),
    ({"model": SHAPE | {"num_heads": 3}}, "not divisible by num_heads"),
    ({"model": SHAPE | {"hidden_size": 18}}, "not divisible by 4"),
    ({"cfg": 0.5}, "greater than or equal to 1"),
    ({"size": "XL/2"}, "match pattern"),
])
def test_settings_that_contradict_each_other(change, message):
    with pytest.raises(ValidationError, match=message):
        dit.Settings.model_validate(TINY.model_dump() | change)


def test_images_must_divide_into_patches(smoke):
    with pytest.raises(ValueError, match="do not divide into patches of 16"):
        dit.resolve("dit-tiny", _with_images_of(smoke, 40), _latent_settings("vae"))
