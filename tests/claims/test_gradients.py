"""Section 3.3 on gradients in full-only layers: what follows from the architecture, and what curves show beside it."""

import numpy as np
import pytest
import torch
from claim_fixtures import DIGITS, IMAGENET, NOTHING, write_instead
from conftest import TINY_PYRAMID, tiny_transformer

from varient.claims import Verdict, judge, write_claims
from varient.claims.arithmetic import _reached, reached_layers
from varient.plan import DepthPlan

PHASES = {"supernet-d16": (5, 15, 5), "supernet-d4": (5, 15, 12)}


def _write(run_dir, network, subnet, *, epochs=None, full=0.1, bridge=(0.14, 0.07)):
    """Curves of a training whose norms for the flexible zone are constant; ``bridge``: before and in phase 3."""
    first, second, third = PHASES[network]
    before, after = bridge
    bridges = [before] * (first + second) + [after] * third
    curves = {"full/flexible": [full] * len(bridges), "subnet/flexible": [subnet] * len(bridges),
              "full/bridge": bridges, "subnet/bridge": bridges}
    (run_dir / f"training-{network}").mkdir(parents=True)
    np.savez_compressed(run_dir / f"training-{network}/curves.npz", **{
        f"gradient_norm/{name}/full_only:{part}": values for name, norms in curves.items()
        for part, values in (("step", np.arange(len(norms), dtype=np.int32)[:epochs]),
                             ("value", np.array(norms, np.float32)[:epochs]))})


def _sentence(run_dir=None, config=DIGITS, claim="3.3.2-gradient"):
    return next(j for j in judge(config, NOTHING, run_dir) if j.id == claim)


@pytest.mark.parametrize("layers", [(0, 2, 5), (0, 2), (1, 3), (0, 1, 2, 3, 4, 5)])
def test_which_layers_the_gradient_reaches_is_what_autograd_says(layers):
    """In phase 3: the loss of the flexible zone alone, under the subnet's plan."""
    model = tiny_transformer(depth=6)
    plan = DepthPlan.bridge(6, len(layers), 3, TINY_PYRAMID.num_scales, layers)
    torch.manual_seed(0)
    x_BLv = torch.randn(2, TINY_PYRAMID.length - 1, 8)
    logits_BLV = model(torch.tensor([0, 1]), x_BLv, plan)
    logits_BLV[:, TINY_PYRAMID.end(3):].log_softmax(-1)[..., 0].sum().backward()
    full_only = [block for at, block in enumerate(model.blocks) if at not in layers]
    reached = [block for block in full_only
               if any(p.grad is not None and p.grad.abs().max() > 1e-6 for p in block.parameters())]
    assert _reached(layers, 6) == (len(reached), len(full_only))


def test_all_are_reached_as_every_subnet_has_the_last_layer():
    assert [reached_layers(depth) for depth in (16, 8, 4, 2)] == [(14, 14), (22, 22), (26, 26), (28, 28)]


@pytest.mark.parametrize("config", [DIGITS, IMAGENET], ids=lambda config: config.name)
def test_that_all_of_it_is_lost_is_contradicted_by_the_architecture(config):
    judgement = _sentence(config=config)
    assert (judgement.verdict, judgement.source) == (Verdict.CONTRADICTS, "arithmetic")
    assert judgement.found == "reaches 14 of 14 full-only layers"
    assert "attend to keys and values of bridge tokens" in judgement.evidence


def test_another_sentence_gives_another_verdict(monkeypatch):
    write_instead(monkeypatch, "3.3.2-gradient", "14", column="means")
    assert _sentence().verdict is Verdict.HOLDS


def test_the_same_is_said_of_training_the_subnet_alone():
    judgement = _sentence(claim="3.3.1-solely")
    assert judgement.verdict is Verdict.CONTRADICTS and judgement.finding == _sentence().finding


def test_what_the_curves_show_stands_beside_it(tmp_path):
    _write(tmp_path, "supernet-d16", 0.025)
    _write(tmp_path, "supernet-d4", 0.05)
    judgement = _sentence(tmp_path)
    assert judgement.verdict is Verdict.CONTRADICTS and judgement.source == "arithmetic"
    assert judgement.found == "reaches 14 of 14 full-only layers"
    # Phase 1: 0.8 full, 0.2 subnet batches.  Phase 2: the share of subnet batches grows to 1, mean 0.627.
    assert ("by phase: supernet-d16 (flexible zone 0.085, 0.053, 0.025; under the full plan 0.1, 0.1, 0.1, under the "
            "subnet plan 0.025, 0.025, 0.025; bridge zone 0.14, 0.14, 0.07; ") in judgement.evidence
    assert "supernet-d4 (flexible zone 0.09, 0.069, 0.05; under the full plan 0.1, 0.1, 0.1, " in judgement.evidence


def test_the_same_norms_under_both_plans_do_not_change_with_their_shares(tmp_path):
    _write(tmp_path, "supernet-d16", 0.1, bridge=(0.14, 0.14))
    judgement = _sentence(tmp_path)
    assert "supernet-d16 (flexible zone 0.1, 0.1, 0.1; under the full plan 0.1, 0.1, 0.1, " in judgement.evidence


def test_how_stable_the_bridge_zones_gradient_is_decides_nothing_in_miniature(tmp_path):
    _write(tmp_path, "supernet-d16", 0.025)
    judgement = _sentence(tmp_path, claim="3.3.2-stable")
    assert (judgement.verdict, judgement.found) == (Verdict.OPEN, "measured (digits): 2.00")
    assert "supernet-d16 (bridge zone 0.14, 0.14, 0.07; under the full plan 0.14, 0.14, 0.07, " in judgement.evidence
    assert _sentence(claim="3.3.2-stable").found == ""


def test_curves_that_do_not_reach_the_end_show_nothing(tmp_path):
    _write(tmp_path, "supernet-d16", 0.024, epochs=22)  # phase 3 has not ended
    assert _sentence(tmp_path) == _sentence(None)


def test_the_page_takes_the_run_folder(tmp_path):
    _write(tmp_path / "run", "supernet-d16", 0.025)
    page = write_claims(DIGITS, NOTHING, tmp_path / "claims", tmp_path / "run")[1].read_text()
    assert ("printed **solely and completely**, arithmetic: **reaches 14 of 14 full-only layers** (`3.3.1-solely`, "
            "`3.3.2-gradient`)") in page and "0.14, 0.14, 0.07" in page
