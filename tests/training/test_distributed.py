"""The same training on one process and on two real ones (gloo), which this file starts with itself as their program."""

import atexit
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, tiny_transformer

from varient.config import Optimizer
from varient.plan import DepthPlan
from varient.training import distributed
from varient.training.curves import Curves, read_curves
from varient.training.data import batch_indices
from varient.training.distributed import Part, is_main_process
from varient.training.hardware import Hardware, accumulation_steps
from varient.training.loop import DivergedError, fit
from varient.training.tokens import drop_labels, token_loss

STEPS, BATCH = 10, 8
# Decay and learning rate so high that an update too many, or one too few, cannot hide below the tolerance.
SETTINGS = Optimizer(learning_rate=3e-3, batch_size=BATCH, weight_decay=2.0)
FULL, SUBNET = DepthPlan.full(4, 5), DepthPlan.bridge(4, 2, 0, 5)  # N = 0: a subnet batch leaves two blocks unused
SHARED, FULL_ONLY = ("blocks.0.", "blocks.3."), ("blocks.1.", "blocks.2.")
SUBNET_STEPS = (2, 3, 6, 7, 9)


class Stop(Exception):
    """Ends a training in the middle."""


def train(work_dir, *, batch=BATCH, stop_at=None, spoil=None, probed=False, first_step=0, look=None, gathered=None,
          **options):
    """Train a tiny supernet on fixed tokens; returns losses and weights.

    Args:
        look: called in the loss of each part with the part and the network.
        gathered: gets, of each value of the network's gathered state after two steps, whether it is there.
    """
    model = tiny_transformer(depth=4)
    data = torch.Generator().manual_seed(5)
    label_N = torch.randint(5, (40,), generator=data)
    x_NLv = torch.randn(40, model.pyramid.length - 1, 8, generator=data)
    idx_NL = torch.randint(32, (40, model.pyramid.length), generator=data)

    def loss_of_part(step, part):
        if step == stop_at:
            raise Stop
        visited.append(step)
        if look:
            look(part, model)
        chosen = batch_indices(step, num_items=40, batch_size=batch, seed=1)
        label_B = drop_labels(label_N[chosen], 0.3, 5)
        label_B, x_BLv, idx_BL = part.rows(label_B, x_NLv[chosen], idx_NL[chosen])
        subnet = step in SUBNET_STEPS
        loss = token_loss(model(label_B, x_BLv, SUBNET if subnet else FULL), idx_BL)
        curves.record("loss/subnet" if subnet else "loss/full", loss)
        return loss * torch.nan if spoil is not None and part.index == spoil else loss

    def zones(step, part):
        label_B, x_BLv, idx_BL = part.rows(label_N[:BATCH], x_NLv[:BATCH], idx_NL[:BATCH])
        logits_BLV = model(label_B, x_BLv, SUBNET)
        late = slice(2, None)
        return [{"bridge": token_loss(logits_BLV[:, :2], idx_BL[:, :2]),
                 "flexible": token_loss(logits_BLV[:, late], idx_BL[:, late])}]

    def before_step(step):
        if gathered is not None and step == 2:
            gathered.extend(value is not None for value in distributed.whole(model.state_dict()).values())

    groups = {"shared": SHARED, "full_only": FULL_ONLY}
    curves = Curves(groups, probe=zones, probe_every=4) if probed else Curves(groups)
    visited = []
    losses = fit(model, loss_of_part=loss_of_part, steps=STEPS, settings=SETTINGS.model_copy(
        update={"batch_size": batch}), seed=2, work_dir=work_dir, identity="a:b", title="toy",
        curves=curves, before_step=before_step, **options)
    assert visited[0] == first_step
    return losses, {name: tensor.clone() for name, tensor in model.state_dict().items()}


def _shares(model) -> list[float]:
    """Share of each block's gradient that this process holds, by which of them it has any of."""
    gradients = [block.ffn.fc1.weight.grad for block in model.blocks]
    return [gradient.to_local().numel() / gradient.numel() for gradient in gradients if gradient is not None]


def in_one_of_two_processes(out: Path) -> None:
    """What each of the two processes does; the main one writes the results."""
    results, calls, sharded, gathered, left = {}, [], [], [], []
    for name, options in {
        "ddp": {"hardware": Hardware(), "probed": True, "finish": calls.append},
        "accumulated": {"hardware": Hardware(micro_batch=2)},
        "recomputed": {"hardware": Hardware(recompute=True)},
        "bf16": {"hardware": Hardware(), "precision": "bf16"},
        "fsdp": {"hardware": Hardware(strategy="fsdp"), "probed": True, "gathered": gathered},
        "fsdp-recomputed": {"hardware": Hardware(strategy="fsdp", recompute=True, micro_batch=2),
                            "look": lambda part, model: sharded.append(_shares(model)) if part.index % 2 else None},
    }.items():
        results[name] = train(out / name, **options)
    for strategy in ("ddp", "fsdp"):
        name = f"{strategy}-resumed"
        try:
            train(out / name, stop_at=8, hardware=Hardware(strategy=strategy, save_every=3))
        except Stop:
            torch.distributed.barrier()
            if is_main_process():
                shutil.copytree(out / name, out / f"left-{strategy}")
            torch.distributed.barrier()
        results[name] = train(out / name, first_step=6, hardware=Hardware(strategy=strategy))
    errors = {}
    distributed.atexit = SimpleNamespace(register=left.append, unregister=lambda function: None)
    for name, options in {"odd": {"batch": 5}, "nan": {"spoil": 1}}.items():
        try:
            train(out / name, hardware=Hardware(), **options)
        except (ValueError, DivergedError) as error:
            errors[name] = f"{type(error).__name__}: {error}"
    try:
        fit(tiny_transformer(), lambda step: None, steps=1, settings=SETTINGS, seed=0, work_dir=out / "whole",
            identity="", title="toy", hardware=Hardware())
    except ValueError as error:
        errors["whole"] = str(error)
    errors["left"], distributed.atexit = len(left), atexit
    train(out / "well", hardware=Hardware())
    (out / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(
        {"errors": errors, "finished": len(calls), "main": is_main_process(), "sharded": sharded,
         "gathered": gathered}))
    if is_main_process():
        torch.save(results, out / "results.pt")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    out = tmp_path_factory.mktemp("two")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__, str(out)],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}", "OMP_NUM_THREADS": "1",
             "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return out


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    out = tmp_path_factory.mktemp("one")
    return out, train(out / "plain", probed=True, hardware=Hardware())


def _same(results, reference):
    losses, weights = results
    np.testing.assert_allclose(losses, reference[0], atol=1e-5, rtol=0)
    assert list(weights) == list(reference[1])
    # AdamW divides a gradient by its own size, so rounding of one near zero moves a weight by a share of the learning
    # rate.  A zero-filled gradient, a wrong mean or a doubled part cost whole learning rates.
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, reference[1][name], atol=0.05 * SETTINGS.learning_rate, rtol=0,
                                   msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "accumulated", "recomputed", "fsdp", "fsdp-recomputed", "ddp-resumed",
                                  "fsdp-resumed"])
def test_two_processes_train_like_one(two_processes, one_process, name):
    _same(torch.load(two_processes / "results.pt", weights_only=True)[name], one_process[1])


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_resumed_run_of_two_processes_ends_on_the_same_bits(two_processes, strategy):
    results = torch.load(two_processes / "results.pt", weights_only=True)
    (losses, weights), (resumed_losses, resumed_weights) = results[strategy], results[f"{strategy}-resumed"]
    assert losses == resumed_losses
    assert all(torch.equal(weights[name], resumed_weights[name]) for name in weights)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_one_process_goes_on_where_two_stopped(two_processes, one_process, strategy):
    work_dir, first = two_processes / f"left-{strategy}", []
    results = train(work_dir, first_step=6, hardware=Hardware(), finish=first.append)
    assert first and first[0] == results[0]
    _same(results, one_process[1])
    steps, _ = read_curves(work_dir / "curves.npz")["loss"]
    assert steps.tolist() == list(range(STEPS))


@pytest.mark.slow
def test_bf16_stays_near_fp32_and_is_not_fp32(two_processes, one_process):
    losses, weights = torch.load(two_processes / "results.pt", weights_only=True)["bf16"]
    assert all(tensor.dtype == torch.float32 for tensor in weights.values())
    far = np.abs(np.array(losses) - one_process[1][0])
    assert 1e-6 < far.max() < 0.1


@pytest.mark.slow
def test_curves_are_the_same_on_one_process_and_two(two_processes, one_process):
    ours, theirs = (read_curves(folder / "curves.npz") for folder in (two_processes / "ddp", one_process[0] / "plain"))
    assert set(ours) == set(theirs) == {
        "loss", "loss/full", "loss/subnet", "learning_rate", "gradient_norm", "gradient_norm/shared",
        "gradient_norm/full_only", "gradient_norm/bridge/shared", "gradient_norm/bridge/full_only",
        "gradient_norm/flexible/shared", "gradient_norm/flexible/full_only"}
    for name, (steps, values) in ours.items():
        assert steps.tolist() == theirs[name][0].tolist()
        np.testing.assert_allclose(values, theirs[name][1], atol=2e-5, rtol=1e-4)
    assert ours["loss/subnet"][0].tolist() == list(SUBNET_STEPS)
    assert ours["gradient_norm/flexible/shared"][0].tolist() == [0, 4, 8]
    # What a subnet batch leaves out has no gradient at all.
    full_only = ours["gradient_norm/full_only"][1]
    assert [step for step in range(STEPS) if full_only[step] == 0] == list(SUBNET_STEPS)


@pytest.mark.slow
def test_sharded_networks_have_the_same_curves_but_no_probe(two_processes, one_process):
    ours, theirs = (read_curves(folder / "curves.npz") for folder in (two_processes / "fsdp", one_process[0] / "plain"))
    assert set(theirs) - set(ours) == {name for name in theirs if "/bridge/" in name or "/flexible/" in name}
    for name, (_, values) in ours.items():
        np.testing.assert_allclose(values, theirs[name][1], atol=2e-5, rtol=1e-4)


def test_a_probe_changes_no_bit(one_process, tmp_path):
    losses, weights = train(tmp_path, hardware=Hardware())
    assert losses == one_process[1][0]
    assert all(torch.equal(tensor, one_process[1][1][name]) for name, tensor in weights.items())


@pytest.mark.slow
def test_both_processes_refuse_what_cannot_be_and_one_writes(two_processes):
    ranks = [json.loads((two_processes / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    for rank in ranks:
        assert "toy: a batch of 5 cannot be shared equally by 2 processes; start 1 of them" in rank["errors"]["odd"]
        assert "DivergedError: toy: loss is nan at step 0" in rank["errors"]["nan"]
        assert "its loss takes whole batches, so it runs in one process, not in 2" in rank["errors"]["whole"]
    assert [(rank["main"], rank["finished"]) for rank in ranks] == [(True, 1), (False, 0)]


@pytest.mark.slow
def test_a_process_that_ends_in_an_error_does_not_wait_for_the_others(two_processes):
    """To leave the group is an act of all, and the others may not know of the error."""
    ranks = [json.loads((two_processes / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    assert [rank["errors"]["left"] for rank in ranks] == [0, 0]


@pytest.mark.slow
def test_the_whole_state_is_in_the_main_process_alone(two_processes):
    gathered = [json.loads((two_processes / f"rank-{rank}.json").read_text())["gathered"] for rank in (0, 1)]
    assert [set(there) for there in gathered] == [{True}, {False}]


@pytest.mark.slow
def test_sharded_gradients_are_shared_out_after_each_micro_batch(two_processes):
    for rank in (0, 1):
        shares = json.loads((two_processes / f"rank-{rank}.json").read_text())["sharded"]
        assert [len(of_step) for of_step in shares] == [2 if step in SUBNET_STEPS else 4 for step in range(STEPS)]
        assert {share for of_step in shares for share in of_step} == {0.5}


def test_micro_batches_in_one_process_train_like_the_whole_batch(one_process, tmp_path):
    _same(train(tmp_path, hardware=Hardware(micro_batch=3)), one_process[1])  # 4 parts of 2 rows


def test_recomputing_in_one_process_changes_no_bit(one_process, tmp_path):
    _, weights = train(tmp_path, hardware=Hardware(recompute=True))
    assert all(torch.equal(tensor, one_process[1][1][name]) for name, tensor in weights.items())


def test_stochastic_depth_is_drawn_apart_in_each_part():
    whole, parts = torch.arange(8), [Part(index, 2, seed=7) for index in (0, 1)]
    drawn = []
    for part in parts:
        torch.manual_seed(0)
        (rows,) = part.rows(whole)
        assert rows.tolist() == list(range(4 * part.index, 4 * part.index + 4))
        drawn.append(torch.rand(4))
    assert not torch.equal(*drawn)
    torch.manual_seed(0)
    expected = torch.rand(4)
    torch.manual_seed(0)
    assert Part().rows(whole)[0] is whole or torch.equal(Part().rows(whole)[0], whole)
    assert torch.equal(torch.rand(4), expected)
    with pytest.raises(ValueError, match="a batch of 8 rows cannot be cut into 3 equal parts"):
        Part(0, 3).rows(whole)


@pytest.mark.parametrize(("batch", "processes", "micro_batch", "expected"), [
    (1024, 8, None, 1), (1024, 8, 128, 1), (1024, 8, 32, 4), (1024, 1, 100, 16), (1024, 64, 128, 1), (30, 2, 4, 5)])
def test_accumulation_keeps_the_batch(batch, processes, micro_batch, expected):
    assert accumulation_steps(batch, processes, micro_batch, "t") == expected


@pytest.mark.parametrize(("batch", "processes", "usable"), [(1024, 7, 4), (4, 8, 4), (9, 2, 1)])
def test_processes_that_do_not_divide_the_batch_are_refused(batch, processes, usable):
    with pytest.raises(ValueError, match=f"t: a batch of {batch} cannot be shared equally by {processes} processes; "
                                         f"start {usable} of them"):
        accumulation_steps(batch, processes, None, "t")


def test_hardware_is_read_from_the_environment(monkeypatch):
    assert Hardware.from_environment() == Hardware("cpu", None, "ddp", False, 0, 200)
    for name, value in {"DEVICE": "cuda", "MICRO_BATCH": "32", "STRATEGY": "fsdp", "RECOMPUTE": "1", "WORKERS": "3",
                        "SAVE_EVERY": "50"}.items():
        monkeypatch.setenv(f"VARIENT_{name}", value)
    assert Hardware.from_environment() == Hardware("cuda", 32, "fsdp", True, 3, 50)


@pytest.mark.parametrize(("options", "message"), [
    ({"hardware": Hardware(), "precision": "fp16"}, "precision = fp16 needs a GPU"),
    ({"hardware": Hardware(strategy="fsdp")}, "strategy = fsdp needs at least 2 processes"),
    pytest.param({"hardware": Hardware("cuda")}, "torch sees no GPU here",
                 marks=pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")),
])
def test_hardware_that_is_not_there_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        train(tmp_path, **options)
    train(tmp_path, hardware=Hardware())  # and nothing of the refused run stays behind


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_accelerates_own_configuration_is_not_taken_silently(tmp_path, monkeypatch, name):
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(ValueError, match=f"accelerate's configuration asks for {name}"):
        train(tmp_path, hardware=Hardware())


def test_ddp_holds_gradients_once():
    """Apart from its buckets they would take as much memory as the weights once more."""
    with distributed.processes(Hardware(), "fp32", torch.nn.Linear(1, 1)) as accelerator:
        assert accelerator.ddp_handler.gradient_as_bucket_view


def test_a_training_on_a_gpu_computes_float32_as_such(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    distributed.check_device("cuda")
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_gpu_trains_in_16_bits(tmp_path, one_process, precision):
    losses, _ = train(tmp_path, hardware=Hardware("cuda"), precision=precision)
    assert np.abs(np.array(losses) - one_process[1][0]).max() < 0.1


if __name__ == "__main__":
    torch.set_num_threads(1)
    in_one_of_two_processes(Path(sys.argv[1]))
