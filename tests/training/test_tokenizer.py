import torch
from conftest import tiny_tokenizer

from varient.training.tokenizer import restart_unused_codes


def test_restarted_codes_are_used_more():
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    images = torch.rand(64, 3, 8, 8) * 2 - 1
    used = [tokenizer.encode(images).unique().numel()]
    for _ in range(3):
        restart_unused_codes(tokenizer, images)
        used.append(tokenizer.encode(images).unique().numel())
    assert used[-1] > used[0]
    assert used[-1] >= 0.9 * 32
