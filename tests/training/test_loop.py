import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch import nn

from varient.config import Optimizer
from varient.files import OutputError
from varient.models.checkpoint import save_weights
from varient.training import distributed
from varient.training import loop as training_loop
from varient.training.curves import Curves, read_curves
from varient.training.data import batch_indices
from varient.training.hardware import Hardware
from varient.training.loop import BusyError, DivergedError, fit, learning_rate, step_seed
from varient.training.state import states_folder

SETTINGS = Optimizer(learning_rate=0.1, batch_size=4)

# A process that trains and tells each step on stdout; it is killed from outside at an arbitrary step.
TRAINING = """
import sys, time, torch
from pathlib import Path
from torch import nn
from varient.config import Optimizer
from varient.training.curves import Curves
from varient.training.hardware import Hardware
from varient.training.loop import fit
torch.manual_seed(0)
model, curves = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)]), Curves({"first": ["0."]})
def loss_of_step(step):
    print(step, flush=True)
    time.sleep(0.002)
    layers = model if torch.rand(()) < 0.5 else model[1:]
    x = torch.randn(8, 4)
    for layer in layers:
        x = layer(x)
    loss = (x - torch.randn(8, 4)).square().mean()
    curves.record("loss/both" if len(layers) == 2 else "loss/one", loss)
    return loss
fit(model, loss_of_step, steps=200, settings=Optimizer(learning_rate=0.01, batch_size=8), seed=3,
    work_dir=Path(sys.argv[1]), identity="x", title="t", hardware=Hardware(save_every=7), curves=curves)
torch.save(model.state_dict(), sys.argv[2])
"""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def _start(work_dir, output):
    return subprocess.Popen([sys.executable, "-c", TRAINING, str(work_dir), str(output)], stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, text=True, env=ENVIRONMENT, cwd=ROOT)


def _run(process, kill_after=None):
    """Steps that the process began, to its end or to its killing."""
    visited = []
    for line in process.stdout:
        visited.append(int(line))
        if visited[-1] == kill_after:
            os.kill(process.pid, signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == (0 if kill_after is None else -signal.SIGKILL)
    return visited


def test_seeds_and_steps_draw_differently():
    draws = set()
    for seed in range(3):
        for step in range(3):
            torch.manual_seed(step_seed(seed, step))
            draws.add(torch.rand(()).item())
    assert len(draws) == 9


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_training_killed_three_times_goes_on_to_the_same_bits(tmp_path, seed):
    a, b = tmp_path / "a", tmp_path / "b"
    unbroken = _start(a, tmp_path / "a.pt")
    kills = sorted(random.Random(seed).sample(range(8, 195), 3))
    for kill_after in kills:
        visited = _run(_start(b, tmp_path / "b.pt"), kill_after)
        # The first starts from scratch, the others go on from the last state, at most a save (and what ran on) back.
        assert visited[0] % 7 == 0 and (visited[0] > 0) == (kill_after != kills[0]), kills
        assert 1 <= len(list(states_folder(b, "x").glob("state-*.pt"))) <= 3 and not (tmp_path / "b.pt").exists()
    assert _run(_start(b, tmp_path / "b.pt"))[0] > 0
    assert _run(unbroken) == list(range(200))
    weights, resumed = (torch.load(tmp_path / name, weights_only=True) for name in ("a.pt", "b.pt"))
    assert all(torch.equal(weights[name], resumed[name]) for name in weights), kills
    assert (a / "losses.json").read_text() == (b / "losses.json").read_text()
    assert not list(b.glob("states-*"))
    _curves_are_those_of_an_unbroken_run(a, b)


def _curves_are_those_of_an_unbroken_run(a, b):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    unbroken, resumed = read_curves(a / "curves.npz"), read_curves(b / "curves.npz")
    assert set(unbroken) == set(resumed) == {"loss", "loss/both", "loss/one", "learning_rate", "gradient_norm",
                                             "gradient_norm/first"}
    events = EventAccumulator(str(b / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    for name, (steps, values) in unbroken.items():
        assert steps.tolist() == resumed[name][0].tolist() and values.tolist() == resumed[name][1].tolist()
        points = events.Scalars(name)
        assert [point.step for point in points] == steps.tolist()
        assert [point.value for point in points] == values.tolist()
    assert unbroken["loss"][0].tolist() == list(range(200)) == sorted(
        unbroken["loss/both"][0].tolist() + unbroken["loss/one"][0].tolist())
    assert unbroken["gradient_norm/first"][1][unbroken["loss/one"][0]].max() == 0


def test_one_process_computes_what_plain_pytorch_does(tmp_path):
    """Bit for bit: draws, clipping, AdamW that skips what has no gradient."""
    settings = Optimizer(learning_rate=0.02, batch_size=4, weight_decay=0.3, clip_norm=0.5, warmup_steps=3)

    def network():
        torch.manual_seed(1)
        return nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

    def loss_with(model):
        def loss_of_step(step):
            x = torch.randn(4, 4)
            for layer in model if torch.rand(()) < 0.5 else model[1:]:
                x = layer(x)
            return (x - torch.randn(4, 4)).square().mean()
        return loss_of_step

    plain = network()
    loss_of_step = loss_with(plain)
    optimizer = torch.optim.AdamW([{"params": [layer.weight for layer in plain], "weight_decay": 0.3},
                                   {"params": [layer.bias for layer in plain], "weight_decay": 0.0}],
                                  lr=0.02, betas=settings.betas)
    expected = []
    for step in range(25):
        torch.manual_seed(step_seed(9, step))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, 25, settings)
        loss = loss_of_step(step)
        loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        expected.append(loss.item())
    ours = network()
    assert fit(ours, loss_with(ours), steps=25, settings=settings, seed=9, work_dir=tmp_path, identity="",
               title="t") == expected
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), plain.parameters(), strict=True))


def _toy(tmp_path, identity="", stop_at=None, steps=10, save_every=4, **options):
    torch.manual_seed(1)
    model, visited = nn.Linear(2, 1), []

    def loss_of_step(step):
        if step == stop_at:
            raise KeyboardInterrupt
        visited.append(step)
        return model(torch.ones(1, 2)).square().sum()

    with contextlib.suppress(KeyboardInterrupt):
        fit(model, loss_of_step, steps=steps, settings=SETTINGS, seed=0, work_dir=tmp_path, identity=identity,
            title="toy", hardware=Hardware(save_every=save_every), **options)
    return visited


def test_a_state_of_another_plan_or_tokenizer_is_reported_and_not_resumed(tmp_path, caplog):
    _toy(tmp_path, "settings:d16:tokenizer1", stop_at=6)
    assert not caplog.records
    assert _toy(tmp_path, "settings:d8:tokenizer2") == list(range(10))
    (record,) = caplog.records
    assert "toy: " in record.getMessage() and "not resumed" in record.getMessage()
    assert "d16 there, d8 here, tokenizer1 there, tokenizer2 here" in record.getMessage()
    assert _toy(tmp_path, "settings:d16:tokenizer1") == list(range(4, 10))  # it was left alone


def _states(tmp_path):
    return sorted(states_folder(tmp_path, "").glob("state-*.pt"))


def test_the_newest_states_are_kept(tmp_path):
    _toy(tmp_path, stop_at=9, save_every=1, keep=2)
    assert [path.name for path in _states(tmp_path)] == ["state-00000008.pt", "state-00000009.pt"]
    assert _toy(tmp_path) == [9]
    assert not list(tmp_path.glob("states-*"))


@pytest.mark.parametrize("damage", [lambda whole: b"", lambda whole: whole[:100], lambda whole: whole[:-1],
                                    lambda whole: whole.replace(b"identity", b"idextity", 1),
                                    lambda whole: whole.replace(b"PK\1\2\0\0\0\0\x08", b"PK\1\2\0\0\0\0\x09", 1),
                                    lambda whole: whole.replace(b"PK\1\2", b"PK\1\3", 1),
                                    lambda whole: whole.replace(b"/data.pkl", b"/data.pk\xff"),
                                    lambda whole: b"<html>" + whole])
def test_a_damaged_state_is_reported_and_the_one_before_it_taken(tmp_path, caplog, damage):
    _toy(tmp_path, stop_at=9, save_every=4)
    newest = _states(tmp_path)[-1]
    newest.write_bytes(damage(newest.read_bytes()))
    assert _toy(tmp_path) == list(range(4, 10))
    assert f"{newest} is damaged" in caplog.text and "going back to the state before it" in caplog.text
    caplog.clear()
    _toy(tmp_path, stop_at=5, save_every=4)
    _states(tmp_path)[0].write_bytes(b"")
    assert _toy(tmp_path) == list(range(10))


def _moment(state, value):
    state["optimizer"]["state"][0]["exp_avg"] = value


@pytest.mark.parametrize("change", [
    lambda state: [torch.zeros(1)], lambda state: {"step": 8}, lambda state: state | {"step": 7},
    lambda state: state | {"step": "8"}, lambda state: state | {"losses": state["losses"][:-1]},
    lambda state: state | {"losses": ["a"] * 8}, lambda state: state | {"curves": {"loss": [torch.zeros(8)]}},
    lambda state: state | {"curves": {"loss": [torch.zeros(8, dtype=torch.int32), torch.zeros(7)]}},
    lambda state: state | {"curves": {1: []}}, lambda state: state | {"model": {}},
    lambda state: state | {"model": {name: tensor[:0] for name, tensor in state["model"].items()}},
    lambda state: state | {"model": {name: tensor * math.nan for name, tensor in state["model"].items()}},
    lambda state: state | {"model": {name: tensor.to_sparse() for name, tensor in state["model"].items()}},
    lambda state: state | {"optimizer": {}}, lambda state: state | {"optimizer": {"state": {9: {}}}},
    lambda state: state | {"scaler": {"scale": 1.0}}, lambda state: state | {"skips_in_a_row": None},
    lambda state: _moment(state, torch.zeros(5)) or state, lambda state: _moment(state, 1.0) or state,
    lambda state: state if state["optimizer"]["state"][0].pop("step") else None,
])
def test_a_state_of_another_form_counts_as_damaged(tmp_path, caplog, change):
    _toy(tmp_path, stop_at=9, save_every=4)
    newest = _states(tmp_path)[-1]
    torch.save(change(torch.load(newest, weights_only=True)), newest)
    assert _toy(tmp_path) == list(range(4, 10))
    (record,) = [record for record in caplog.records if f"{newest} is damaged" in record.getMessage()]
    assert len(record.getMessage().splitlines()) == 1


def test_settings_of_the_optimizer_are_not_taken_from_a_state(tmp_path):
    _toy(tmp_path / "a", stop_at=9, save_every=4)
    _toy(tmp_path / "b", stop_at=9, save_every=4)
    newest = _states(tmp_path / "b")[-1]
    state = torch.load(newest, weights_only=True)
    for group in state["optimizer"]["param_groups"]:
        group |= {"betas": (0.0, 0.0), "weight_decay": 5.0}
    torch.save(state, newest)
    for folder in ("a", "b"):
        assert _toy(tmp_path / folder) == [8, 9]
    assert (tmp_path / "a/losses.json").read_bytes() == (tmp_path / "b/losses.json").read_bytes()


def test_what_a_kill_left_of_a_write_is_cleared(tmp_path):
    work_dir, output = tmp_path / "training-net-d2", tmp_path / "net-d2.safetensors"
    _toy(work_dir, stop_at=9)
    rests = [states_folder(work_dir, "") / ".state-00000008-abcdefgh.pt", work_dir / ".epoch-5-k_3xyz12.safetensors",
             tmp_path / ".net-d2-abcdefgh.safetensors"]
    for rest in rests:
        rest.write_bytes(b"half")
    assert _toy(work_dir, stop_at=9, output=output) == [8]
    assert not any(rest.exists() for rest in rests)


def test_what_another_training_is_writing_beside_the_result_stays(tmp_path):
    writing = tmp_path / ".net-d2-p50-abcdefgh.safetensors"
    writing.write_bytes(b"half")
    _toy(tmp_path / "work", output=tmp_path / "net-d2.safetensors")
    assert writing.exists()
    _toy(tmp_path / "work", output=tmp_path / "net-d2-p50.safetensors")
    assert not writing.exists()


def test_a_result_that_cannot_be_written_costs_no_training(tmp_path):
    def full_disk(losses):
        raise OutputError("no space left")

    with pytest.raises(OutputError):
        _toy(tmp_path, finish=full_disk)
    written = []
    assert _toy(tmp_path, finish=written.append) == [8, 9]
    assert [len(losses) for losses in written] == [10]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_before_the_weights(tmp_path, value):
    model = nn.Linear(2, 1)
    before = model.weight.clone()
    with pytest.raises(DivergedError, match=f"toy: loss is {value} at step 2"):
        fit(model, lambda step: model(torch.zeros(1, 2)).sum() * 0 + (value if step == 2 else 1), steps=3,
            settings=SETTINGS.model_copy(update={"weight_decay": 0.0}), seed=0, work_dir=tmp_path, identity="",
            title="toy")
    assert torch.equal(model.weight, before)


def test_a_gradient_that_is_no_number_stops_before_the_weights(tmp_path):
    model = nn.Linear(2, 1)
    with pytest.raises(DivergedError, match="toy: the gradient's norm is (nan|inf) at step 0"):
        fit(model, lambda step: (model(torch.zeros(1, 2)) - model.bias).sum().sqrt(), steps=3, settings=SETTINGS,
            seed=0, work_dir=tmp_path, identity="", title="toy")
    assert model.weight.isfinite().all()


class _Scaled(distributed.Accelerator):
    """An accelerator with torch's gradient scaler on a CPU, where accelerate has none."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0 ** 127, growth_interval=4)


def _scaled(tmp_path, stop_at=None, factor=10.0):
    torch.manual_seed(1)
    model, curves = nn.Linear(2, 1), Curves()

    def loss_of_step(step):
        if step == stop_at:
            raise KeyboardInterrupt
        return (model(torch.randn(4, 2)) * factor).square().mean()

    with contextlib.suppress(KeyboardInterrupt):
        fit(model, loss_of_step, steps=20, settings=SETTINGS, seed=0, work_dir=tmp_path, identity="", title="toy",
            hardware=Hardware(save_every=3), curves=curves)
    return model


def test_updates_that_overflow_are_left_out_counted_and_resumed(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(distributed, "Accelerator", _Scaled)
    unbroken = _scaled(tmp_path / "a")
    skipped = read_curves(tmp_path / "a/curves.npz")["skipped"]
    assert skipped[0].tolist() == list(range(20)) and 3 < skipped[1].sum() < 17
    assert f"toy: {int(skipped[1].sum())} of 20 updates were left out" in caplog.text
    _scaled(tmp_path / "b", stop_at=8)
    resumed = _scaled(tmp_path / "b")
    assert all(torch.equal(a, b) for a, b in zip(unbroken.parameters(), resumed.parameters(), strict=True))
    assert read_curves(tmp_path / "b/curves.npz")["skipped"][1].tolist() == skipped[1].tolist()


def test_a_scaled_probe_measures_the_gradient_itself_also_where_the_step_overflows(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "Accelerator", _Scaled)
    torch.manual_seed(1)
    model = nn.Linear(2, 1)

    def loss(step, part=None):
        return (model(torch.randn(4, 2)) * 10).square().mean()

    curves = Curves({"all": ["weight", "bias"]}, probe=lambda step, part: [{"zone": loss(step)}], probe_every=1)
    fit(model, loss, steps=20, settings=SETTINGS, seed=0, work_dir=tmp_path, identity="", title="toy", curves=curves)
    found = read_curves(tmp_path / "curves.npz")
    (steps, probed), skipped = found["gradient_norm/zone/all"], found["skipped"][1] == 1
    assert steps.tolist() == list(range(20)) and 3 < skipped.sum() < 17 and skipped[0]
    np.testing.assert_allclose(probed[~skipped], found["gradient_norm"][1][~skipped], rtol=1e-5)
    torch.manual_seed(1)
    model = nn.Linear(2, 1)
    torch.manual_seed(step_seed(0, 0))
    loss(0).backward()
    expected = nn.utils.get_total_norm([parameter.grad for parameter in model.parameters()])
    assert probed[0] == pytest.approx(expected.item(), rel=1e-5)


def test_a_training_that_overflows_at_any_scale_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "Accelerator", _Scaled)
    monkeypatch.setattr(training_loop, "MAX_SKIPS_IN_A_ROW", 3)
    with pytest.raises(DivergedError, match="4 updates in a row were left out up to step 3"):
        _scaled(tmp_path, factor=1e6)


def test_learning_rate_over_time():
    cosine = Optimizer(learning_rate=2.0, batch_size=1, schedule="cosine", warmup_steps=4)
    assert [learning_rate(step, 104, cosine) for step in range(4)] == [0.5, 1.0, 1.5, 2.0]
    assert learning_rate(54, 104, cosine) == pytest.approx(1.0)
    assert learning_rate(103, 104, cosine) == pytest.approx(1 - math.cos(math.pi / 100))  # a step before zero
    assert learning_rate(99, 100, SETTINGS) == SETTINGS.learning_rate


def test_batches_visit_every_image_once_an_epoch_in_a_new_order():
    epochs = [[batch_indices(step, num_items=21, batch_size=4, seed=0) for step in range(first, first + 5)]
              for first in (0, 5)]
    for epoch in epochs:
        visited = torch.cat(epoch)
        assert len(visited.unique()) == 20
    assert not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))
    with pytest.raises(ValueError, match="batch_size = 30 is above the number of images, 21"):
        batch_indices(0, num_items=21, batch_size=30, seed=0)


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"steps": 0}, ValueError, "toy: no training step"),
    ({"loss_of_part": lambda step, part: None}, TypeError, "exactly one of loss_of_step and loss_of_part"),
    ({"keep": 0}, ValueError, "keep = 0 must be at least 1"),
    ({"precision": "fp16"}, ValueError, "precision = fp16 needs a GPU"),
    ({"curves": Curves({"deep": ["blocks."]})}, ValueError, "'deep': no parameter's name begins with 'blocks.'"),
])
def test_unusable_arguments_are_refused(tmp_path, options, error, message):
    model = nn.Linear(1, 1)
    with pytest.raises(error, match=message):
        fit(model, lambda step: model(torch.ones(1, 1)).sum(), **{
            "steps": 1, "settings": SETTINGS, "seed": 0, "work_dir": tmp_path, "identity": "", "title": "toy",
            **options})


def test_a_network_without_blocks_is_not_recomputed(tmp_path):
    model = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="Linear has no list of 'blocks'"):
        fit(model, loss_of_part=lambda step, part: model(torch.ones(1, 1)).sum(), steps=1, settings=SETTINGS, seed=0,
            work_dir=tmp_path, identity="", title="toy", hardware=Hardware(recompute=True))


@pytest.mark.parametrize("hardware", [Hardware("cuda"), Hardware(micro_batch=1), Hardware(strategy="fsdp"),
                                      Hardware(recompute=True)])
def test_a_loss_of_whole_batches_runs_on_one_cpu_whatever_the_hardware_is_for_others(tmp_path, monkeypatch, caplog,
                                                                                    hardware):
    model = nn.Linear(2, 1)

    def run(folder, **options):
        torch.manual_seed(1)
        model.reset_parameters()
        return fit(model, lambda step: model(torch.ones(4, 2)).square().sum(), steps=3, settings=SETTINGS, seed=0,
                   work_dir=tmp_path / folder, identity="", title="toy", **options)

    start = run("plain", hardware=Hardware())
    assert not caplog.records
    assert run("elsewhere", hardware=hardware) == start
    assert "toy: its loss takes whole batches, so it runs on the CPU" in caplog.text
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="toy: its loss takes whole batches, so it runs in one process, not in 2"):
        run("two", hardware=hardware)


def _weights(path, identity):
    def finish(losses):
        save_weights(path, nn.Linear(1, 1), {"settings": identity})
    return {"output": path, "finish": finish}


def test_a_finished_training_is_not_done_again(tmp_path, caplog):
    output, work_dir = tmp_path / "net.safetensors", tmp_path / "training"
    assert len(_toy(work_dir, "a", **_weights(output, "a"))) == 10
    written = output.read_bytes()
    assert _toy(work_dir, "a", **_weights(output, "a")) == []
    assert f"toy: {output} is there already, of the same settings and inputs" in caplog.text
    assert output.read_bytes() == written
    assert len(_toy(work_dir, "b", **_weights(output, "b"))) == 10  # of other settings
    whole = output.read_bytes()
    for damaged in (whole[:20], whole[:-1] + bytes([whole[-1] ^ 1]), b"<html>"):
        output.write_bytes(damaged)
        assert len(_toy(work_dir, "b", **_weights(output, "b"))) == 10


def test_a_result_that_was_taken_away_is_there_again_without_training(tmp_path, monkeypatch, caplog):
    """As after a training that outlived Snakemake, which then removes what it did not see completed."""
    output, work_dir = tmp_path / "net.safetensors", tmp_path / "training"

    def run(identity="a"):
        return len(_toy(work_dir, identity, **_weights(output, identity)))

    assert run() == 10
    written = output.read_bytes()
    output.unlink()
    assert run() == 0 and output.read_bytes() == written and str(work_dir / "result-") in caplog.text
    output.unlink()
    monkeypatch.setattr("varient.training.result.sources_digest", lambda *modules: "other")
    assert run() == 10  # by other code
    output.unlink()
    assert run("b") == 10  # of other settings
    (kept,) = work_dir.glob("result-*")
    output.unlink()
    kept.write_bytes(written[:-1])
    assert run("b") == 10
    output.unlink()
    next(work_dir.glob("result-*")).unlink()
    assert run("b") == 10


def test_two_trainings_in_one_folder_are_kept_apart(tmp_path):
    first = _start(tmp_path, tmp_path / "first.pt")
    first.stdout.readline()
    os.kill(first.pid, signal.SIGSTOP)
    with pytest.raises(BusyError, match=rf"toy: another training is running in {tmp_path}; wait until it has ended, "
                                        rf"or end it: process {first.pid} on "):
        _toy(tmp_path)
    os.kill(first.pid, signal.SIGCONT)
    _run(first)
    assert len(_toy(tmp_path)) == 10


def test_going_on_with_other_code_is_said_and_changes_nothing_else(tmp_path, monkeypatch, caplog):
    _toy(tmp_path / "a", stop_at=9)
    _toy(tmp_path / "b", stop_at=9)
    assert _toy(tmp_path / "a") == [8, 9] and not caplog.records
    monkeypatch.setattr(training_loop, "sources_digest", lambda *modules: "other")
    assert _toy(tmp_path / "b") == [8, 9]
    (record,) = caplog.records
    assert "toy: the code of this training is not the one that saved step 8" in record.getMessage()
    assert (tmp_path / "a/losses.json").read_text() == (tmp_path / "b/losses.json").read_text()


def test_losses_are_left_beside_the_curves(tmp_path):
    _toy(tmp_path)
    losses = json.loads((tmp_path / "losses.json").read_text())
    assert read_curves(tmp_path / "curves.npz")["loss"][1].tolist() == losses
