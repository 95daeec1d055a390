"""Section 3.3.2's sentence about full-only layers, from curves made up for the tests."""

import numpy as np
import pytest
from claim_fixtures import DIGITS, IMAGENET, NOTHING

from varient.claims import Verdict, judge, write_claims

PHASES = {"supernet-d16": (5, 15, 5), "supernet-d4": (5, 15, 12)}


def _write(run_dir, network, in_third, *, epochs=None, bridge=0.07):
    """Curves with a norm of 0.1 before phase 3."""
    first, second, third = PHASES[network]
    flexible = np.array([0.1] * (first + second) + [in_third] * third, np.float32)[:epochs]
    curves = {"flexible": flexible, "bridge": np.full_like(flexible, bridge)}
    (run_dir / f"training-{network}").mkdir(parents=True)
    np.savez_compressed(run_dir / f"training-{network}/curves.npz", **{
        f"gradient_norm/{zone}/full_only:{part}": values for zone, norms in curves.items()
        for part, values in (("step", np.arange(len(norms), dtype=np.int32)), ("value", norms))})


def _sentence(run_dir, config=DIGITS):
    return next(j for j in judge(config, NOTHING, run_dir) if j.id == "3.3.2-gradient")


@pytest.mark.parametrize(("in_third", "verdict"), [
    (0.024, Verdict.NOT_SEEN), (1e-6, Verdict.NOT_SEEN), (0.0, Verdict.SEEN), (1e-9, Verdict.SEEN)])
def test_completely_is_zero_within_rounding(tmp_path, in_third, verdict):
    _write(tmp_path, "supernet-d16", in_third)
    judgement = _sentence(tmp_path)
    assert judgement.verdict is verdict and judgement.source == "measured (digits)"
    assert ("attend to keys and values of bridge tokens" in judgement.evidence) == (verdict is Verdict.NOT_SEEN)


def test_one_supernet_that_keeps_it_is_enough(tmp_path):
    _write(tmp_path, "supernet-d16", 0.0)
    _write(tmp_path, "supernet-d4", 0.024)
    judgement = _sentence(tmp_path)
    assert judgement.verdict is Verdict.NOT_SEEN and judgement.found == "0 to 0.024"
    assert "supernet-d4 0.024 in phase 3 against 0.1 in phase 1 (bridge zone: 0.07 in phase 3)" in judgement.evidence


def test_without_curves_it_is_open(tmp_path):
    for run_dir in (None, tmp_path):
        judgement = _sentence(run_dir)
        assert judgement.verdict is Verdict.OPEN and judgement.command == "snakemake --cores all figures/fig3.png"
    _write(tmp_path, "supernet-d16", 0.024, epochs=22)
    assert _sentence(tmp_path).verdict is Verdict.OPEN  # phase 3 has not ended


@pytest.mark.parametrize(("in_third", "verdict"), [(0.024, Verdict.NOT_REPRODUCED), (0.0, Verdict.OPEN)])
def test_at_the_papers_size_a_zero_of_fp16_decides_nothing(tmp_path, in_third, verdict):
    _write(tmp_path, "supernet-d16", in_third)
    assert IMAGENET.supernet.training.precision == "fp16"
    assert _sentence(tmp_path, IMAGENET).verdict is verdict


def test_the_page_takes_the_run_folder(tmp_path):
    _write(tmp_path / "run", "supernet-d16", 0.024)
    page = write_claims(DIGITS, NOTHING, tmp_path / "claims", tmp_path / "run")[1].read_text()
    assert "## The miniature shows the opposite: 1\n\n- section 3.3.2, full-only layers completely lose" in page
