"""What the simulated allocator says of printed totals; it decides nothing."""

import pytest
from claim_fixtures import DIGITS, profiles

from varient.claims import Verdict, judge
from varient.claims.claims import all_claims
from varient.claims.simulated import allocator_remark
from varient.cost.simulated_memory import simulated_memory

CLAIMS = {claim.id: claim for claim in all_claims()}


@pytest.fixture(scope="module")
def judged():
    return {judgement.id: judgement for judgement in judge(DIGITS, profiles())}


def _simulated(system, batch):
    return simulated_memory(system, batch, "reference", "fp16-autocast").peak_mib(whole_batch=True)


@pytest.mark.parametrize("claim", ["table3-b64-variant-d8-total_mb", "table3-b64-variant-d8-kv_cache_mb"])
def test_the_total_of_d8_speaks_for_the_formulas_cache(judged, claim):
    """It lies as far from the simulation as VAR-d30's; with 1000 MB less it would not."""
    evidence = judged[claim].evidence
    above, usual = _simulated("variant-d8", 64) - 20759, _simulated("var-d30", 64) - 38977
    assert abs(above - usual) < 20
    below = 10465.3 - 9465 - above
    assert f"{above:.0f} above the printed total, and with a cache of 9465 {below:.0f} below" in evidence
    assert "so the total speaks for 10465.3" in evidence
    assert judged[claim].verdict is (Verdict.CONTRADICTS if "kv" in claim else Verdict.CONSISTENT)


def test_a_total_that_is_near_neither_speaks_for_none(judged):
    """d = 16 prints 1000 MB less too, and its total lies between the two."""
    evidence = judged["table3-b64-variant-d16-total_mb"].evidence
    assert "with a cache of 16092" in evidence and "speaks for" not in evidence


def test_a_total_beside_the_formulas_cache_is_compared_alone(judged):
    for claim, system, batch, printed in (("table3-b64-var-d30-total_mb", "var-d30", 64, 38977),
                                          ("table3-b128-variant-d8-total_mb", "variant-d8", 128, 33397)):
        simulated = _simulated(system, batch)
        assert f"takes {simulated:.0f} MB, {simulated - printed:.0f} above the printed total." in judged[claim].evidence
    assert "the image decoder sets it" in judged["table3-b64-variant-d2-total_mb"].evidence
    assert allocator_remark(CLAIMS["table3-b128-variant-d8-kv_cache_mb"]) == ""


def test_what_was_not_simulated_or_not_printed_has_no_remark():
    said = {claim.id for claim in CLAIMS.values() if allocator_remark(claim)}
    assert {claim for claim in said if "total" in claim} == {
        f"table3-{row}-total_mb" for row in ("b64-var-d30", "b64-variant-d16", "b64-variant-d8", "b64-variant-d2",
                                             "b128-variant-d8", "b128-variant-d2", "b256-variant-d2")}
    assert said - {claim for claim in said if "total" in claim} == {
        "table3-b64-variant-d16-kv_cache_mb", "table3-b64-variant-d8-kv_cache_mb"}
