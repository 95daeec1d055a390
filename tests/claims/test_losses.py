"""Rankings of FIDs by loss on held-out images: a second opinion beside the first."""

from dataclasses import replace

import pytest
from claim_fixtures import DIGITS, IMAGENET, NOTHING, scores
from record_factory import held_out

from varient.claims import Verdict, judge
from varient.claims.rendering import to_markdown
from varient.claims.tally import decided_rankings, decided_with_losses
from varient.results import Results

SEEDS = {"variant-d4-full": 1.586, "variant-d4-s1-full": 1.588, "variant-d4-s2-full": 1.584}
"""Which say how far trainings are apart: 0.13 %."""
FALLING = {f"variant-d4-p{p}-full": loss for p, loss in ((10, 1.43), (20, 1.45), (50, 1.47), (80, 1.49), (100, 1.70))}
ALIKE = scores(**{name.replace("-", "__"): 0.7 for name in FALLING})


def _with(losses, fids=ALIKE):
    return replace(fids, held_out=(held_out("supernet-d4", SEEDS | losses),))


def _best_p(results, config=DIGITS):
    return next(judgement for judgement in judge(config, results) if judgement.id == "3.3.1-best-p01")


@pytest.mark.parametrize(("losses", "verdict"), [
    (FALLING, Verdict.SEEN),
    (FALLING | {"variant-d4-p20-full": 1.40}, Verdict.PARTLY_REVERSED),
    (FALLING | {"variant-d4-p20-full": 1.43}, Verdict.NOT_RESOLVED),
    (dict(list(FALLING.items())[:3]), Verdict.OPEN),
])
def test_losses_have_a_verdict_of_their_own(losses, verdict):
    judgement = _best_p(_with(losses))
    assert judgement.by_loss == verdict and judgement.verdict is Verdict.NOT_RESOLVED  # the FIDs are alike
    first = f"variant-d4-p20-full {losses['variant-d4-p20-full']:.3f} ± "
    assert f"By held-out loss in place of FID, {verdict}: {first}" in judgement.evidence


def test_without_losses_there_is_no_second_opinion():
    assert _best_p(ALIKE).by_loss == "" and "held-out loss" not in _best_p(ALIKE).evidence


def test_only_rankings_of_fids_have_one():
    judged = judge(DIGITS, _with(FALLING))
    assert {judgement.kind for judgement in judged if judgement.by_loss} == {"ranking"}
    assert next(judgement for judgement in judged if judgement.id == "table5-full-is-order").by_loss == ""


def test_losses_of_a_miniature_say_nothing_at_the_papers_size():
    record = held_out("supernet-d16", {"variant-d16-full": 1.0}, experiment="imagenet256")
    assert not [j.id for j in judge(IMAGENET, Results({}, {}, held_out=(record,))) if j.by_loss]


def test_rankings_are_counted_with_and_without_losses():
    alone, both = judge(DIGITS, ALIKE), judge(DIGITS, _with(FALLING))
    assert decided_rankings(alone) == decided_rankings(both)
    assert decided_with_losses(alone) == (decided_rankings(alone)[0], 0)
    assert decided_with_losses(both)[0] > decided_rankings(both)[0]
    assert ", and {} with held-out loss beside FID; of {} the two say opposite things".format(
        *decided_with_losses(both)) in to_markdown(both, "digits")
    assert "held-out loss" not in to_markdown(alone, "digits") and decided_with_losses(judge(DIGITS, NOTHING)) == (0, 0)


def test_opposite_opinions_decide_nothing_together():
    fids = scores(variant__d4__p100__full=0.5, variant__d4__p10__full=20.0)  # p = 1 is better by FID
    judged = [j for j in judge(DIGITS, _with(FALLING, fids)) if j.id == "3.3.1-full-order"]
    assert (judged[0].verdict, judged[0].by_loss) == (Verdict.REVERSED, Verdict.SEEN)
    assert decided_with_losses(judged) == (0, 1)
