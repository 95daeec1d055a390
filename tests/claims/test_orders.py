"""Orders: printed, and looked for in records both ways and inside the noise."""

import pytest
from claim_fixtures import DIGITS, IMAGENET, NOTHING, SMOKE, print_instead, profile, profiles, provenance, score, scores

from varient.claims import Verdict, judge
from varient.claims.miniature import UNKNOWN_TRAINING_SPREAD, Estimate, Miniature, resolved
from varient.claims.quantity import Quantity
from varient.claims.records import Records
from varient.records import RecordError
from varient.report.results import Results

SEEN, NOT_SEEN, NOT_RESOLVED, OPEN = (Verdict.SEEN, Verdict.NOT_SEEN, Verdict.NOT_RESOLVED, Verdict.OPEN)


def _order(name, results, config=DIGITS):
    return next(judgement for judgement in judge(config, results) if judgement.id == name)


def _zones(early, mid, late, full=0.6):
    return scores(free__d16__r1to3=early, free__d16__r4to6=mid, free__d16__r7to10=late, var__d30=full)


@pytest.mark.parametrize(("results", "verdict"), [
    (_zones(20.0, 8.0, 3.0), SEEN),
    (_zones(3.0, 8.0, 20.0), NOT_SEEN),
    (_zones(20.0, 8.0, 7.5), NOT_RESOLVED),
    (_zones(20.0, 8.0, 30.0), NOT_SEEN),       # one pair the other way is enough
    (scores(free__d16=3.0, var__d30=0.6), OPEN),  # two pairs lack records
    (NOTHING, OPEN),
])
def test_an_order_is_seen_reversed_or_not_resolved(results, verdict):
    assert _order("table1-order", results).verdict is verdict


def test_the_evidence_shows_the_chain():
    seen = _order("table1-order", _zones(20.0, 8.0, 7.5))
    assert "free-d16-r1to3 20 ± 3 > free-d16-r4to6 8 ± 1.2 ~ free-d16 7.5 ± 1.1 > var-d30 0.6 ± 0.09" in seen.evidence
    assert seen.found == "of 3 pairs 2 as claimed, 0 the other way, 1 within noise"
    assert seen.printed == "12.91 > 8.5; 8.5 > 5.42; 5.42 > 1.95" and seen.source == "measured (digits)"


def test_an_order_that_the_table_does_not_show_is_contradicted(monkeypatch):
    print_instead(monkeypatch, 1, row=2, fid="15.5")
    judgement = _order("table1-order", _zones(20.0, 8.0, 3.0))
    assert judgement.verdict is Verdict.CONTRADICTS and judgement.found == "12.91 < 15.5"


def test_a_tie_in_print_is_no_contradiction():
    assert _order("figure2-full-order", NOTHING).printed == "1.96 = 1.96; 2.32 > 1.96"
    assert _order("figure2-full-order", NOTHING).verdict is OPEN


RATIOS = {"variant__d4__p10": 5.0, "variant__d4__p10__full": 0.9, "variant__d4__p100": 1.5,
          "variant__d4__p100__full": 2.4}


def test_ablations_are_at_their_own_depth():
    conflict = scores(**RATIOS)
    full, subnet = _order("3.3.1-full-order", conflict), _order("3.3.1-subnet-order", conflict)
    assert full.verdict is subnet.verdict is SEEN
    assert "At d = 4, where the paper has d = 16." in full.evidence and full.printed == "2.32 > 1.96"


@pytest.mark.parametrize(("three_phases", "verdict"), [(0.5, SEEN), (3.0, NOT_SEEN), (1.3, NOT_RESOLVED)])
def test_three_phases_against_each_fixed_ratio(three_phases, verdict):
    results = scores(variant__d4=three_phases, variant__d4__p50=1.4, **RATIOS)
    assert _order("figure2-subnet-order", results).verdict is verdict


def test_the_bridge_zone_in_both_networks():
    results = scores(variant__d4=1.0, variant__d4__skip=2.0, variant__d4__full=1.4, variant__d4__skip__full=1.3)
    assert _order("table5-subnet-fid-order", results).verdict is SEEN
    assert _order("table5-full-fid-order", results).verdict is NOT_RESOLVED
    assert _order("table5-subnet-is-order", results).verdict is OPEN  # no Inception Score in the records


def test_ends_of_the_phases():
    results = scores(variant__d16__e5=6.0, variant__d16__e20=2.0, variant__d16=0.6)
    assert _order("figure7-order", results).verdict is SEEN


def test_latency_with_the_spread_of_its_repeats():
    times = {"var-d30": 4.0, "variant-d16": 2.0, "variant-d8": 1.5, "variant-d4": 1.0, "variant-d2": 0.7}
    clear = profiles(*(profile(system, [s, s + 0.001, s - 0.001]) for system, s in times.items()))
    assert _order("table2-latency-order", clear).verdict is SEEN
    noisy = profiles(*(profile(system, [s, s + 0.2, s - 0.2]) for system, s in times.items()))
    assert _order("table2-latency-order", noisy).verdict is NOT_RESOLVED
    near = profiles(*(profile(system, [s]) for system, s in (times | {"variant-d2": 0.95}).items()))
    assert _order("table2-latency-order", near).verdict is NOT_RESOLVED  # another process may differ as much
    assert _order("table2-memory-order", clear).verdict is NOT_RESOLVED  # all the same here


def test_profiles_of_another_experiment_are_left_out():
    stranger = profiles(*(profile(f"variant-d{d}", [float(d)], experiment="imagenet256") for d in (16, 8, 4, 2)))
    assert _order("table2-latency-order", stranger).verdict is OPEN


# --- the noise ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("difference", "expected"), [(0.29, 1), (0.28, 0), (-0.28, 0), (-0.29, -1)])
def test_two_standard_errors_of_the_difference(difference, expected):
    assert resolved(Estimate("a", 1 + difference, 0.1, 1), Estimate("b", 1, 0.1, 1)) == expected


def _estimate(results, system):
    return Miniature(Records(DIGITS, results)).estimate(Quantity.of("fid", system), ablated=False)


def test_a_single_training_has_the_spread_of_those_with_several():
    alone = scores(variant__d8=1.0)
    assert _estimate(alone, "variant-d8").error == pytest.approx(UNKNOWN_TRAINING_SPREAD)
    seeds = scores(variant__d8=1.0, variant__d4=1.0, variant__d4__s1=1.1, variant__d4__s2=0.9)
    assert _estimate(seeds, "variant-d8").error == pytest.approx(0.1)
    several = _estimate(seeds, "variant-d4")
    assert (several.value, several.trainings) == (pytest.approx(1.0), 3)
    assert several.error == pytest.approx(0.1 / 3 ** 0.5)


def test_seeds_that_agree_by_chance_do_not_make_noise_small():
    results = scores(variant__d4=1.0, variant__d4__s1=1.0, variant__d4__p50=1.0, variant__d4__p50__s1=1.4)
    pooled = ((0.2828 / 1.2) ** 2 / 2) ** 0.5  # of both arms, one degree of freedom each
    assert _estimate(results, "variant-d4").error == pytest.approx(pooled / 2 ** 0.5, rel=1e-3)


def test_draws_count_where_they_spread_most():
    noisy = Results({"variant-d8": score("variant-d8", 1.0, fid_sd=0.5)}, {})
    assert _estimate(noisy, "variant-d8").error == pytest.approx(0.5)


# --- experiments ----------------------------------------------------------------------------------------------------


def test_depths_without_a_counterpart_are_left_out():
    record = score("variant-d4", 1.0, experiment="smoke")
    order = _order("table2-fid-order", Results({"variant-d4": record}, {}), SMOKE)
    assert order.verdict is OPEN
    records = Records(SMOKE, NOTHING)
    assert records.here("variant-d16") == "variant-d4" and records.here("variant-d8") is None
    assert records.here("variant-d16-p10") is None
    assert records.here("variant-d16-skip", ablated=True) == "variant-d2-skip"
    assert records.here("variant-d16-end1") == "variant-d4-e1" and records.here("llamagen-xxl") == "llamagen-mini"


def test_an_experiment_without_ablations_says_so():
    config = IMAGENET.model_copy(update={"ablations": None})
    order = _order("3.3.1-full-order", NOTHING, config)
    assert order.verdict is OPEN and "no section `ablations`" in order.evidence
    assert order.command.endswith("--configfile workflow/config/imagenet256.yaml")


def test_scores_of_another_experiment_are_refused():
    with pytest.raises(RecordError, match="claims on smoke were given scores of digits"):
        judge(SMOKE, scores(var__d30=1.0))


@pytest.mark.parametrize(("device", "fids", "verdict"), [
    ("NVIDIA H100", (2.97, 2.28, 2.12, 1.0), OPEN),
    ("NVIDIA H100", (9.0, 4.0, 2.0, 1.0), Verdict.REPRODUCED),
    ("NVIDIA H100", (1.0, 2.0, 4.0, 9.0), Verdict.NOT_REPRODUCED),
    ("CPU AMD", (9.0, 4.0, 2.0, 1.0), OPEN),
])
def test_at_the_papers_size_an_order_is_reproduced_or_not(device, fids, verdict):
    where = {"experiment": "imagenet256", "device": device}
    found = {f"variant-d{d}": score(f"variant-d{d}", fid, **where) for d, fid in zip((2, 4, 8, 16), fids, strict=True)}
    assert provenance(**where).device == device
    assert _order("table2-fid-order", Results(found, {}), IMAGENET).verdict is verdict
