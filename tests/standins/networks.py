"""Weight files with random values under the names and in the containers of their authors.

Names and shapes are written down here once more, as the authors' code has them and not as ours does: VAR at 78b9539,
CoDe at bfb204d, DiT at ed81ce2, LlamaGen at ce98ec4.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

Shapes = Iterator[tuple[str, tuple[int, ...]]]

VAR_TOKENIZER = {"vocab_size": 4096, "z_channels": 32, "ch": 160, "ch_mult": (1, 1, 2, 2, 4), "num_res_blocks": 2}
LLAMAGEN_TOKENIZER = {"codebook_size": 16384, "codebook_dim": 8, "z_channels": 256, "ch": 128,
                      "ch_mult": (1, 1, 2, 2, 4), "num_res_blocks": 2}
"""Shapes of the released files, where a config does not say otherwise."""


def write_networks(folder: Path, settings: dict[str, Any]) -> None:
    """Write VAR, its tokenizer, CoDe, DiT with its image decoder, and LlamaGen for settings of the experiment."""
    classes, scales = settings["data"]["num_classes"], settings["patch_nums"]
    tokenizer = VAR_TOKENIZER | settings["tokenizer"].get("model", {})
    code, dit, llamagen = (settings["systems"][name] for name in ("code", "dit", "llamagen"))
    large, small = settings["transformer"], code["refiner"]
    pair = code["pairs"][6]
    _save(folder / settings["tokenizer"]["weights"], _vqvae(tokenizer, len(scales)))
    for path, spec in ((settings["base"]["weights"], large), (code["small"]["weights"], small),
                       (pair["drafter"]["weights"], large), (pair["refiner"]["weights"], small)):
        _save(folder / path, _var(spec, scales, classes, tokenizer, seed=path))
    _save(folder / dit["weights"], _dit(dit["model"], settings["data"]["image_size"] // 8, classes))
    _write_image_decoder(folder / dit["vae"])
    codes = LLAMAGEN_TOKENIZER | llamagen["tokenizer"].get("model", {})
    # Files of FSDP are flat; those of LlamaGen's own trainer have the weights under 'model', beside much else.
    _save(folder / llamagen["transformer"]["weights"],
          _filled(_llamagen(llamagen["transformer"]["model"], classes, codes["codebook_size"]), "llamagen"))
    _save(folder / llamagen["tokenizer"]["weights"],
          {"model": _llamagen_tokenizer(codes), "optimizer": {"state": {}, "param_groups": []}, "steps": 1000,
           "args": argparse.Namespace(epochs=40)})


def _save(path: Path, state: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)


def _filled(shapes: Shapes, seed: str) -> dict[str, Tensor]:
    """Random values by shape: matrices and kernels keep the size of what goes through, scales of norms are one."""
    generator = torch.Generator().manual_seed(zlib.crc32(seed.encode()))
    state = {}
    for name, shape in shapes:
        values = torch.randn(shape, generator=generator)
        if name.endswith(".bias") or name.endswith("_bias"):
            state[name] = 0.02 * values
        elif len(shape) == 1:
            state[name] = torch.ones(shape)
        else:
            state[name] = values / values[0].numel() ** 0.5
    return state


def _with_bias(name: str, *shape: int) -> Shapes:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _var(spec: dict[str, Any], scales: Sequence[int], classes: int, tokenizer: dict[str, Any],
         seed: str) -> dict[str, Tensor]:
    """The whole of what VAR's state dict holds, its buffers too."""
    depth, width, heads = spec["depth"], spec["embed_dim"], spec["num_heads"]
    length = sum(side * side for side in scales)

    def shapes() -> Shapes:
        yield "pos_start", (1, 1, width)
        yield "pos_1LC", (1, length, width)
        yield from _with_bias("word_embed", width, tokenizer["z_channels"])
        yield "class_emb.weight", (classes + 1, width)
        yield "lvl_embed.weight", (len(scales), width)
        for i in range(depth):
            for name in ("q_bias", "v_bias"):
                yield f"blocks.{i}.attn.{name}", (width,)
            yield f"blocks.{i}.attn.mat_qkv.weight", (3 * width, width)
            yield from _with_bias(f"blocks.{i}.attn.proj", width, width)
            yield from _with_bias(f"blocks.{i}.ffn.fc1", 4 * width, width)
            yield from _with_bias(f"blocks.{i}.ffn.fc2", width, 4 * width)
            yield from _with_bias(f"blocks.{i}.ada_lin.1", 6 * width, width)
        yield from _with_bias("head_nm.ada_lin.1", 2 * width, width)
        yield from _with_bias("head", tokenizer["vocab_size"], width)

    state = _filled(shapes(), seed)
    for i in range(depth):
        state[f"blocks.{i}.attn.scale_mul_1H11"] = torch.full((1, heads, 1, 1), 4.0).log()
        state[f"blocks.{i}.attn.zero_k_bias"] = torch.zeros(width)
    level_1L = torch.cat([torch.full((side * side,), at) for at, side in enumerate(scales)])[None]
    earlier = level_1L[:, :, None] >= level_1L[:, None, :]
    return state | {"lvl_1L": level_1L, "attn_bias_for_masking": torch.where(earlier, 0.0, -torch.inf)[None]}


def _convolution(name: str, outputs: int, inputs: int, side: int) -> Shapes:
    return _with_bias(name, outputs, inputs, side, side)


def _residual(name: str, inputs: int, outputs: int) -> Shapes:
    yield from _with_bias(f"{name}.norm1", inputs)
    yield from _convolution(f"{name}.conv1", outputs, inputs, 3)
    yield from _with_bias(f"{name}.norm2", outputs)
    yield from _convolution(f"{name}.conv2", outputs, outputs, 3)
    if inputs != outputs:
        yield from _convolution(f"{name}.nin_shortcut", outputs, inputs, 1)


def _attention(name: str, width: int, projections: dict[str, int]) -> Shapes:
    yield from _with_bias(f"{name}.norm", width)
    for part, multiple in projections.items():
        yield from _convolution(f"{name}.{part}", multiple * width, width, 1)
    yield from _convolution(f"{name}.proj_out", width, width, 1)


def _vqgan(spec: dict[str, Any], *, stages: tuple[str, str], blocks: str, middle: tuple[str, str, str],
           projections: dict[str, int], from_latent: bool) -> Shapes:
    """Encoder and decoder of taming-transformers' VQGAN, under the names that VAR or LlamaGen give their parts.

    Args:
        stages: of encoder and decoder.
        from_latent: the decoder's stages are counted from the latent, not from the image.
    """
    ch, mult, count = spec["ch"], spec["ch_mult"], spec["num_res_blocks"]
    last, width = len(mult) - 1, spec["ch"]

    def stage(name: str, level: int, inputs: int, repeats: int) -> Shapes:
        for block in range(repeats):
            yield from _residual(f"{name}.{blocks}.{block}", inputs if block == 0 else ch * mult[level],
                                 ch * mult[level])
            if level == last:
                yield from _attention(f"{name}.attn.{block}", ch * mult[level], projections)

    def centre(side: str) -> Shapes:
        yield from _residual(f"{side}.{middle[0]}", width, width)
        yield from _attention(f"{side}.{middle[1]}", width, projections)
        yield from _residual(f"{side}.{middle[2]}", width, width)

    yield from _convolution("encoder.conv_in", ch, 3, 3)
    for level in range(len(mult)):
        name = f"encoder.{stages[0]}.{level}"
        yield from stage(name, level, width, count)
        width = ch * mult[level]
        if level < last:
            yield from _convolution(f"{name}.downsample.conv", width, width, 3)
    yield from centre("encoder")
    yield from _with_bias("encoder.norm_out", width)
    yield from _convolution("encoder.conv_out", spec["z_channels"], width, 3)
    yield from _convolution("decoder.conv_in", width, spec["z_channels"], 3)
    yield from centre("decoder")
    for level in reversed(range(len(mult))):
        name = f"decoder.{stages[1]}.{last - level if from_latent else level}"
        yield from stage(name, level, width, count + 1)
        width = ch * mult[level]
        if level:
            yield from _convolution(f"{name}.upsample.conv", width, width, 3)
    yield from _with_bias("decoder.norm_out", width)
    yield from _convolution("decoder.conv_out", 3, width, 3)


def _vqvae(spec: dict[str, Any], num_scales: int) -> dict[str, Tensor]:
    z = spec["z_channels"]

    def shapes() -> Shapes:
        yield from _vqgan(spec, stages=("down", "up"), blocks="block", middle=("mid.block_1", "mid.attn_1",
                          "mid.block_2"), projections={"qkv": 3}, from_latent=False)
        yield "quantize.embedding.weight", (spec["vocab_size"], z)
        for phi in range(4):
            yield from _convolution(f"quantize.quant_resi.qresi_ls.{phi}", z, z, 3)
        yield from _convolution("quant_conv", z, z, 3)
        yield from _convolution("post_quant_conv", z, z, 3)

    counter = torch.zeros(num_scales, spec["vocab_size"])
    return _filled(shapes(), "vqvae") | {"quantize.ema_vocab_hit_SV": counter}


def _llamagen_tokenizer(spec: dict[str, Any]) -> dict[str, Tensor]:
    z, dimension = spec["z_channels"], spec["codebook_dim"]

    def shapes() -> Shapes:
        yield from _vqgan(spec, stages=("conv_blocks", "conv_blocks"), blocks="res", middle=("mid.0", "mid.1", "mid.2"),
                          projections={"q": 1, "k": 1, "v": 1}, from_latent=True)
        yield "quantize.embedding.weight", (spec["codebook_size"], dimension)
        yield from _convolution("quant_conv", dimension, z, 1)
        yield from _convolution("post_quant_conv", z, dimension, 1)

    return _filled(shapes(), "llamagen-tokenizer") | {"quantize.codebook_used": torch.zeros(65536)}


def _llamagen(spec: dict[str, Any], classes: int, codes: int) -> Shapes:
    width, multiple = spec["width"], spec.get("multiple_of", 256)
    hidden = -(-int(8 * width / 3) // multiple) * multiple
    yield "cls_embedding.embedding_table.weight", (classes + 1, width)
    yield "tok_embeddings.weight", (codes, width)
    for i in range(spec["depth"]):
        yield f"layers.{i}.attention.wqkv.weight", (3 * width, width)
        yield f"layers.{i}.attention.wo.weight", (width, width)
        for name, shape in (("w1", (hidden, width)), ("w3", (hidden, width)), ("w2", (width, hidden))):
            yield f"layers.{i}.feed_forward.{name}.weight", shape
        yield f"layers.{i}.attention_norm.weight", (width,)
        yield f"layers.{i}.ffn_norm.weight", (width,)
    yield "norm.weight", (width,)
    yield "output.weight", (codes, width)


def _dit(spec: dict[str, Any], latent_side: int, classes: int) -> dict[str, Tensor]:
    width, patch = spec["hidden_size"], spec["patch_size"]

    def shapes() -> Shapes:
        yield from _convolution("x_embedder.proj", width, 4, patch)
        yield from _with_bias("t_embedder.mlp.0", width, 256)
        yield from _with_bias("t_embedder.mlp.2", width, width)
        yield "y_embedder.embedding_table.weight", (classes + 1, width)
        for i in range(spec["depth"]):
            for name, outputs, inputs in (("attn.qkv", 3, 1), ("attn.proj", 1, 1), ("mlp.fc1", 4, 1), ("mlp.fc2", 1, 4),
                                          ("adaLN_modulation.1", 6, 1)):
                yield from _with_bias(f"blocks.{i}.{name}", outputs * width, inputs * width)
        yield from _with_bias("final_layer.linear", patch * patch * 8, width)
        yield from _with_bias("final_layer.adaLN_modulation.1", 2 * width, width)

    return _filled(shapes(), "dit") | {"pos_embed": _sines(latent_side // patch, width)}


def _sines(side: int, width: int) -> Tensor:
    """DiT's table of positions (1, side^2, width): the column in the first half of the channels, the row in the other.
    """
    frequencies = 1 / 10000 ** (np.arange(width // 4) / (width / 4))

    def of(positions: np.ndarray) -> np.ndarray:
        angles = positions[:, None] * frequencies
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    rows, columns = np.divmod(np.arange(side * side), side)
    return torch.from_numpy(np.concatenate([of(columns), of(rows)], axis=1)).float()[None]


def _write_image_decoder(folder: Path) -> None:
    """A folder as diffusers keeps stabilityai/sd-vae-ft-ema: four levels, the latent an eighth of the side."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    AutoencoderKL(block_out_channels=(8, 8, 8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=8,
                  down_block_types=("DownEncoderBlock2D",) * 4,
                  up_block_types=("UpDecoderBlock2D",) * 4).save_pretrained(folder)
