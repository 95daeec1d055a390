"""The committed baseline against this tree as it is, and against this tree with one thing broken by one step."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT

import varient.config
import varient.sampling
from varient.evaluation import drift
from varient.evaluation.drift import DriftError, Finding, check_drift, report, update_baseline
from varient.models.build import build_classifier
from varient.models.checkpoint import save_weights
from varient.models.quantizer import MultiScaleQuantizer
from varient.plan import DepthPlan
from varient.records import RecordError
from varient.systems.registry import resolve_system

BASELINE = ROOT / "results/baseline"
FEW = 100
"""Images of the checks here; the real one draws them all."""


def _moved(num_images: int = FEW) -> set[str]:
    return {finding.system for finding in check_drift(BASELINE, num_images) if finding.moved}


def test_this_tree_draws_what_was_accepted():
    assert _moved() == set()


def test_a_gpu_is_left_alone(monkeypatch):
    """It rounds otherwise than the CPU that drew the baseline; here whoever asks for one fails."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("VARIENT_DEVICE", "cuda")
    assert _moved() == set()


def _phi_of_the_next_scale(patch):
    """A detail goes through the phi convolution of the scale after it."""
    right = MultiScaleQuantizer.detail

    def wrong(self, k, h_BCpp):
        table = self.phi_of_scale
        self.phi_of_scale = (*table[1:], table[-1])
        try:
            return right(self, k, h_BCpp)
        finally:
            self.phi_of_scale = table

    patch.setattr(MultiScaleQuantizer, "detail", wrong)


def _guidance_one_scale_early(patch):
    """Guidance ramps as if each scale were the next one."""
    right = varient.sampling.guided_logits
    patch.setattr(varient.sampling, "guided_logits",
                  lambda logits, k, pyramid, cfg: right(logits, k + 1, pyramid, cfg))


def _layers_one_too_deep(patch):
    """The inner layers of a subnet are their successors."""
    right = DepthPlan.window.__func__

    def wrong(cls, depth, d, first, last, num_scales, layers=None):
        plan = right(cls, depth, d, first, last, num_scales, layers)
        return cls(depth, tuple((s[0], *(layer + 1 for layer in s[1:-1]), s[-1]) if len(s) < depth else s
                                for s in plan.layers_per_scale))

    patch.setattr(DepthPlan, "window", classmethod(wrong))


def _nucleus_one_token_wider(patch):
    """Top-p keeps one token more than it should."""
    right = varient.sampling.filter_logits

    def wrong(logits, top_k, top_p):
        kept = right(logits, top_k, top_p).isfinite()
        best_left_out = logits.masked_fill(kept, -torch.inf).argmax(-1, keepdim=True)
        return logits.masked_fill(~kept.scatter(-1, best_left_out, True), -torch.inf)

    patch.setattr(varient.sampling, "filter_logits", wrong)


@pytest.mark.parametrize(("fault", "systems"), [
    (_phi_of_the_next_scale, {"variant-d4", "variant-d4-full"}),
    (_guidance_one_scale_early, {"variant-d4", "variant-d4-full"}),
    (_layers_one_too_deep, {"variant-d4"}),
    (_nucleus_one_token_wider, {"variant-d4", "variant-d4-full"}),
])
def test_one_thing_broken_by_one_step_is_seen(fault, systems, monkeypatch):
    fault(monkeypatch)
    assert _moved() == systems


def test_a_score_that_left_its_tolerance_is_seen():
    findings = [Finding("x", "fid", 1.0, 1.05, 0.04), Finding("x", "fid", 1.0, 0.97, 0.04),
                Finding("x", "fid", 1.0, float("nan"), 0.04)]
    assert [finding.moved for finding in findings] == [True, False, True]
    assert report(findings[1:]).splitlines()[2] == "| x | fid | 1 | nan | 0.04 | moved |"


def test_rounding_of_another_machine_is_allowed_and_little_more():
    allowed = [system["changed"] for system in json.loads((BASELINE / "drift.json").read_text())["systems"].values()]
    for finding, changed in zip(check_drift(BASELINE, FEW), allowed, strict=True):
        expected = np.mean(changed) / 5  # of 500 images, a hundred here
        assert expected < finding.tolerance <= max(10 * expected, 5)


def test_a_new_baseline_is_one_call_and_holds_at_once(smoke, tmp_path, monkeypatch):
    monkeypatch.setattr(drift, "NUM_IMAGES", 100)
    monkeypatch.setattr(drift, "VARIANTS", 2)
    torch.manual_seed(0)
    pipeline = resolve_system("variant-d4", smoke).load(None, "fp32")
    for name, network in (("tokenizer", pipeline.tokenizer), ("supernet-d4", pipeline.model),
                          ("classifier-features", build_classifier(smoke))):
        save_weights(tmp_path / f"run/{name}.safetensors", network, {})
    made = update_baseline(smoke, tmp_path / "run", tmp_path / "baseline")
    assert made.num_images == 100 and not any(finding.moved for finding in check_drift(tmp_path / "baseline"))


def test_a_missing_or_damaged_baseline_is_named(tmp_path):
    with pytest.raises(DriftError, match="no baseline"):
        check_drift(tmp_path)
    (tmp_path / "drift.json").write_text("{")
    with pytest.raises((RecordError, varient.config.ConfigError), match="drift.json: not a Baseline"):
        check_drift(tmp_path)


def test_the_command_says_so(tmp_path):
    result = subprocess.run([sys.executable, "-m", "varient", "drift", "--baseline", str(tmp_path)],
                            capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 1 and "no baseline (drift.json)" in result.stderr


@pytest.mark.parametrize("damage", [
    lambda content: content.update(systems={}),
    lambda content: content["systems"]["variant-d4"].update(digests=content["systems"]["variant-d4"]["digests"][:3]),
    lambda content: content["systems"]["variant-d4"].update(scores={}),
    lambda content: content["systems"]["variant-d4"].pop("changed"),
    lambda content: content["systems"]["variant-d4"].update(changed=[501]),
    lambda content: content["systems"]["variant-d4"]["scores_sd"].update(fid=float("inf")),
    lambda content: content["systems"]["variant-d4"]["scores_sd"].update(kid=-1.0),
    lambda content: content["systems"]["variant-d4"]["scores"].update(fid=float("nan")),
])
def test_a_baseline_that_would_compare_nothing_is_refused(tmp_path, damage):
    shutil.copytree(BASELINE, tmp_path / "baseline")
    content = json.loads((BASELINE / "drift.json").read_text())
    damage(content)
    (tmp_path / "baseline/drift.json").write_text(json.dumps(content))
    with pytest.raises(RecordError, match="drift.json: not a Baseline"):
        check_drift(tmp_path / "baseline")


def test_weights_that_are_not_the_baselines_are_named(tmp_path):
    shutil.copytree(BASELINE, tmp_path / "baseline")
    shutil.copy(BASELINE / "tokenizer.safetensors", tmp_path / "baseline/supernet-d4.safetensors")
    with pytest.raises(DriftError, match="supernet-d4.safetensors: missing, or not the file"):
        check_drift(tmp_path / "baseline")
