"""What runs on a GPU, on a machine without one: tensors that say device "cuda" and have shapes but no values.

An operation with operands on two devices fails, and so does one whose result's size depends on values.  What makes the
host wait for the device is written down, operation by operation: a generation waits for its inputs, and once at its end
to see whether all was finite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from varient.baselines.code.decoding import CodeSampler
from varient.baselines.dit import network as dit_network
from varient.baselines.dit import sampling as dit_sampling
from varient.baselines.dit.diffusion import Diffusion
from varient.baselines.llamagen import build as llamagen_build
from varient.baselines.llamagen.sampling import LlamaGenSampler
from varient.baselines.llamagen.transformer import Transformer
from varient.evaluation import extractors
from varient.models.build import build_tokenizer, build_transformer
from varient.models.quantizer import MultiScaleQuantizer
from varient.models.vqvae import from_uint8
from varient.plan import DepthPlan
from varient.sampling import Guidance, SampledReadout, generate, image_uniforms, run_scales
from varient.systems.pipeline import Pipeline
from varient.systems.registry import resolve_system
from varient.training.data import Mix
from varient.training.tokens import mixed_classes, prediction_divergence, scale_losses, token_loss

pytestmark = pytest.mark.filterwarnings("ignore:CUDA is not available")  # says torch of autocast

IMAGES, INDICES, SEED = [0, 3, 9], range(3), 0
TO_GPU, TO_CPU, ANSWER = "copied to the GPU", "copied to the CPU", "a value asked for"
WAITING = {"aten::_local_scalar_dense": ANSWER, "aten::item": ANSWER, "aten::nonzero": "nonzero",
           "aten::masked_select": "masked_select", "aten::repeat_interleave": "repeat_interleave",
           "aten::_unique2": "unique", "aten::bincount": "bincount"}


class Waits(TorchDispatchMode):
    """Names every operation that makes the host wait for the device, or the device for the host."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation._schema.name
        before = _devices((args, kwargs))
        if "cuda" in before and name in WAITING:
            self.seen.append(WAITING[name])
        if name == "aten::_local_scalar_dense":
            return True  # fake tensors have no values; what is asked is whether all is finite
        result = operation(*args, **(kwargs or {}))
        if name in ("aten::to", "aten::_to_copy", "aten::copy_") and before | _devices(result) == {"cpu", "cuda"}:
            self.seen.append(TO_GPU if _devices(result) == {"cuda"} else TO_CPU)
        return result


def _devices(operands: object) -> set[str]:
    """Where tensors are; numbers as tensors are handed to the device with the kernel and wait for nothing."""
    return {t.device.type for t in tree_leaves(operands) if isinstance(t, torch.Tensor) and (t.ndim or t.is_cuda)}


@contextmanager
def fake_gpu() -> Iterator[Callable[[Callable[[], nn.Module]], nn.Module]]:
    """A function that builds networks on the GPU, not initialised: fake weights have no values."""
    def on_gpu(build: Callable[[], nn.Module], dtype: torch.dtype = torch.float32) -> nn.Module:
        torch.set_default_dtype(dtype)
        try:  # a module's `to`, which some constructors call, cannot exchange fake parameters
            with torch.device("cuda"), patch.object(nn.Module, "_apply", lambda module, *_, **__: module):
                network = build().eval().requires_grad_(False)
        finally:
            torch.set_default_dtype(torch.float32)
        assert {t.device.type for t in (*network.parameters(), *network.buffers())} == {"cuda"}
        return network

    with FakeTensorMode(allow_non_fake_inputs=True):
        yield on_gpu


# -- generation --------------------------------------------------------------------------------------------------------

SYSTEMS = ("var-d3", "var-d3-w1-kv8", "var-d3-gmap-g3", "var-d3-heads30", "variant-d2", "variant-d2-n0",
           "free-d2-r2to4", "code-n3", "dit-mini", "llamagen-mini")
GUIDED = Guidance(cfg=1.5, top_k=8, top_p=0.9)


def _sampler(name, config, on_gpu, dtype):
    """The system with fake weights on the fake GPU, and what its generation is known to wait for."""
    system = resolve_system(name, config)
    ends = [TO_GPU, TO_GPU, TO_CPU]  # labels and uniform numbers; at the end whether all is finite
    if name.startswith("dit"):
        network = on_gpu(partial(dit_network.build_network, config, system.settings), dtype)
        # Labels, the process's table, and noise drawn on the CPU: that of the start, and one a step but for the last.
        return dit_sampling.DiTSampler(network, None, config.data.image_size, system.num_steps,
                                       dit_sampling.Guidance(), 2), (2 + system.num_steps) * [TO_GPU] + [TO_CPU]
    if name.startswith("llamagen"):
        model = on_gpu(partial(_llamagen, config, system.settings), dtype)
        tokenizer = on_gpu(partial(llamagen_build.build_tokenizer, system.settings))
        protocol = system.settings.model_copy(update={"top_k": 8, "top_p": 0.9})
        return LlamaGenSampler(model, tokenizer, protocol, config.data.image_size, 2), [TO_GPU, *ends]  # rotations
    tokenizer = on_gpu(partial(build_tokenizer, config))
    model = on_gpu(partial(build_transformer, config), dtype)
    if name.startswith("code"):
        refiner = on_gpu(partial(build_transformer, config, system.settings.refiner), dtype)
        sampler = CodeSampler(model, refiner, tokenizer, system.drafted, GUIDED, 2)
        return sampler, ends
    return Pipeline(model, tokenizer, system.plan, GUIDED, 2), ends


def _llamagen(config, settings):
    return Transformer(settings.transformer.model, side=settings.token_side(config.data),
                       vocab_size=settings.tokenizer.model.codebook_size, num_classes=config.data.num_classes)


@pytest.fixture
def small(smoke):
    """Three layers and five scales: fake operations take their time."""
    transformer = smoke.transformer.model_copy(update={"depth": 3})
    supernet = smoke.supernet.model_copy(update={"depths": (2,), "bridge": 3})
    code = smoke.systems["code"] | {"pairs": {"3": smoke.systems["code"]["pairs"]["6"]}}
    return smoke.model_copy(update={"transformer": transformer, "supernet": supernet, "patch_nums": (1, 1, 2, 3, 4),
                                    "systems": smoke.systems | {"code": code}})


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_generation_waits_for_its_inputs_and_its_end_alone(name, small):
    for policy in resolve_system(name, small).cache_policies:
        with fake_gpu() as on_gpu:
            sampler, known = _sampler(name, small, on_gpu, torch.float16)
            with Waits() as host:
                latents = sampler.latents(IMAGES, INDICES, SEED, cache_policy=policy)
            assert sorted(host.seen) == sorted(known) and host.seen[-1] == TO_CPU
            assert latents.is_cuda and latents.dtype == (torch.int64 if "llamagen" in name else torch.float32)
            with Waits() as host:
                images = sampler.decode(latents)
            assert images.is_cuda and images.dtype == torch.uint8 and len(images) == len(IMAGES)
            assert host.seen == []


@pytest.mark.parametrize("policy", ["lean", "reference"])
def test_what_a_graph_captures_waits_for_nothing(small, policy):
    """Labels and uniform numbers are in its buffers already, and the answer is asked for after it."""
    with fake_gpu() as on_gpu:
        model = on_gpu(partial(build_transformer, small), torch.float16)
        tokenizer = on_gpu(partial(build_tokenizer, small))
        label_B = torch.empty(3, dtype=torch.int64, device="cuda")
        uniform_BL = torch.empty(3, small.pyramid.length, device="cuda")
        with Waits() as host:
            run_scales(model, tokenizer.quantize, label_B, small.plan(), GUIDED,
                       SampledReadout(tokenizer.quantize, uniform_BL), cache_policy=policy)
    assert host.seen == []


def test_a_generation_without_guidance_and_filters_waits_for_no_more(small):
    with fake_gpu() as on_gpu:
        model, tokenizer = on_gpu(partial(build_transformer, small)), on_gpu(partial(build_tokenizer, small))
        with Waits() as host:
            readout = SampledReadout(tokenizer.quantize, image_uniforms(SEED, INDICES, small.pyramid.length))
            generate(model, tokenizer.quantize, torch.tensor(IMAGES), small.plan(), Guidance(cfg=0, top_k=0, top_p=0),
                     readout)
    assert host.seen == [TO_GPU, TO_GPU, TO_CPU]


def test_what_a_fake_gpu_finds():
    """Operands on two devices, a value asked for, a size that hangs on values: each is seen."""
    with fake_gpu():
        on_the_gpu, on_the_cpu = torch.empty(3, device="cuda"), torch.empty(3)
        with pytest.raises(RuntimeError, match="cuda.*cpu|cpu.*cuda"):
            on_the_gpu + on_the_cpu
        for ask in (lambda: on_the_gpu.sum().item(), lambda: bool(on_the_gpu.any()), lambda: int(on_the_gpu[0])):
            with Waits() as host:
                ask()
            assert host.seen == [ANSWER]
        for ask in (lambda: on_the_gpu[on_the_gpu > 0], lambda: on_the_gpu.repeat_interleave((on_the_gpu > 0).long())):
            with Waits() as host, pytest.raises(Exception, match="nonzero|repeat_interleave"):
                ask()
        with Waits() as host:
            on_the_gpu.cpu(), on_the_cpu.to("cuda")
        assert host.seen == [TO_CPU, TO_GPU]


# -- tokenizers, decoders, extractors ----------------------------------------------------------------------------------

def test_a_tokenizer_waits_for_nothing(smoke):
    with fake_gpu() as on_gpu:
        tokenizer = on_gpu(partial(build_tokenizer, smoke))
        image_B3SS = torch.empty(3, 3, 8, 8, dtype=torch.uint8, device="cuda")
        with Waits() as host, torch.no_grad():
            idx_BL = tokenizer.encode(from_uint8(image_B3SS))
            outputs = [idx_BL, tokenizer.decode(idx_BL), tokenizer.quantize.teacher_input(idx_BL),
                       *tokenizer(from_uint8(image_B3SS)), *tokenizer.quantize.f_hats(idx_BL)]
    assert host.seen == [] and all(output.is_cuda for output in outputs)


@pytest.mark.parametrize("changes", [{"using_znorm": True}, {"share_quant_resi": 0}, {"share_quant_resi": 1}])
def test_other_quantizers_wait_for_nothing(smoke, changes):
    spec = smoke.tokenizer.model.model_copy(update=changes)
    with fake_gpu() as on_gpu:
        quantizer = on_gpu(partial(MultiScaleQuantizer, spec, smoke.pyramid))
        with Waits() as host:
            assert quantizer.encode(torch.empty(3, 8, 4, 4, device="cuda")).is_cuda
    assert host.seen == []


def test_the_tokenizer_of_llamagen_waits_for_nothing(smoke):
    settings = resolve_system("llamagen-mini", smoke).settings
    with fake_gpu() as on_gpu:
        tokenizer = on_gpu(partial(llamagen_build.build_tokenizer, settings))
        with Waits() as host, torch.no_grad():
            image_B3SS = torch.empty(3, 3, 8, 8, device="cuda")
            assert all(output.is_cuda for output in (tokenizer.encode(image_B3SS), *tokenizer(image_B3SS)))
    assert host.seen == []


def test_the_decoder_of_dit_waits_for_nothing(smoke):
    small = dit_sampling._SD_VAE | {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1}
    with fake_gpu() as on_gpu:
        network = on_gpu(partial(dit_network.build_network, smoke, resolve_system("dit-mini", smoke).settings))
        vae = on_gpu(lambda: dit_sampling._with_exact_norms(AutoencoderKL(**small)))
        sampler = dit_sampling.DiTSampler(network, vae, 8, 5, dit_sampling.Guidance(), 2)
        with Waits() as host:
            images = sampler.decode(torch.empty(3, 4, 8, 8, device="cuda"))
    assert images.is_cuda and images.shape == (3, 3, 64, 64) and host.seen == []


def test_inception_waits_for_images_and_features_alone(monkeypatch):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.torch.load", lambda *_, **__: None)
    monkeypatch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)  # the weights of its file
    monkeypatch.setattr(extractors, "feature_array", lambda value: value.float().cpu())
    with fake_gpu() as on_gpu:
        network = on_gpu(lambda: FeatureExtractorInceptionV3("shape", ["2048", "logits_unbiased"],
                                                             feature_extractor_weights_path="none"))
        extractor = object.__new__(extractors.FidelityInception)
        extractor._network, extractor._device = network, torch.device("cuda")
        network.Mixed_6d.branch1x1.register_forward_hook(extractor._keep_spatial)
        with Waits() as host:
            extractor(np.zeros((2, 3, 64, 64), dtype=np.uint8))
    assert host.seen == [TO_GPU, *3 * [TO_CPU]]


# -- training ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("plan", [DepthPlan.full(3, 5), DepthPlan.bridge(3, 2, 3, 5), DepthPlan.bridge(3, 2, 0, 5)],
                         ids=["full", "bridge", "skip-all"])
def test_the_loss_of_a_training_step_waits_for_nothing(small, plan, mixed):
    spec = small.transformer.model_copy(update={"drop_path_rate": 0.5})
    with fake_gpu() as on_gpu, torch.no_grad():  # a backward pass asks CUDA for its stream, of which there is none
        model = on_gpu(partial(build_transformer, small, spec)).train()
        idx_BL = torch.empty(2, small.pyramid.length, dtype=torch.int64, device="cuda")
        x_BLv = torch.empty(2, small.pyramid.length - 1, 8, device="cuda")
        mix = Mix(idx_BL[:, 0], torch.empty(2, device="cuda")) if mixed else None
        with Waits() as host, torch.autocast("cuda", torch.float16):
            logits_BLV = model(idx_BL[:, 0], x_BLv, plan, mixed_classes(model, idx_BL[:, 0], mix))
            losses = [token_loss(logits_BLV, idx_BL), prediction_divergence(logits_BLV, logits_BLV),
                      *scale_losses(logits_BLV, idx_BL, small.pyramid).values()]
    assert host.seen == [] and all(loss.is_cuda for loss in losses)


def test_the_loss_of_dit_waits_for_nothing(smoke):
    with fake_gpu() as on_gpu, torch.no_grad():
        network = on_gpu(partial(dit_network.build_network, smoke, resolve_system("dit-mini", smoke).settings))
        process = Diffusion(device="cuda")
        x0_BCHW = torch.empty(2, 3, 8, 8, device="cuda")
        step_B = torch.empty(2, dtype=torch.int64, device="cuda")
        with Waits() as host:
            prediction = network(process.noised(x0_BCHW, step_B, x0_BCHW), step_B, step_B)
            assert all(loss.is_cuda for loss in process.losses(prediction, x0_BCHW, step_B, x0_BCHW))
    assert host.seen == []
