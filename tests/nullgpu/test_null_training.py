"""Trainings in float16 on GPUs that do nothing, from the command line to the weight file."""

import json

import pytest
import yaml
from conftest import ROOT
from nullgpu.machine import HERE

from varient.models.checkpoint import read_description, save_weights
from varient.systems.pipeline import random_pipeline
from varient.training.curves import read_curves

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("processes", "strategy", "recompute"), [(1, "ddp", 0), (2, "ddp", 1), (2, "fsdp", 1)])
def test_a_supernet_trains_in_float16_to_its_weight_file(null_machine, smoke, tmp_path, processes, strategy, recompute):
    pipeline = random_pipeline(smoke, smoke.plan())
    save_weights(tmp_path / "tokenizer.safetensors", pipeline.tokenizer, {})
    save_weights(tmp_path / "base.safetensors", pipeline.model, {})
    settings = yaml.safe_load((ROOT / "workflow/config/smoke.yaml").read_text())
    settings["supernet"]["training"]["precision"] = "fp16"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes] if processes > 1 else []
    done = null_machine.start(
        *launcher, HERE / "train.py", "train", "supernet", "--config", tmp_path / "config.yaml", "--depth", 4,
        tmp_path / "tokenizer.safetensors", tmp_path / "base.safetensors", "-o", tmp_path / "supernet-d4.safetensors",
        gpus=processes, VARIENT_DEVICE="cuda", VARIENT_STRATEGY=strategy, VARIENT_RECOMPUTE=str(recompute),
        VARIENT_MICRO_BATCH="8")
    assert done.returncode == 0, done.stderr[-3000:]
    assert read_description(tmp_path / "supernet-d4.safetensors")["final_loss"] == 0  # as null GPUs answer
    curves = read_curves(tmp_path / "training-supernet-d4/curves.npz")
    assert len(curves["loss"][0]) == len(json.loads((tmp_path / "training-supernet-d4/losses.json").read_text())) == 8
    assert not curves["skipped"][1].any()
