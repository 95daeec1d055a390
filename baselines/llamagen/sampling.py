"""Generation with LlamaGen: the class, then token by token, guided, filtered, drawn with one seed an image.

Shapes: B images, R rows in the transformer (2B under guidance: conditional rows first), L tokens, V codes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from varient.baselines.llamagen.kv_cache import StaticCache
from varient.baselines.llamagen.settings import Settings
from varient.baselines.llamagen.tokenizer import Tokenizer, to_uint8
from varient.baselines.llamagen.transformer import Transformer
from varient.config import CachePolicy
from varient.sampling import check_finite, filter_logits, finite_sum, image_uniforms, sample_tokens
from varient.systems.protocol import CountedCache

NewCache = Callable[[CountedCache], None]


@torch.no_grad()
def generate(model: Transformer, label_B: Tensor, protocol: Settings, uniform_BL: Tensor, *,
             on_cache: NewCache | None = None, on_logits: Callable[[int, Tensor], None] | None = None) -> Tensor:
    """Tokens (B, L), int64, of a batch of classes.

    Args:
        label_B: classes 0..num_classes-1, int64, on the CPU (checking them must not wait for a GPU).
        protocol: guidance, filters and temperature.
        uniform_BL: one number in [0, 1) a token, float32.
        on_cache: is handed the cache as it is made.
        on_logits: sees (token 0..L-1, guided logits (B, V) before temperature and filters).

    Raises:
        ValueError: a label outside the classes.
        NotFiniteError: logits that are not finite.
    """
    if label_B.numel() and not 0 <= int(label_B.min()) <= int(label_B.max()) < model.num_classes:
        raise ValueError(f"labels must lie in 0..{model.num_classes - 1}")
    guided = protocol.cfg > 1
    label_B, uniform_BL = label_B.to(model.device), uniform_BL.to(model.device)
    label_R = torch.cat([label_B, torch.full_like(label_B, model.num_classes)]) if guided else label_B
    cache = StaticCache(model.shape, len(label_R), 1 + model.num_tokens, model.output.weight.dtype, model.device)
    if on_cache:
        on_cache(cache)
    rotations, x_R1C, tokens, sums = model.rotations(), model.embed_class(label_R), [], []
    for i in range(model.num_tokens):
        logits_BV = model.step(x_R1C, i, cache, rotations)
        if guided:
            # The authors count steps after the first token, so the last guided token is 1 + cfg_interval.
            scale = protocol.cfg if protocol.cfg_interval < 0 or i <= protocol.cfg_interval + 1 else 1.0
            logits_BV = guided_logits(logits_BV, scale)
        if on_logits:
            on_logits(i, logits_BV)
        sums.append(finite_sum(logits_BV))  # a filter may drop a NaN
        logits_BV = keep_likely(logits_BV / protocol.temperature, protocol.top_k, protocol.top_p)
        idx_B1 = sample_tokens(logits_BV.unsqueeze(1), uniform_BL[:, i:i + 1])
        tokens.append(idx_B1)
        x_R1C = model.embed_tokens(idx_B1.repeat(2 if guided else 1, 1))
    check_finite(sums, model)
    return torch.cat(tokens, dim=1)


def guided_logits(logits_RV: Tensor, scale: float) -> Tensor:
    """u + s (c - u) of the conditional rows c and the unconditional rows u behind them; (B, V) come back."""
    conditional_BV, unconditional_BV = logits_RV.chunk(2)
    if scale == 1:
        return conditional_BV
    return unconditional_BV + scale * (conditional_BV - unconditional_BV)


def keep_likely(logits_BV: Tensor, top_k: int, top_p: float) -> Tensor:
    """Set to -inf what top-k (0 keeps all) and then top-p (1 keeps all) leave out.

    Unlike VAR's nucleus, which is counted from the least likely upwards, LlamaGen's is counted downwards and keeps
    the first token that goes over p: a token stays if those more likely than it have at most p together.
    """
    logits_BV = filter_logits(logits_BV, top_k, top_p=0)
    if top_p == 1:
        return logits_BV
    probability_BV, order_BV = logits_BV.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
    dropped_BV = probability_BV.cumsum(dim=-1) - probability_BV > top_p
    return logits_BV.masked_fill(torch.zeros_like(dropped_BV).scatter(-1, order_BV, dropped_BV), -torch.inf)


@dataclass(frozen=True)
class LlamaGenSampler:
    """The system with its networks in memory (`varient.systems.protocol.Sampler`).

    Attributes:
        image_size: side of the images that come out.
        decoded_at_once: number of images per pass through the decoder, to limit peak memory.
    """

    model: Transformer
    tokenizer: Tokenizer
    settings: Settings
    image_size: int
    decoded_at_once: int

    @property
    def networks(self) -> Sequence[nn.Module]:
        """Transformer and tokenizer."""
        return self.model, self.tokenizer

    def latents(self, labels: Sequence[int], indices: Sequence[int], seed: int, *,
                cache_policy: CachePolicy | None = None, on_cache: NewCache | None = None) -> Tensor:
        """Tokens (B, L), int64; the decoder begins with looking up their codes.

        Raises:
            ValueError: a cache policy other than "static".
        """
        if cache_policy not in (None, "static"):
            raise ValueError(f"LlamaGen's KV cache is static; it cannot be {cache_policy}")
        uniform_BL = image_uniforms(seed, indices, self.model.num_tokens)
        return generate(self.model, torch.as_tensor(labels), self.settings, uniform_BL, on_cache=on_cache)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """uint8 images (B, 3, S, S) of tokens (B, L); the decoder is float32, as the authors'."""
        parts = latents.split(self.decoded_at_once)
        return torch.cat([to_uint8(self.tokenizer.decode(part), self.image_size) for part in parts])
