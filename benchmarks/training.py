"""What a training step of a subnet costs against the full network's and against dense-mask training, in one run.

    python benchmarks/training.py steps --width 256 --batch 2 -o benchmarks/records/training-d30-w256-b2.json
    python benchmarks/training.py steps --digits --batch 32 -o benchmarks/records/training-digits-b32.json
    python benchmarks/training.py attention -o benchmarks/records/training-attention.json

A step is all that training does with a batch: forward, loss (in all and of each scale), backward, clipping, AdamW.
Three routes to the same logits: ``blocks`` is the package's; ``dense`` is its zone rule with one masked attention call
a layer; ``naive`` puts every token through every layer under a mask and takes back what the plan leaves out.

Seeded random weights and tokens.  Variants take turns within each round, so that a drift of the machine meets all of
them; the first round is dropped.  Each ratio is the median of the ratios within a round.  Beside the seconds that
passed stand the processor's seconds in this process, which on a CPU leave out the waits for whatever else runs there.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated
from unittest import mock

import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from varient.config import TransformerSpec, load_config
from varient.files import write_text
from varient.models import transformer
from varient.models.attention_spans import SHARED_TOKENS
from varient.models.block_attention import attend_in_ranges, query_ranges
from varient.models.build import build_transformer
from varient.models.transformer import VAR, initialize
from varient.plan import DepthPlan
from varient.pyramid import VAR_256
from varient.records import provenance, random_weights
from varient.systems.pipeline import DTYPES
from varient.training.tokens import scale_losses, token_loss

app = typer.Typer(add_completion=False)
Output = Annotated[Path, typer.Option("--output", "-o")]
Route = Callable[[VAR, Tensor, Tensor, DepthPlan], Tensor]
"""(model, label_B, x_BLv, plan) -> logits_BLV."""
Times = tuple[float, float]
"""Seconds that passed, and the processor's seconds in this process."""

ONE_CALL = 2 ** 31
"""`shared_tokens` that leaves one masked call."""
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@app.command()
def steps(
    output: Output,
    depth: int = 30,
    width: int = 64,
    batch: int = 4,
    digits: Annotated[bool, typer.Option("--digits", help="the network of workflow/config/digits.yaml")] = False,
    subnets: Annotated[tuple[int, int, int, int], typer.Option(help="d of the subnets, N = 6")] = (16, 8, 4, 2),
    precision: str = "fp32",
    rounds: int = 5,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves torch's choice")] = 1,
) -> None:
    """Time steps of the full network and of its subnets and write one record."""
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = _digits_network() if digits else _network(depth, width)
    depth, scales = model.spec.depth, model.pyramid.num_scales
    plans = {"full": DepthPlan.full(depth, scales)} | {f"d{d}": DepthPlan.bridge(depth, d, 6, scales) for d in subnets}
    label_B = torch.arange(batch, device=DEVICE) % model.num_classes
    x_BLv = torch.randn(batch, model.pyramid.length - model.pyramid.tokens(1), model.word_embed.in_features,
                        device=DEVICE)
    idx_BL = torch.randint(model.head.out_features, (batch, model.pyramid.length), device=DEVICE)

    differences = {name: _difference(model, label_B, x_BLv, plan) for name, plan in plans.items()}
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def timed_step(route: Route, plan: DepthPlan) -> Times:
        begin = _now()
        with torch.autocast(DEVICE, DTYPES[precision], enabled=precision != "fp32"):
            logits_BLV = route(model, label_B, x_BLv, plan)
            loss = token_loss(logits_BLV, idx_BL)
            scale_losses(logits_BLV.detach(), idx_BL, model.pyramid)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return _since(begin)

    variants = [(plan, route) for plan in plans for route in ROUTES]
    load = [os.getloadavg()[0]]
    seconds: dict[tuple[str, str], list[Times]] = {variant: [] for variant in variants}
    for _ in tqdm(range(rounds + 1), desc=output.stem):
        for plan, route in variants:
            seconds[plan, route].append(timed_step(ROUTES[route], plans[plan]))
        load.append(os.getloadavg()[0])
    for times in seconds.values():
        del times[0]

    token_layers = {name: sum(model.pyramid.tokens(k) * len(plan.layers(k)) for k in model.pyramid.scales)
                    for name, plan in plans.items()}
    rows = []
    for plan, route in variants:
        times = seconds[plan, route]
        rows.append({
            "plan": plan, "route": route, **_summary("step", times),
            "token_layer_ratio": token_layers[plan] / token_layers["full"],
            **{f"{kind}ratio_to_{name}": _ratio(times, seconds[other], kind)
               for name, other in (("full", ("full", route)), ("dense", (plan, "dense")), ("naive", (plan, "naive")))
               for kind in ("", "cpu_")},
            "largest_difference_to_naive": differences[plan][route]})
        row = rows[-1]
        print(f"{plan:>5} {route:>6}: {row['step_s']:7.3f} s, {row['ratio_to_full']:.3f} of full (CPU time "
              f"{row['cpu_ratio_to_full']:.3f}, token-layers {row['token_layer_ratio']:.3f}), of dense "
              f"{row['ratio_to_dense']:.3f} ({row['cpu_ratio_to_dense']:.3f}), of naive {row['ratio_to_naive']:.3f} "
              f"({row['cpu_ratio_to_naive']:.3f})")
    _write(output, "training-benchmark", load, {
        "network": "digits" if digits else "VAR at 256 x 256", "depth": depth, "width": model.spec.embed_dim,
        "heads": model.spec.num_heads, "tokens": model.pyramid.length, "vocabulary": model.head.out_features,
        "parameters": sum(parameter.numel() for parameter in model.parameters()), "batch": batch,
        "precision": precision, "bridge": 6, "weights": random_weights(0, "cpu"), "rows": rows})


@app.command()
def attention(output: Output, rounds: int = 9,
              threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves torch's choice")] = 1) -> None:
    """Time attention alone, there and back, for several values of `SHARED_TOKENS` and write one record."""
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    digits = load_config(_DIGITS).pyramid
    shapes = [(pyramid.patch_nums[:scales], *rows) for pyramid, sizes in (
        (digits, [(32, 2, 16)]), (VAR_256, [(1, 1, 64), (4, 1, 64), (2, 4, 64), (2, 8, 64), (8, 8, 64)]),
    ) for scales in (6, 10) for rows in sizes] + [((1, 2, 3, 4, 6, 9, 13, 18, 24, 32), 1, 4, 64)]
    load, rows = [os.getloadavg()[0]], []
    for patch_nums, batch, heads, channels in tqdm(shapes, desc=output.stem):
        tokens = [side * side for side in patch_nums]
        qkv = torch.randn(3, batch, heads, sum(tokens), channels, device=DEVICE, requires_grad=True)
        seconds: dict[int, list[Times]] = {limit: [] for limit in (0, 32, 64, SHARED_TOKENS, 256, 512, ONE_CALL)}
        for _ in range(rounds + 1):
            for limit, times in seconds.items():
                blocks = query_ranges(tokens, qkv.device, limit)
                begin = _now()
                attend_in_ranges(F.scaled_dot_product_attention, *qkv.unbind(0), blocks).sum().backward()
                times.append(_since(begin))
        load.append(os.getloadavg()[0])
        for times in seconds.values():
            del times[0]
        best = min(statistics.median(cpu for _, cpu in times) for times in seconds.values())
        for limit, times in seconds.items():
            blocks = query_ranges(tokens, None, limit)
            rows.append({
                "tokens": sum(tokens), "scales": len(tokens), "batch": batch, "heads": heads, "head_dim": channels,
                "shared_tokens": "one call" if limit == ONE_CALL else limit, "calls": len(blocks),
                "share_of_products": sum((end - begin) * end for begin, end, _ in blocks) / sum(tokens) ** 2,
                **_summary("attention", times),
                **{f"{kind}ratio_to_one_call": _ratio(times, seconds[ONE_CALL], kind) for kind in ("", "cpu_")},
                "cpu_ratio_to_best": statistics.median(cpu for _, cpu in times) / best})
    for limit in sorted({str(row["shared_tokens"]) for row in rows}):
        ratios = [row["cpu_ratio_to_best"] for row in rows if str(row["shared_tokens"]) == limit]
        print(f"shared tokens {limit:>8}: {min(ratios):.2f} to {max(ratios):.2f} of the best CPU time")
    _write(output, "attention-benchmark", load, {"rows": rows})


def _blocks(model: VAR, label_B: Tensor, x_BLv: Tensor, plan: DepthPlan) -> Tensor:
    return model(label_B, x_BLv, plan)


def _dense(model: VAR, label_B: Tensor, x_BLv: Tensor, plan: DepthPlan) -> Tensor:
    with mock.patch.object(transformer, "query_ranges", lambda tokens, device: query_ranges(tokens, device, ONE_CALL)):
        return model(label_B, x_BLv, plan)


def _naive(model: VAR, label_B: Tensor, x_BLv: Tensor, plan: DepthPlan) -> Tensor:
    """Every token through every layer; where the plan leaves a layer out, the token keeps what it had before.

    Needs no mask of its own for skipped tokens, as long as these come last: nobody before them sees their keys.
    """
    pyramid, class_BC = model.pyramid, model.condition(label_B)
    later = [model.embed_scale(k, x_BLv[:, pyramid.begin(k) - pyramid.tokens(1):pyramid.end(k) - pyramid.tokens(1)])
             for k in pyramid.scales[1:]]
    x_BLC = torch.cat([model.embed_start(class_BC), *later], dim=1)
    scale_L, visible_LL = model.scale_of_token(), model.visible(pyramid.num_scales)
    for layer, modulation in model.modulation(class_BC, range(model.spec.depth)).items():
        h_BLC = model.blocks[layer](x_BLC, modulation, lambda layer, *qkv: model.blocks[layer].attn.softmax_attention(
            *qkv, visible_LL))
        runs_L = scale_L <= len(plan.scales_of(layer))
        x_BLC = h_BLC if len(plan.scales_of(layer)) == plan.num_scales else torch.where(runs_L[:, None], h_BLC, x_BLC)
    return model.logits(x_BLC, class_BC)


ROUTES: dict[str, Route] = {"blocks": _blocks, "dense": _dense, "naive": _naive}


@torch.no_grad()
def _difference(model: VAR, label_B: Tensor, x_BLv: Tensor, plan: DepthPlan) -> dict[str, float]:
    """Largest difference of each route's logits to the naive ones."""
    model.eval()
    wanted_BLV = _naive(model, label_B, x_BLv, plan)
    found = {name: (route(model, label_B, x_BLv, plan) - wanted_BLV).abs().max().item()
             for name, route in ROUTES.items()}
    if max(found.values()) > 1e-4 * wanted_BLV.abs().max().item():  # logits of an untrained head are small
        raise SystemExit(f"the routes do not compute the same: {found}")
    return found


_DIGITS = Path(__file__).parents[1] / "workflow/config/digits.yaml"


def _digits_network() -> VAR:
    model = build_transformer(load_config(_DIGITS))
    initialize(model, gamma=1.0)  # with the layers nearly closed, as training starts, all routes would agree
    return model.to(DEVICE)


def _network(depth: int, width: int) -> VAR:
    spec = TransformerSpec(depth=depth, embed_dim=width, num_heads=width // 64, drop_path_rate=0.1 * depth / 24)
    model = VAR(spec, VAR_256, num_classes=1000, vocab_size=4096, z_channels=32)
    initialize(model, gamma=1.0)
    return model.to(DEVICE)


def _summary(what: str, times: list[Times]) -> dict:
    wall, cpu = ([pair[i] for pair in times] for i in range(2))
    return {f"{what}_s": statistics.median(wall), f"{what}_rounds_s": wall,
            f"{what}_cpu_s": statistics.median(cpu), f"{what}_rounds_cpu_s": cpu}


def _ratio(times: list[Times], base: list[Times], kind: str) -> float:
    which = 1 if kind == "cpu_" else 0
    return statistics.median(a[which] / b[which] for a, b in zip(times, base, strict=True))


def _now() -> Times:
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def _since(begin: Times) -> Times:
    end = _now()
    return end[0] - begin[0], end[1] - begin[1]


def _write(output: Path, kind: str, load: list[float], found: dict) -> None:
    """The record, with the one-minute load of the machine before and after each round."""
    made = provenance(experiment=kind, seed=0, settings="", weights_sha256={})
    write_text(output, json.dumps({"kind": kind, **found, "load_average": load, "cpus": os.cpu_count(),
                                   "provenance": made.model_dump()}, indent=2) + "\n")
    print(f"wrote {output}")


if __name__ == "__main__":
    app()
