import contextlib
import math
import os
import signal
import subprocess
import sys

import pytest
import torch
from torch import nn

from varient.config import Optimizer
from varient.training.data import batch_indices
from varient.training.loop import DivergedError, fit, learning_rate

SETTINGS = Optimizer(learning_rate=0.1, batch_size=4)

# A process that trains and tells each step on stdout; it is killed from outside at an arbitrary step.
TRAINING = """
import sys, time, torch
from pathlib import Path
from torch import nn
from varient.config import Optimizer
from varient.training.loop import fit
torch.manual_seed(0)
model = nn.Linear(4, 4)
def loss_of_step(step):
    print(step, flush=True)
    time.sleep(0.002)
    return (model(torch.randn(8, 4)) - torch.randn(8, 4)).square().mean()
fit(model, loss_of_step, steps=200, settings=Optimizer(learning_rate=0.01, batch_size=8), seed=3,
    work_dir=Path(sys.argv[1]), identity="x", title="t", save_every=7)
torch.save(model.state_dict(), sys.argv[2])
"""


def _train(work_dir, output, kill_after=None):
    process = subprocess.Popen([sys.executable, "-c", TRAINING, str(work_dir), str(output)], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
    for line in process.stdout:
        if kill_after is not None and int(line) >= kill_after:
            os.kill(process.pid, signal.SIGKILL)
            break
    process.stdout.close()
    return process.wait()


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path):
    assert _train(tmp_path / "a", tmp_path / "a.pt") == 0
    for kill_after in (61, 133):
        assert _train(tmp_path / "b", tmp_path / "b.pt", kill_after) == -signal.SIGKILL
        assert (tmp_path / "b/state.pt").exists() and not (tmp_path / "b.pt").exists()
    assert _train(tmp_path / "b", tmp_path / "b.pt") == 0
    unbroken, resumed = (torch.load(tmp_path / name, weights_only=True) for name in ("a.pt", "b.pt"))
    assert all(torch.equal(unbroken[key], resumed[key]) for key in unbroken)
    assert not (tmp_path / "b/state.pt").exists()
    assert (tmp_path / "a/losses.json").read_text() == (tmp_path / "b/losses.json").read_text()


def _toy(tmp_path, identity, stop_at=None, steps=10):
    torch.manual_seed(1)
    model, visited = nn.Linear(2, 1), []

    def loss_of_step(step):
        if step == stop_at:
            raise KeyboardInterrupt
        visited.append(step)
        return model(torch.ones(1, 2)).square().sum()

    with contextlib.suppress(KeyboardInterrupt):
        fit(model, loss_of_step, steps=steps, settings=SETTINGS, seed=0, work_dir=tmp_path, identity=identity,
            title="t", save_every=4)
    return visited


def test_a_state_of_other_settings_is_not_resumed(tmp_path):
    _toy(tmp_path, "one", stop_at=6)
    assert _toy(tmp_path, "two") == list(range(10))
    _toy(tmp_path, "one", stop_at=6)
    assert _toy(tmp_path, "one") == list(range(4, 10))


def test_a_loss_that_is_no_number_stops_the_training(tmp_path):
    model = nn.Linear(2, 1)
    with pytest.raises(DivergedError, match="loss is nan at step 0"):
        fit(model, lambda step: model(torch.ones(1, 2)).sum() * math.nan, steps=3, settings=SETTINGS, seed=0,
            work_dir=tmp_path, identity="", title="toy")


def test_learning_rate_over_time():
    cosine = Optimizer(learning_rate=2.0, batch_size=1, schedule="cosine", warmup_steps=4)
    assert [learning_rate(step, 104, cosine) for step in range(4)] == [0.5, 1.0, 1.5, 2.0]
    assert learning_rate(54, 104, cosine) == pytest.approx(1.0)
    assert learning_rate(103, 104, cosine) == pytest.approx(0, abs=1e-3)
    assert learning_rate(99, 100, SETTINGS) == SETTINGS.learning_rate


def test_batches_visit_every_image_once_an_epoch_in_a_new_order():
    epochs = [[batch_indices(step, num_items=21, batch_size=4, seed=0) for step in range(first, first + 5)]
              for first in (0, 5)]
    for epoch in epochs:
        visited = torch.cat(epoch)
        assert len(visited.unique()) == 20
    assert not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))
    with pytest.raises(ValueError, match="batch_size = 30 is above the 21 images"):
        batch_indices(0, num_items=21, batch_size=30, seed=0)


def test_a_training_of_no_steps_is_refused(tmp_path):
    with pytest.raises(ValueError, match="toy: no training step"):
        fit(nn.Linear(1, 1), lambda step: None, steps=0, settings=SETTINGS, seed=0, work_dir=tmp_path, identity="",
            title="toy")
