"""Memory of a training against the tensors that autograd and AdamW keep, and against measured peaks."""

from dataclasses import replace

import pytest
import torch
from training_fixtures import H100, PLANS, PYRAMID, autocast, batch, network

from varient.cost.training_memory import device_memory, kept_bytes, matrix_parameters
from varient.cost.training_setting import TRAINING_PRECISIONS, TrainingSetting
from varient.profiling.memory import MemoryWatch
from varient.training.curves import probed_norms
from varient.training.distributed import blocks, recomputed
from varient.training.tokens import prediction_divergence, scale_losses, token_loss


def _kept_by_autograd(model, shape, plan, rows, precision, recompute):
    """Bytes of the storages that autograd keeps, and those of 16-bit copies of whole matrices."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    matrices = {tuple(parameter.shape) for parameter in model.parameters() if parameter.ndim == 2}
    kept, copies = {}, {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        is_copy = precision == "bf16" and tensor.dtype == torch.bfloat16 and (
            tuple(tensor.shape) in matrices or tuple(tensor.shape[::-1]) in matrices)
        if storage.data_ptr() not in own:
            (copies if is_copy else kept)[storage.data_ptr()] = storage  # held, so that no address is used twice
        return tensor

    label_B, x_BLv, idx_BL = batch(shape, rows)
    with (recomputed(blocks(model) if recompute else []), autocast(precision),
          torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)):
        loss = token_loss(model(label_B, x_BLv, plan), idx_BL)
    assert loss.requires_grad
    return (sum(storage.nbytes() for storage in stored.values()) for stored in (kept, copies))


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("settings", [{}, {"shared_aln": True}, {"attn_l2_norm": False}, {"drop_path_rate": 0.2}])
def test_activations_are_what_autograd_keeps(plan, precision, recompute, settings):
    model, shape = network(**settings)
    kept, copies = _kept_by_autograd(model, shape, plan, 7, precision, recompute)
    estimate = kept_bytes(shape, plan, 7, TRAINING_PRECISIONS[precision], recompute=recompute)
    assert estimate == pytest.approx(kept, rel=0.01)
    if precision == "bf16" and not recompute and plan.is_full:
        # The copy of word_embed is not kept: its input needs no gradient.
        assert copies == 2 * (matrix_parameters(shape) - 8 * 64)


@pytest.mark.parametrize(("plan", "vocab_size"), [(PLANS[0], 128), (PLANS[1], 2048)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("distilled", [False, True])
def test_peak_of_forward_and_backward(plan, vocab_size, precision, recompute, distilled):
    (model, shape), rows = network(vocab_size), 16
    label_B, x_BLv, idx_BL = batch(shape, rows)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    gradients = sum(parameter.grad.nbytes for parameter in model.parameters())
    watch = MemoryWatch([model], torch.device("cpu"))

    def objective():
        logits_BLV = model(label_B, x_BLv, plan)
        loss = token_loss(logits_BLV, idx_BL)
        scale_losses(logits_BLV.detach(), idx_BL, PYRAMID)
        if distilled:
            with torch.no_grad():
                wanted_BLV = model(label_B, x_BLv, PLANS[0])
            loss = loss + prediction_divergence(wanted_BLV, logits_BLV)
        return loss

    with recomputed(blocks(model) if recompute else []), watch:
        with autocast(precision):
            loss = objective()
        before_backward = watch.peak_bytes  # gradients come into sight on the way back
        loss.backward()
    measured = max(before_backward, watch.peak_bytes - gradients)
    memory = device_memory(shape, [plan], rows, TrainingSetting(H100, 1, precision=precision, recompute=recompute),
                           distilled=distilled)
    assert 0.98 * measured < memory.activations + memory.working + memory.weight_copies < 1.2 * measured


@pytest.mark.parametrize("plan", PLANS[:2])
@pytest.mark.parametrize("rows", [2, 16])
@pytest.mark.parametrize("vocab_size", [128, 2048])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("recompute", [False, True])
def test_peak_of_the_gradient_probe(plan, rows, vocab_size, precision, recompute):
    model, shape = network(vocab_size)
    label_B, x_BLv, idx_BL = batch(shape, rows)
    end = PYRAMID.end(3)
    groups = {name: [parameter for layer in layers for parameter in model.blocks[layer].parameters()]
              for name, layers in (("shared", (0, 2, 5)), ("full_only", (1, 3, 4)))}

    def zones():
        logits_BLV = model(label_B, x_BLv, plan)
        return {"bridge": token_loss(logits_BLV[:, :end], idx_BL[:, :end]),
                "flexible": token_loss(logits_BLV[:, end:], idx_BL[:, end:])}

    watch = MemoryWatch([model], torch.device("cpu"))
    with recomputed(blocks(model) if recompute else []), watch:
        with autocast(precision):
            losses = zones()
        probed_norms(losses, groups)
    memory = device_memory(shape, [plan], rows, TrainingSetting(H100, 1, precision=precision, recompute=recompute),
                           probed=True)
    assert 0.94 * watch.peak_bytes < memory.probe < 1.22 * watch.peak_bytes


def test_the_peak_counts_the_probe_of_a_few_rows():
    _, shape = network()

    def memory(rows, probed=True, devices=1, **setting):
        setting = TrainingSetting(H100, devices, precision="fp32", **setting)
        return device_memory(shape, [PLANS[1]], rows, setting, probed=probed)

    few, many, plain = memory(1), memory(1000), memory(1, probed=False)
    assert memory(32).probe == many.probe > few.probe > 0 == plain.probe
    assert many.peak == memory(1000, probed=False).peak
    large = replace(few, probe=10 ** 9)
    assert large.peak == large.weights + large.moments + 10 ** 9
    assert memory(1, devices=2, strategy="fsdp").probe == 0


def test_states_are_those_of_a_real_optimizer():
    model, shape = network()
    optimizer = torch.optim.AdamW(model.parameters())
    label_B, x_BLv, idx_BL = batch(shape, 2)
    token_loss(model(label_B, x_BLv), idx_BL).backward()
    optimizer.step()
    memory = device_memory(shape, PLANS, 2, TrainingSetting(H100, devices=1, precision="fp32"))
    assert memory.weights == sum(parameter.nbytes for parameter in model.parameters())
    assert memory.gradients == sum(parameter.grad.nbytes for parameter in model.parameters())
    assert memory.moments == sum(state[name].nbytes for state in optimizer.state.values()
                                 for name in ("exp_avg", "exp_avg_sq"))
    assert (memory.buckets, memory.gathered, memory.weight_copies) == (0, 0, 0)


def test_fsdp_cuts_states_and_nothing_else():
    _, shape = network()
    ddp, fsdp = (device_memory(shape, PLANS, 4, TrainingSetting(H100, 4, strategy=name)) for name in ("ddp", "fsdp"))
    for name in ("weights", "gradients", "moments"):
        assert getattr(fsdp, name) == pytest.approx(getattr(ddp, name) / 4, abs=16)
    assert (fsdp.activations, fsdp.weight_copies) == (ddp.activations, ddp.weight_copies)
    assert fsdp.buckets == 0 and ddp.buckets == ddp.gradients and fsdp.gathered > 0 == ddp.gathered
