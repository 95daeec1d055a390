import subprocess
import sys

import pytest
from conftest import ROOT

CONFIG = str(ROOT / "workflow/config/smoke.yaml")


def _varient(*arguments):
    return subprocess.run([sys.executable, "-m", "varient", *arguments], capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize(("arguments", "message"), [
    (["real", "--config", "none.yaml", "--split", "train", "-o", "x"], "none.yaml: no such config file"),
    (["train", "classifier", "--config", CONFIG, "--role", "critic", "-o", "x"], "role 'critic' is unknown"),
    (["train", "supernet", "--config", CONFIG, "--depth", "5", "t", "b", "-o", "x"], "no entry for depth 5"),
    (["train", "base", "--config", CONFIG, "none.safetensors", "-o", "x"], "none.safetensors"),
    (["generate", "--config", CONFIG, "--system", "var-d7", "--shard", "0", "-o", "x"], "base network of smoke"),
    (["generate", "--config", CONFIG, "--system", "var-d6", "--shard", "2", "-o", "x"], r"shard 2 is outside 0..1"),
    (["score", "--config", CONFIG, "none.npz", "--reference", "r.npz", "-o", "x"], "none.npz: no such file"),
    (["score", "none.npz", "--reference", "r.npz", "-o", "x"], "score needs either --config"),
    (["score", "none.npz", "--reference", "r.npz", "--protocol", "adm", "-o", "x"], "none.npz: no such file"),
    (["score", "none.npz", "--reference", "r.npz", "--protocol", "adm", "--test", "t.npz", "-o", "x"], "--test goes"),
    (["real", "--config", CONFIG, "--split", "test", "-o", "x"], "split 'test' is unknown; known: train, holdout"),
    (["export", "none.npz", "--format", "jpg", "-o", "x"], "format 'jpg' is unknown; known: adm, png"),
    (["train", "network", "--config", CONFIG, "dit2", "-o", "x"], "network 'dit2' is not one of smoke's: code-small"),
    (["table", "--config", CONFIG, "9", "-o", "x"], "table 9 is unknown"),
    (["sample", "--config", CONFIG, "--class", "10", "--depth", "4", "-o", "x.png"], "class 10 is outside 0..9"),
    (["sample", "--config", CONFIG, "--class", "1", "--depth", "7", "-o", "x.png"], "d = 7 is above the full depth"),
    (["sample", "--config", CONFIG, "--class", "1", "--depth", "4", "--bridge", "11", "-o", "x.png"], "N = 11"),
])
def test_bad_input_ends_in_one_line_and_leaves_nothing(arguments, message, tmp_path):
    result = _varient(*arguments[:-1], str(tmp_path / arguments[-1]))
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_check_prints_the_whole_config():
    result = _varient("check", "--config", CONFIG)
    assert result.returncode == 0
    assert '"top_p": 0.96' in result.stdout
