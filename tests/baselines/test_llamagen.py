import argparse
import subprocess
import sys
from copy import deepcopy

import numpy as np
import pytest
import torch
from conftest import ROOT, ROUNDING, assert_close, golden, tiny_transformer
from pydantic import ValidationError
from torch.nn import functional as F

from varient.baselines import llamagen
from varient.baselines.llamagen.build import build_tokenizer, build_transformer
from varient.baselines.llamagen.checkpoints import (
    import_transformer,
    load_tokenizer,
    load_transformer,
    read_released,
)
from varient.baselines.llamagen.kv_cache import StaticCache
from varient.baselines.llamagen.sampling import generate, keep_likely
from varient.baselines.llamagen.settings import Settings, TokenizerShape, TransformerShape
from varient.baselines.llamagen.tokenizer import Tokenizer, to_uint8
from varient.baselines.llamagen.training import restart_unused_codes
from varient.baselines.llamagen.transformer import Transformer
from varient.config import load_config
from varient.models.checkpoint import CheckpointError, load_weights, save_weights
from varient.sampling import NotFiniteError
from varient.training.tokens import token_loss

MINI = {
    "size": "mini",
    "tokenizer": {
        "model": {"codebook_size": 16, "z_channels": 8, "ch": 8, "ch_mult": [1, 2], "num_res_blocks": 1,
                  "norm_groups": 4},
        "training": {"steps": 6, "batch_size": 16, "learning_rate": 2e-3, "restart_every": 2}},
    "transformer": {
        "model": {"depth": 2, "width": 16, "num_heads": 2, "multiple_of": 8},
        "training": {"epochs": 1, "batch_size": 128, "learning_rate": 3e-3}},
}
XXL = {
    "size": "xxl", "image_size": 384,
    "tokenizer": {"weights": "vq_ds16_c2i.pt"},
    "transformer": {"model": {"depth": 48, "width": 1536, "num_heads": 24}, "weights": "c2i_XXL_384.pt"},
}


@pytest.fixture
def paper():
    return load_config(ROOT / "workflow/config/imagenet256.yaml")


def settings_of(base, **changes):
    return Settings.model_validate(base | changes)


def golden_transformer(which="gpt"):
    case = golden("llamagen_gpt")
    made = case.config[which]
    shape = TransformerShape(depth=made["n_layer"], width=made["dim"], num_heads=made["n_head"],
                             num_kv_heads=made["n_kv_head"], multiple_of=made["multiple_of"])
    model = Transformer(shape, side=4, vocab_size=made["vocab_size"], num_classes=made["num_classes"])
    load_transformer(model, case.state_dict(f"sd/{which}/"), "golden")
    return model.eval()


def golden_tokenizer():
    case = golden("llamagen_vq")
    model = Tokenizer(TokenizerShape(codebook_size=64, z_channels=32, ch=32))
    load_tokenizer(model, case.state_dict("sd/"), "golden")
    return model.eval()


def random_system(config, precision="fp32", **changes):
    """Random weights whose logits differ: the initial head is zero."""
    torch.manual_seed(0)
    sampler = llamagen.resolve("llamagen-mini", config, settings_of(MINI, **changes)).load(None, precision)
    sampler.model.output.weight.normal_()
    return sampler


# -- the released code ------------------------------------------------------------------------------------------


@torch.no_grad()
def test_teacher_forced_logits_and_loss_match_the_released_code():
    case = golden("llamagen_gpt")
    logits = golden_transformer()(case["in/label_forward"], case["in/idx"])
    assert_close(logits, case["out/logits"])
    assert_close(token_loss(logits, case["in/idx"])[None], case["out/loss"], ROUNDING)


@torch.no_grad()
def test_shared_key_heads_match_the_released_code():
    case = golden("llamagen_gpt")
    assert_close(golden_transformer("gqa")(case["in/label_forward"], case["in/idx"]), case["out/gqa_logits"])


def test_rotations_match_the_released_code():
    assert_close(golden_transformer().rotations(), golden("llamagen_gpt")["out/freqs_cis"], 1e-6)


@pytest.mark.parametrize("tag", ["cfg1", "cfg2", "cfg3_int5"])
def test_guided_generation_matches_the_released_code(tag):
    case, model, seen = golden("llamagen_gpt"), golden_transformer(), {}
    made = next(run for run in case.config["gen"] if run["tag"] == tag)
    protocol = settings_of(MINI, cfg=made["cfg_scale"], cfg_interval=made["cfg_interval"], top_k=1)  # greedy
    idx = generate(model, case["in/label_generate"], protocol, torch.zeros(2, 16), on_logits=seen.__setitem__)
    assert torch.equal(idx, case[f"gen/{tag}/idx"])
    assert_close(torch.stack([seen[i] for i in range(16)], dim=1), case[f"gen/{tag}/logits_cfg"], 5e-5)  # 6e-6 measured


@torch.no_grad()
def test_images_and_tokens_match_the_released_code():
    case, model = golden("llamagen_vq"), golden_tokenizer()
    latent = model.encode_latent(case["in/img"])
    assert_close(latent, case["out/h"])
    assert torch.equal(model.encode(case["in/img"]), case["out/idx"])
    assert_close(model.quantize(latent)[0], case["out/quant"], ROUNDING)
    assert_close(model.quantize.lookup(case["in/code"]), case["out/codebook_entry"], ROUNDING)
    assert_close(model.decode(case["in/code"])[:, :, ::2, ::2], case["out/img_stride2"], 3e-5)  # 4e-6 measured


@torch.no_grad()
def test_far_from_zero_decoding_loses_no_digits():
    """A codebook's rows become a channels-last latent, where torch's norms lose digits on a CPU."""
    model = golden_tokenizer()
    model.decoder.conv_in.bias += 30  # 100 standard deviations of what enters the first norm
    tokens = golden("llamagen_vq")["in/code"]
    exact = deepcopy(model).double().decode(tokens).float()
    assert_close(model.decode(tokens), exact, 2e-5)  # 2.2e-6 measured; 2.2e-4 with channels-last norms


def test_parameters_are_those_of_the_released_files(paper):
    settings = settings_of(XXL)
    system = llamagen.resolve("llamagen-xxl", paper, settings)
    with torch.device("meta"):
        transformer = Transformer(settings.transformer.model, side=24, vocab_size=16384, num_classes=1000)
        tokenizer = Tokenizer(settings.tokenizer.model)
    counts = [sum(p.numel() for p in model.parameters()) for model in (transformer, tokenizer)]
    assert counts == [1_410_972_672, 71_883_403]
    assert system.parameters() == {"llamagen": counts[0]}
    assert len(transformer.state_dict()) == 340
    assert (system.steps, system.published_as, system.cache_policies) == ("576", "llamagen-xxl", ("static",))


def test_parameters_with_shared_key_heads(smoke):
    shape = MINI["transformer"]["model"] | {"num_heads": 4, "num_kv_heads": 2}
    settings = settings_of(MINI, transformer=MINI["transformer"] | {"model": shape})
    built = build_transformer(smoke, settings)
    system = llamagen.resolve("llamagen-mini", smoke, settings)
    assert system.parameters() == {"llamagen": sum(p.numel() for p in built.parameters())}


# -- released files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [
    lambda sd: sd,                                                             # as FSDP writes it
    lambda sd: {"model": sd},
    lambda sd: {"module": sd},
    lambda sd: {"state_dict": sd},
    lambda sd: {"model": sd, "optimizer": {}, "steps": 3, "args": argparse.Namespace(lr=1e-4, name="x")},
])
def test_released_files_are_read_flat_and_wrapped(tmp_path, wrap):
    tensors = golden("llamagen_gpt").state_dict("sd/gpt/")
    torch.save(wrap(tensors | {"freqs_cis": torch.zeros(17, 6, 2)}), tmp_path / "c2i.pt")
    model = golden_transformer()
    before = model.output.weight.clone()
    torch.nn.init.zeros_(model.output.weight)
    assert load_transformer(model, read_released(tmp_path / "c2i.pt"), "c2i.pt") == ["freqs_cis"]
    assert torch.equal(model.output.weight, before)


def test_what_an_import_leaves_out_is_in_its_description(tmp_path, smoke):
    shape = {"depth": 3, "width": 48, "num_heads": 4, "multiple_of": 32}
    tokenizer = MINI["tokenizer"] | {"model": MINI["tokenizer"]["model"] | {"codebook_size": 64}}
    settings = settings_of(MINI, tokenizer=tokenizer,
                           transformer={"model": shape, "weights": tmp_path / "c2i.pt"})
    tensors = golden("llamagen_gpt").state_dict("sd/gpt/")
    table = "cls_embedding.embedding_table.weight"
    torch.save(tensors | {table: torch.zeros(11, 48), "freqs_cis": torch.zeros(1)}, tmp_path / "c2i.pt")
    network = llamagen.networks(smoke, settings)[1]
    assert (network.name, network.needs, network.released) == ("llamagen", (), tmp_path / "c2i.pt")
    network.make(tmp_path, tmp_path / "llamagen.safetensors")
    description = load_weights(tmp_path / "llamagen.safetensors", build_transformer(smoke, settings))
    assert description["left_out"] == ["freqs_cis"]
    torch.save(tensors, tmp_path / "c2i.pt")
    with pytest.raises(CheckpointError, match=rf"{table} \(8, 48\), expected \(11, 48\)"):
        import_transformer(smoke, settings, tmp_path / "llamagen.safetensors")


def test_of_model_and_ema_an_import_takes_what_the_authors_sample_from_and_says_so(tmp_path, smoke, caplog):
    source = build_transformer(smoke, settings_of(MINI))
    torch.manual_seed(0)
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter)
    tensors = source.state_dict()
    settings = settings_of(MINI, transformer={"model": MINI["transformer"]["model"], "weights": tmp_path / "c2i.pt"},
                           tokenizer={"model": MINI["tokenizer"]["model"], "weights": tmp_path / "vq.pt"})
    torch.save({"ema": {name: tensor + 1 for name, tensor in tensors.items()}, "model": tensors, "steps": 3},
               tmp_path / "c2i.pt")
    import_transformer(smoke, settings, tmp_path / "llamagen.safetensors")
    model = build_transformer(smoke, settings)
    described = load_weights(tmp_path / "llamagen.safetensors", model)
    assert torch.equal(model.output.weight, tensors["output.weight"])
    assert (described["taken"], described["left_out"]) == ("model", ["ema", "steps"])
    assert "c2i.pt" in caplog.text and "'model' is used, left out: ema, steps (LlamaGen's authors" in caplog.text


@pytest.mark.parametrize("part", ["q", "k", "v"])
@pytest.mark.parametrize("change", [lambda tensor: tensor[:1], lambda tensor: tensor[0, 0, 0, 0],
                                    lambda tensor: tensor * torch.nan, lambda tensor: tensor.long()])
def test_a_part_of_an_attention_that_fits_not_is_told(part, change):
    tensors = golden("llamagen_vq").state_dict("sd/")
    name = f"encoder.mid.1.{part}.weight"
    tensors[name] = change(tensors[name])
    with pytest.raises(CheckpointError, match=r"vq.pt") as caught:
        load_tokenizer(golden_tokenizer(), tensors, "vq.pt")
    assert "\n" not in str(caught.value)


def test_the_codes_that_training_counted_are_left_out():
    tensors = golden("llamagen_vq").state_dict("sd/") | {"quantize.codebook_used": torch.zeros(65536)}
    assert len(tensors) == 344
    assert load_tokenizer(golden_tokenizer(), tensors, "vq.pt") == ["quantize.codebook_used"]


@pytest.mark.parametrize(("other", "looks"), [
    (lambda: tiny_transformer().state_dict(), "a VAR transformer"),
    (lambda: golden("dit_tiny").state_dict("sd/"), "a DiT"),
    (lambda: {"model": golden("dit_tiny").state_dict("sd/"), "ema": {}, "opt": {}}, "a DiT"),
    (lambda: golden("llamagen_vq").state_dict("sd/"), "a LlamaGen tokenizer"),
    (lambda: golden("vqvae_small_variants").state_dict("sd/share4/"), ""),
])
def test_a_wrong_transformer_file_is_named(tmp_path, other, looks):
    torch.save(other(), tmp_path / "other.pt")
    tensors = read_released(tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=rf"other.pt does not fit Transformer: .*looks like {looks}"):
        load_transformer(golden_transformer(), tensors, str(tmp_path / "other.pt"))


@pytest.mark.parametrize(("other", "looks"), [
    (lambda: golden("llamagen_gpt").state_dict("sd/gpt/"), "a LlamaGen transformer"),
    (lambda: golden("vqvae_k10_qsr4").state_dict("sd/"), "a VAR VQVAE"),
])
def test_a_wrong_tokenizer_file_is_named(other, looks):
    with pytest.raises(CheckpointError, match=rf"other.pt does not fit Tokenizer: .*looks like {looks}"):
        load_tokenizer(golden_tokenizer(), other(), "other.pt")


def test_one_missing_part_of_an_attention_is_told():
    tensors = golden("llamagen_vq").state_dict("sd/")
    del tensors["encoder.mid.1.k.weight"]
    with pytest.raises(CheckpointError, match=r"1 missing: encoder.mid.attn_1.qkv.weight; 2 unexpected"):
        load_tokenizer(golden_tokenizer(), tensors, "vq.pt")


@pytest.mark.parametrize(("content", "message"), [
    ({"trainer": {"var_wo_ddp": {}}}, "found a VAR training checkpoint"),
    ({"model": {"x": 1}}, "found an unknown layout"),
    ([1], "found list"),
])
def test_a_file_without_a_state_dict_is_named(tmp_path, content, message):
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match=f"odd.pt: expected a state dict.*{message}"):
        read_released(tmp_path / "odd.pt")


class _Payload:
    def __reduce__(self):
        return (print, ("code ran",))


def test_missing_truncated_and_dangerous_files_are_named(tmp_path, capsys):
    with pytest.raises(CheckpointError, match=r"none.pt: no such checkpoint"):
        read_released(tmp_path / "none.pt")
    torch.save({"model": {"x": torch.zeros(1000)}}, tmp_path / "cut.pt")
    data = (tmp_path / "cut.pt").read_bytes()
    for size in (0, 10, len(data) // 2):
        (tmp_path / "cut.pt").write_bytes(data[:size])
        with pytest.raises(CheckpointError, match=r"cut.pt: not a readable"):
            read_released(tmp_path / "cut.pt")
    torch.save({"model": {"x": _Payload()}}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match=r"evil.pt: not a readable"):
        read_released(tmp_path / "evil.pt")
    assert "code ran" not in capsys.readouterr().out


# -- sampling ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_cached_steps_equal_teacher_forcing():
    for which in ("gpt", "gqa"):
        model, seen = golden_transformer(which), {}
        label, uniform = torch.tensor([0, 3, 6]), torch.rand(3, 16, generator=torch.Generator().manual_seed(1))
        idx = generate(model, label, settings_of(MINI, cfg=1.0), uniform, on_logits=seen.__setitem__)
        assert_close(torch.stack([seen[i] for i in range(16)], dim=1), model(label, idx), 1e-5)


def test_an_image_does_not_depend_on_its_batch(smoke):
    sampler, labels = random_system(smoke), [i % 10 for i in range(14)]

    def tokens(size):
        return torch.cat([sampler.latents(labels[at:at + size], range(14)[at:at + size], 5)
                          for at in range(0, 14, size)])

    whole = tokens(14)
    assert whole.shape == (14, 16) and len(whole.unique(dim=0)) == 14
    for size in (1, 3, 7):
        assert torch.equal(tokens(size), whole)
    images = sampler.decode(whole)
    assert images.shape == (14, 3, 8, 8) and images.dtype == torch.uint8
    assert not torch.equal(sampler.latents(labels, range(14), 6), whole)


def test_tokens_follow_the_predicted_distribution(smoke):
    sampler, seen = random_system(smoke, temperature=0.5), {}
    sampler.model.output.weight.mul_(0.1)
    uniform = (torch.arange(4000) + 0.5).view(-1, 1).expand(-1, 16) / 4000
    idx = generate(sampler.model, torch.full((4000,), 3), sampler.settings, uniform, on_logits=seen.__setitem__)
    expected = (seen[0][0] / 0.5).softmax(-1)
    torch.testing.assert_close(idx[:, 0].bincount(minlength=16) / 4000, expected, atol=5e-4, rtol=0)


def test_the_nucleus_keeps_the_first_token_over_the_threshold():
    logits = torch.tensor([[0.1, 0.5, 0.25, 0.15]]).log()
    kept = [keep_likely(logits, 0, top_p).isfinite()[0].tolist() for top_p in (0.3, 0.6, 0.85, 1.0)]
    assert kept == [[False, True, False, False], [False, True, True, False], [False, True, True, True], [True] * 4]
    assert keep_likely(logits, 2, 1.0).isfinite()[0].tolist() == [False, True, True, False]


@pytest.mark.parametrize(("cfg", "rows"), [(1.75, 6), (1.0, 3)])
@pytest.mark.parametrize(("precision", "item"), [("fp32", 4), ("fp16", 2), ("bf16", 2)])
def test_the_cache_counts_its_bytes(smoke, monkeypatch, cfg, rows, precision, item):
    monkeypatch.setenv("VARIENT_DEVICE", "cpu")  # 16 bits on a CPU have to be asked for
    caches, sampler = [], random_system(smoke, precision, cfg=cfg)
    tokens = sampler.latents([1, 2, 3], range(3), 0, cache_policy="static", on_cache=caches.append)
    assert tokens.shape == (3, 16) and 0 <= int(tokens.min()) <= int(tokens.max()) < 16
    [cache] = caches
    expected = 2 * 2 * rows * 24 * 16 * item    # layers, keys and values, rows, 17 rounded up to 8s, width
    assert cache.held_bytes == cache.peak_bytes == expected and cache.scratch_bytes == 0


def test_the_cache_of_the_largest_row_of_the_paper():
    shape = Settings.model_validate(XXL).transformer.model
    cache = StaticCache(shape, 2 * 64, 577, torch.bfloat16, torch.device("meta"))
    assert cache.held_bytes == 21024 * 2 ** 20
    assert shape.hidden == 4096


@pytest.mark.parametrize("protocol", [{}, {"top_k": 2}, {"cfg": 1.0, "top_p": 0.5}])
def test_a_network_that_computes_nan_stops_the_sampling(smoke, protocol):
    sampler = random_system(smoke, **protocol)
    sampler.model.output.weight.data[3] = torch.nan
    with pytest.raises(NotFiniteError, match="not finite"):
        sampler.latents([1, 2], range(2), 0)


def test_wrong_labels_and_caches_are_refused(smoke):
    sampler = random_system(smoke)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.9"):
        sampler.latents([10], [0], 0)
    with pytest.raises(ValueError, match="cannot be lean"):
        sampler.latents([1], [0], 0, cache_policy="lean")


def test_images_are_resized_before_they_are_rounded():
    image = torch.tensor([-1.2, -1.0, 0.0, 0.0039, 1.0, 1.2]).view(1, 1, 1, 6).expand(1, 3, 6, 6)
    assert to_uint8(image, 6)[0, 0, 0].tolist() == [0, 0, 128, 128, 255, 255]
    torch.manual_seed(0)
    noise = torch.rand(1, 3, 12, 12) * 2.4 - 1.2
    expected = F.interpolate(noise, size=(8, 8), mode="bicubic", antialias=False)
    assert torch.equal(to_uint8(noise, 8), torch.clamp(127.5 * expected + 128, 0, 255).to(torch.uint8))
    smooth = F.interpolate(noise, size=(8, 8), mode="bicubic", antialias=True)
    assert not torch.equal(to_uint8(noise, 8), torch.clamp(127.5 * smooth + 128, 0, 255).to(torch.uint8))


def test_a_larger_image_is_generated_and_resized(smoke):
    part = {"weights": "x.pt"}
    sampler = random_system(
        smoke, image_size=12, tokenizer={"model": MINI["tokenizer"]["model"]} | part,
        transformer={"model": MINI["transformer"]["model"]} | part)
    tokens = sampler.latents([1, 2], range(2), 0)
    assert tokens.shape == (2, 36) and sampler.decode(tokens).shape == (2, 3, 8, 8)


# -- the family -------------------------------------------------------------------------------------------------


def test_ids(smoke):
    settings = settings_of(MINI)
    system = llamagen.resolve("llamagen-mini", smoke, settings)
    assert (system.name, system.steps, system.published_as) == ("llamagen-mini", "16", "llamagen-xxl")
    assert system.weights == tuple(network.name for network in llamagen.networks(smoke, settings))
    assert system.protocol() == {"cfg": 1.75, "cfg_interval": -1, "top_k": 0, "top_p": 1.0, "temperature": 1.0,
                                 "generated_size": 8}
    assert llamagen.resolve("var-d30", smoke, settings) is None
    with pytest.raises(ValueError, match="the LlamaGen of smoke is llamagen-mini"):
        llamagen.resolve("llamagen-xxl", smoke, settings)


@pytest.mark.parametrize(("changes", "message"), [
    ({"transformer": {"model": {"depth": 1, "width": 20, "num_heads": 2}, "weights": "x"}}, "4 x num_heads = 8"),
    ({"transformer": {"model": {"depth": 1, "width": 24, "num_heads": 3, "num_kv_heads": 2}, "weights": "x"}},
     "num_kv_heads = 2"),
    ({"tokenizer": {}}, "tokenizer needs exactly one"),
    ({"transformer": {**MINI["transformer"], "weights": "x"}}, "transformer needs exactly one"),
    ({"tokenizer": {"model": {"ch": 8}, "weights": "x"}}, "norm_groups"),
    ({"size": "XXL"}, "size"),
])
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        settings_of(MINI, **changes)


@pytest.mark.parametrize(("size", "message"), [(16, "must be data.image_size = 8"), (9, "do not divide")])
def test_settings_that_do_not_fit_the_images_are_refused(smoke, size, message):
    with pytest.raises(ValueError, match=message):
        llamagen.networks(smoke, settings_of(MINI, image_size=size))


def test_the_family_is_quick_to_import():
    code = "import sys, baselines.llamagen; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


# -- training ---------------------------------------------------------------------------------------------------


def test_restarted_codes_are_used_more():
    torch.manual_seed(0)
    tokenizer, images = build_tokenizer(settings_of(MINI)), torch.rand(64, 3, 8, 8) * 2 - 1
    used = [tokenizer.encode(images).unique().numel()]
    for _ in range(3):
        restart_unused_codes(tokenizer, images)
        used.append(tokenizer.encode(images).unique().numel())
    assert used[-1] > used[0] and used[-1] >= 14


@pytest.mark.parametrize(("which", "kind"), [(0, Tokenizer), (1, Transformer)])
def test_a_stopped_training_goes_on_to_the_same_bits(tmp_path, smoke, monkeypatch, which, kind):
    monkeypatch.setenv("VARIENT_SAVE_EVERY", "2")
    networks, forward, taken, stop_at = llamagen.networks(smoke, settings_of(MINI)), kind.forward, [], None

    def counted(*arguments):
        if len(taken) == stop_at:
            raise KeyboardInterrupt
        taken.append(1)
        return forward(*arguments)

    def train(folder):
        taken.clear()
        networks[which].make(folder, folder / "weights.safetensors")
        return len(taken), (folder / "weights.safetensors").read_bytes()

    if kind is Transformer:
        for folder in ("unbroken", "broken"):
            networks[0].make(tmp_path, tmp_path / folder / "llamagen-tokenizer.safetensors")
    monkeypatch.setattr(kind, "forward", counted)
    steps, unbroken = train(tmp_path / "unbroken")
    stop_at = 5
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken")
    stop_at = None
    assert train(tmp_path / "broken") == (steps - 4, unbroken)  # saved after 2 and 4 steps


def test_trained_networks_are_loaded_and_draw(tmp_path, smoke):
    settings = settings_of(MINI)
    for network in llamagen.networks(smoke, settings):
        network.make(tmp_path, tmp_path / f"{network.name}.safetensors")
    sampler = llamagen.resolve("llamagen-mini", smoke, settings).load(tmp_path, "fp32")
    images = sampler.decode(sampler.latents([0, 1], [0, 1], 0)).numpy()
    assert images.shape == (2, 3, 8, 8) and images.dtype == np.uint8
    save_weights(tmp_path / "llamagen.safetensors", torch.nn.Linear(1, 1), {})
    with pytest.raises(CheckpointError, match="does not fit Transformer"):
        llamagen.resolve("llamagen-mini", smoke, settings).load(tmp_path, "fp32")
