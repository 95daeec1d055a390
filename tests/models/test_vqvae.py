from copy import deepcopy

import pytest
import torch
from conftest import LATENT_TOLERANCE, ROUNDING, assert_close, golden, tiny_tokenizer

from varient.config import TokenizerSpec
from varient.models.quantizer import phi_indices
from varient.models.vqvae import VQVAE, from_uint8, to_uint8
from varient.pyramid import VAR_256

PIXELS = 5e-5  # images in [-1, 1]: 1e-5 measured, 1.2e-3 from norms with another eps


def test_ten_scales_with_four_phis_match_the_released_code():
    case = golden("vqvae_k10_qsr4")
    model = case.tokenizer("sd/")
    quantizer = model.quantize
    with torch.no_grad():
        assert_close(model.encode_latent(case["in/img"]), case["out/f"])
        idx_BL = model.encode(case["in/img"])
        assert torch.equal(idx_BL, case["out/idx"])
        assert_close(quantizer.teacher_input(idx_BL), case["out/var_input"], LATENT_TOLERANCE)
        assert_close(torch.stack(quantizer.f_hats(idx_BL)), case["out/f_hat_per_scale"], LATENT_TOLERANCE)
        image = model.decode(idx_BL)
        assert_close(image[:, :, ::4, ::4], case["out/img_stride4"], PIXELS)
        assert_close(image[:, :, 96:128, 64:96], case["out/img_crop"], PIXELS)
        assert_close(image.mean((2, 3)), case["out/img_mean"], ROUNDING)
        assert_close(image.std((2, 3), correction=0), case["out/img_std"], ROUNDING)
        assert_close(model(case["in/img"])[1], case["out/vq_loss"][0], ROUNDING)


@pytest.mark.parametrize("variant", ["qsr1", "qsr0", "znorm"])
def test_shared_phi_phi_per_scale_and_znorm_match_the_released_code(variant):
    case = golden("vqvae_small_variants")
    model = case.tokenizer("sd/common/", f"sd/{variant}/", settings=case.config["variants"][variant]["vae"])
    quantizer = model.quantize
    with torch.no_grad():
        assert_close(model.encode_latent(case["in/img"]), case["out/f"])
        idx_BL = model.encode(case["in/img"])
        assert torch.equal(idx_BL, case[f"out/{variant}/idx"])
        f_hats = quantizer.f_hats(idx_BL)
        assert_close(torch.stack(f_hats), case[f"out/{variant}/f_hat_per_scale"], LATENT_TOLERANCE)
        assert_close(quantizer.teacher_input(idx_BL), case[f"out/{variant}/var_input"], LATENT_TOLERANCE)
        next_maps = [quantizer.next_input(k, f_hat) for k, f_hat in enumerate(f_hats[:-1], start=1)]
        last_map = f_hats[-1].flatten(2).transpose(1, 2)
        first_of_map = case[f"out/{variant}/next_map"]
        assert_close(torch.cat([*next_maps, last_map], dim=1), first_of_map, LATENT_TOLERANCE)
        assert_close(model.decode(idx_BL)[:, :, ::2, ::2], case[f"out/{variant}/img_stride2"], PIXELS)
        assert_close(model.decode_latent(f_hats[0])[:, :, ::4, ::4], case[f"out/{variant}/img_scale0_stride4"], PIXELS)
        assert_close(model(case["in/img"])[1], case[f"out/{variant}/vq_loss"][0], ROUNDING)


def test_phi_of_each_scale_matches_the_released_table():
    case = golden("vqvae_k10_qsr4")
    for row, shared in enumerate(case.config["phi_table_share_quant_resi"]):
        for column, num_scales in enumerate(case.config["phi_table_num_scales"]):
            expected = case["out/phi_index_table"][row, column, :num_scales].tolist()
            assert list(phi_indices(shared, num_scales)) == expected, (shared, num_scales)


def test_the_two_ties_of_ten_scales_go_the_released_way():
    assert phi_indices(4, 10) == (0, 0, 1, 1, 1, 2, 2, 3, 3, 3)


def test_released_tokenizer_has_108948355_parameters():
    with torch.device("meta"):
        model = VQVAE(TokenizerSpec(), VAR_256)
    assert sum(p.numel() for p in model.parameters()) == 108_948_355


def test_quantized_training_pass_lets_the_gradient_through_to_the_encoder():
    model = tiny_tokenizer().requires_grad_(True)
    image = torch.rand(2, 3, 8, 8) * 2 - 1
    reconstruction, loss = model(image)
    (reconstruction.square().mean() + loss).backward()
    assert model.encoder.conv_in.weight.grad.abs().sum() > 0
    assert model.quantize.embedding.weight.grad.abs().sum() > 0


def test_far_from_zero_the_layout_in_memory_costs_no_digits():
    """Latents of a generation and images from files are channels-last, where torch's norms lose digits on a CPU."""
    model = tiny_tokenizer()
    for network in (model.encoder, model.decoder):
        network.conv_in.bias += 30  # 90 standard deviations of what enters the first norm
    torch.manual_seed(0)
    latent, image = torch.randn(3, 8, 32, 32), torch.rand(3, 3, 64, 64) * 2 - 1
    for function, value in (("decode_latent", latent), ("encode_latent", image)):
        exact = getattr(deepcopy(model).double(), function)(value.double()).float()
        ours = getattr(model, function)(value)
        assert_close(ours, exact, 1e-5)  # 7e-7 measured; 1e-4 with channels-last norms
        assert torch.equal(getattr(model, function)(value.contiguous(memory_format=torch.channels_last)), ours)


def test_uint8_conversion_truncates_and_round_trips_grey_levels():
    levels = torch.arange(256, dtype=torch.uint8)
    assert (to_uint8(from_uint8(levels)).int() - levels.int()).abs().max() <= 1  # 255 x may fall just below an integer
    assert to_uint8(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [0, 127, 255]
