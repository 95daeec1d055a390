"""The switches, each beside the plain computation.  What they save on a GPU is not known here."""

import shutil

import pytest
import torch
from conftest import TINY_PYRAMID, golden, tiny_tokenizer, tiny_transformer
from torch._dynamo.utils import counters

from varient.config import ConfigError
from varient.models.acceleration import Acceleration
from varient.plan import DepthPlan
from varient.profiling.profiler import Configuration, profile_here
from varient.sampling import Guidance, SampledReadout, generate, image_uniforms
from varient.settings import Settings
from varient.systems.pipeline import decode_f_hat
from varient.systems.registry import resolve_system

SWITCHES = ("graphs", "compile", "decoder_channels_last", "decoder_half")


def test_all_are_off_by_default():
    assert Acceleration.wanted() == Acceleration() and Acceleration().names == ()
    assert Acceleration().replays(torch.device("cpu")) is None


@pytest.mark.parametrize("name", SWITCHES)
def test_each_is_a_variable_of_its_name(monkeypatch, name):
    monkeypatch.setenv(Settings.model_fields[name].alias, "1")
    assert Acceleration.wanted().names == (name,)
    monkeypatch.setenv(Settings.model_fields[name].alias, "yes")
    with pytest.raises(ConfigError, match=f"VARIENT_{name.upper()}: "):
        Acceleration.wanted()


def test_networks_are_untouched_without_switches():
    model, tokenizer = tiny_transformer(), tiny_tokenizer()
    before = dict(vars(model.blocks[0])), tokenizer.decoder.conv_in.weight.stride()
    Acceleration().apply((model,), tokenizer)
    assert before == (vars(model.blocks[0]), tokenizer.decoder.conv_in.weight.stride())
    assert {parameter.dtype for parameter in tokenizer.parameters()} == {torch.float32}


# -- the image decoder -------------------------------------------------------------------------------------------------

def _decoded(acceleration, dtype, *, tiny=False):
    """uint8 images, as int16 so that they can be subtracted: of the recorded decoder, or in float16 of a tiny one.

    A CPU takes a minute for the recorded one in float16.
    """
    if tiny:
        tokenizer = tiny_tokenizer()
        idx_BL = torch.randint(32, (64, TINY_PYRAMID.length), generator=torch.Generator().manual_seed(0))
    else:
        case = golden("vqvae_k10_qsr4")
        tokenizer, idx_BL = case.tokenizer("sd/").requires_grad_(False), case["out/idx"]
    acceleration.apply((tiny_transformer().to(dtype),), tokenizer)
    return tokenizer, decode_f_hat(tokenizer, tokenizer.quantize.f_hats(idx_BL)[-1], 16, dtype).to(torch.int16)


def test_channels_last_moves_a_pixel_by_one_level_at_most():
    """torch's GroupNorm is less accurate in this layout on a CPU."""
    _, expected = _decoded(Acceleration(), torch.float32)
    tokenizer, found = _decoded(Acceleration(decoder_channels_last=True), torch.float32)
    assert tokenizer.decoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert tokenizer.encoder.conv_in.weight.is_contiguous()
    assert (found - expected).abs().max() <= 1 and (found != expected).float().mean() < 1e-3


@pytest.mark.parametrize(("dtype", "tiny"), [(torch.bfloat16, False), (torch.bfloat16, True), (torch.float16, True)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_decoder_in_half_precision_is_as_near_as_autocast(dtype, tiny, channels_last):
    """Both are compared with float32; the switch may double autocast's error and no more."""
    _, exact = _decoded(Acceleration(), torch.float32, tiny=tiny)
    _, autocast = _decoded(Acceleration(), dtype, tiny=tiny)
    switches = Acceleration(decoder_half=True, decoder_channels_last=channels_last)
    tokenizer, half = _decoded(switches, dtype, tiny=tiny)
    assert {parameter.dtype for parameter in tokenizer.decoder.parameters()} == {dtype}
    assert {parameter.dtype for parameter in (*tokenizer.encoder.parameters(), *tokenizer.quantize.parameters())
            } == {torch.float32}
    of_autocast, of_half = ((found - exact).abs().float().mean() for found in (autocast, half))
    assert 0 < of_half <= 2 * of_autocast


@pytest.mark.parametrize("system", ["var-d6", "code-n6"])
def test_a_half_decoder_beside_float32_is_refused(monkeypatch, smoke, system):
    monkeypatch.setenv("VARIENT_DECODER_HALF", "1")
    with pytest.raises(ValueError, match="VARIENT_DECODER_HALF = 1") as caught:
        resolve_system(system, smoke).load(None, "fp32")
    assert "\n" not in str(caught.value)


# -- what records and samples say --------------------------------------------------------------------------------------

def test_a_profile_names_the_switches_that_its_system_has(monkeypatch, smoke, tmp_path):
    for name in ("GRAPHS", "DECODER_CHANNELS_LAST"):
        monkeypatch.setenv(f"VARIENT_{name}", "1")
    switches = ("graphs", "decoder_channels_last")
    for system, used in (("variant-d4", switches), ("code-n6", switches), ("dit-mini", ())):
        policy = resolve_system(system, smoke).cache_policies[0]
        wanted = Configuration(system, 2, "fp32", policy, random_weights=True)
        assert profile_here(smoke, wanted, tmp_path, tmp_path / "profile.json").acceleration == used


@pytest.mark.parametrize("system", ["variant-d4", "code-n6"])
def test_a_sampler_with_graphs_draws_the_same(monkeypatch, smoke, system):
    def latents():
        torch.manual_seed(0)
        sampler = resolve_system(system, smoke).load(None, "fp32")
        return sampler, [sampler.latents(labels, range(len(labels)), seed, cache_policy=policy)
                         for labels, seed, policy in (([1, 2], 0, "lean"), ([1, 2], 1, "lean"), ([2, 0], 1, "lean"),
                                                      ([2], 1, "lean"), ([2, 0], 1, "reference"))]

    _, expected = latents()
    monkeypatch.setenv("VARIENT_GRAPHS", "1")
    sampler, found = latents()
    assert len(sampler.replays) == 3 and all(map(torch.equal, found, expected))


# -- torch.compile -----------------------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler: apt-get install g++")
def test_compiled_blocks_compute_the_same():
    """Fewer graphs than scales: the number of tokens is no constant, and blocks share them."""
    plain, compiled, tokenizer = tiny_transformer(), tiny_transformer(), tiny_tokenizer()
    Acceleration(compile=True).apply((compiled,), tokenizer)
    readout = SampledReadout(tokenizer.quantize, image_uniforms(0, range(3), 31))
    plan, logits = DepthPlan.bridge(6, 3, 2, 5), {plain: [], compiled: []}
    counters.clear()
    for model, seen in logits.items():
        generate(model, tokenizer.quantize, torch.arange(3), plan, Guidance(), readout,
                 on_logits=lambda k, values, seen=seen: seen.append(values))
    torch.testing.assert_close(torch.cat(logits[compiled], dim=1), torch.cat(logits[plain], dim=1), atol=2e-5, rtol=0)
    assert 3 <= counters["stats"]["unique_graphs"] <= 9
    assert not counters["graph_break"]
