"""The rule of noise: spreads between draws, trainings and processes, and what they resolve; the paper's size."""

import json
from dataclasses import replace
from math import inf
from statistics import mean, stdev

import pytest
from claim_fixtures import (
    DIGITS,
    IMAGENET,
    NOT_RESOLVED,
    NOTHING,
    OPEN,
    PARTLY,
    REVERSED,
    order_of,
    paper_size_score,
    scores,
)
from committed_results import committed
from conftest import ROOT
from record_factory import of, score

from varient.claims import Verdict
from varient.claims.noise import (
    PROCESS_SPREAD,
    TURN_SPREAD,
    UNKNOWN_TRAINING_SPREAD,
    Estimate,
    Estimates,
    resolved,
    threshold,
)
from varient.claims.quantity import Quantity
from varient.claims.records import Records
from varient.results import Results

pytestmark = pytest.mark.usefixtures("published", "assumed")


@pytest.mark.parametrize(("difference", "expected"), [(0.29, 1), (0.28, 0), (-0.28, 0), (-0.29, -1)])
def test_two_standard_errors_of_the_difference(difference, expected):
    assert resolved(Estimate("a", 1 + difference, 0.1, 1), Estimate("b", 1, 0.1, 1)) == expected


@pytest.mark.parametrize(("difference", "pairs", "expected"), [
    (0.29, 16, 1),      # all pairs have to be as claimed: no correction
    (-0.29, 2, 0), (-0.29, 1, -1), (-0.36, 4, -1), (-0.35, 4, 0), (-0.42, 16, 0), (-0.43, 16, -1),
])
def test_one_pair_of_many_must_stand_out_to_reverse_an_order(difference, pairs, expected):
    assert resolved(Estimate("a", 1 + difference, 0.1, 1), Estimate("b", 1, 0.1, 1), pairs) == expected


def test_bonferroni():
    assert [round(threshold(pairs), 2) for pairs in (1, 2, 4, 16)] == [2, 2.28, 2.53, 2.98]


def test_an_order_corrects_for_its_pairs():
    # 0.63 is 2.1 standard errors below 1: enough where it is the only pair, and not where it is one of three.
    alone = scores(variant__d4__full=1.0, variant__d4__skip__full=0.63)
    assert order_of("table5-full-fid-order", alone).verdict is REVERSED
    of_three = scores(variant__d2=0.63, variant__d4=1.0, variant__d8=1.0, variant__d16=1.0)
    assert order_of("table2-fid-order", of_three).verdict is NOT_RESOLVED
    further = scores(variant__d2=0.5, variant__d4=1.0, variant__d8=1.0, variant__d16=1.0)
    assert order_of("table2-fid-order", further).verdict is PARTLY


def _estimate(results, system):
    return Estimates(Records(DIGITS, results)).of(Quantity.of("fid", system))


def test_a_single_training_has_the_spread_of_those_with_several(assumed):
    alone = scores(variant__d8=1.0)
    assert _estimate(alone, "variant-d8").error == pytest.approx(assumed)
    seeds = scores(variant__d8=1.0, variant__d4=1.0, variant__d4__s1=1.1, variant__d4__s2=0.9)
    assert _estimate(seeds, "variant-d8").error == pytest.approx(0.1)
    several = _estimate(seeds, "variant-d4")
    assert (several.value, several.trainings) == (pytest.approx(1.0), 3)
    assert several.error == pytest.approx(0.1 / 3 ** 0.5)
    assert several.freedom == _estimate(seeds, "variant-d8").freedom == 2
    assert _estimate(alone, "variant-d8").freedom == inf


def test_seeds_of_the_fine_tuning_say_nothing_of_its_base(assumed):
    """They are of one base network, tokenizer and classifier: what is no fine-tuning has a spread of its own."""
    near = {"variant__d4": 1.0, "variant__d4__s1": 1.005, "variant__d4__s2": 0.995}
    others = dict.fromkeys(("var__d30", "free__d16", "code__n6", "dit__mini"), 1.0)
    results = scores(variant__d8=1.0, **near, **others)
    assert _estimate(results, "variant-d8").error == pytest.approx(0.02)  # of redraws, above that of seeds
    for system in ("var-d30", "free-d16", "code-n6"):
        assert _estimate(results, system).error == pytest.approx(assumed)
    far = scores(var__d30=1.0, variant__d4=1.0, variant__d4__s1=1.4, variant__d4__s2=0.6)
    assert _estimate(far, "var-d30").error == pytest.approx(0.4)


def test_seeds_that_agree_by_chance_do_not_make_noise_small():
    results = scores(variant__d4=1.0, variant__d4__s1=1.0, variant__d4__p50=1.0, variant__d4__p50__s1=1.4)
    pooled = ((0.2828 / 1.2) ** 2 / 2) ** 0.5  # of both arms, one degree of freedom each
    assert _estimate(results, "variant-d4").error == pytest.approx(pooled / 2 ** 0.5, rel=1e-3)


def test_a_training_counts_once_among_the_degrees_of_freedom():
    """The subnet and the full network of three trainings: two degrees, though six scores tell how far they scatter."""
    near = {f"variant__d4{seed}": fid for seed, fid in (("", 1.0), ("__s1", 1.1), ("__s2", 0.9))}
    both = near | {f"{name}__full": fid for name, fid in near.items()}
    beside = {f"{name}__full__plain": 4 * fid ** 9 for name, fid in near.items()}
    beside |= {f"{name}__e20": 4 * fid ** 9 for name, fid in near.items()}
    for found in (near, both, both | beside):
        relative, freedom = Estimates(Records(DIGITS, scores(**found))).pooled("fid")
        assert (relative, freedom) == (pytest.approx(0.1), 2)


def test_two_systems_with_the_pooled_spread_share_its_degrees():
    larger, smaller = (Estimate("a", value, 0.1, 1, freedom=2, pooled=True) for value in (1.6, 1.0))
    assert threshold(1, 2) * 0.1 * 2 ** 0.5 > 0.6 > threshold(1, 4) * 0.1 * 2 ** 0.5
    assert resolved(larger, smaller) == 0 and resolved(larger, replace(smaller, pooled=False)) == 1


def test_few_trainings_count_by_students_t():
    """Of two means over three trainings each, the difference has four degrees of freedom."""
    assert [round(threshold(1, freedom), 2) for freedom in (1, 2, 4, inf)] == [13.97, 4.53, 2.87, 2.0]
    assert threshold(16, 2) == pytest.approx(18.7, abs=0.05) and threshold(5, 2) == pytest.approx(10.4, abs=0.05)
    lower = Estimate("b", 10 - 2.86 * 2 ** 0.5, 3 ** 0.5, 3, freedom=2)
    assert resolved(Estimate("a", 10.0, 3 ** 0.5, 3, freedom=2), lower) == 0
    assert resolved(Estimate("a", 10.1, 3 ** 0.5, 3, freedom=2), lower) == 1
    assert str(Estimate("a", 1.0, 0.1 * 3 ** 0.5, 3, freedom=2)) == "a 1.000 ± 0.430 (3 trainings)"  # 4.303 of 0.1


def test_an_unknown_training_spread_is_allowed_for_on_both_sides():
    larger, smaller = Estimate("a", 1.5, 0.01, 1, allowance=0.3), Estimate("b", 1.0, 0.01, 1, allowance=0.4)
    assert resolved(larger, smaller) == 0  # 0.5, which both allowances together are, and the noise
    assert resolved(Estimate("a", 1.53, 0.01, 1, allowance=0.3), smaller) == 1
    assert resolved(smaller, Estimate("a", 1.53, 0.01, 1, allowance=0.3)) == -1


def test_the_spreads_that_are_assumed_are_near_those_of_trainings_and_runs():
    scores_of = committed().scores
    alone = [scores_of[f"var-d30{base}"].fid for base in ("", "-b1", "-b2")]
    assert pytest.approx(stdev(alone) / mean(alone), abs=0.01) == UNKNOWN_TRAINING_SPREAD
    on_bases = [[scores_of[f"{name}{base}{full}"].fid for base in ("", "-b1", "-b2")] for name, full in (
        ("var-d30", ""), *((f"variant-d4{recipe}", full) for recipe in ("", "-p10", "-p80", "-skip")
                           for full in ("", "-full")))]
    pooled = mean((stdev(values) / mean(values)) ** 2 for values in on_bases) ** 0.5
    assert pooled == pytest.approx(0.28, abs=0.01) and pooled < UNKNOWN_TRAINING_SPREAD
    record = json.loads((ROOT / "benchmarks/records/digits-runs.json").read_text())
    pooled = {name: _pooled(record[name]["runs"]) for name in ("fid", "latency_s", "latency_over_full")}
    assert pooled["fid"] == pytest.approx(0.116, abs=1e-3) and pooled["fid"] < UNKNOWN_TRAINING_SPREAD
    assert pooled["latency_s"] == pytest.approx(0.044, abs=1e-3) and pooled["latency_s"] < PROCESS_SPREAD
    assert pooled["latency_over_full"] == pytest.approx(TURN_SPREAD / 2, abs=1e-3)
    assert max(max(values) / min(values) for values in zip(
        *(run["values"] for run in record["latency_over_full"]["runs"]), strict=True)) == pytest.approx(1.049, abs=1e-3)


def _pooled(runs):
    """Relative standard deviation between runs, pooled over their systems."""
    of_systems = zip(*(run["values"] for run in runs), strict=True)
    return mean((stdev(values) / mean(values)) ** 2 for values in of_systems) ** 0.5


def test_draws_count_where_they_spread_most():
    noisy = Results({"variant-d8": score("variant-d8", 1.0, fid_sd=0.5)}, {})
    assert _estimate(noisy, "variant-d8").error == pytest.approx(0.5)


# --- the paper's size -----------------------------------------------------------------------------------------------

PRINTED = {2: 2.97, 4: 2.28, 8: 2.12, 16: 2.05}
APART = {2: 9.0, 4: 5.0, 8: 3.0, 16: 2.0}
"""Further than another training may move them."""


def _at_paper_size(fids, **changes):
    return of(*(paper_size_score(f"variant-d{d}", fid, **changes) for d, fid in fids.items()))


@pytest.mark.parametrize(("fids", "changes", "verdict"), [
    (APART, {}, Verdict.REPRODUCED),
    (PRINTED, {}, OPEN),                     # beyond redraws of the images, but another training might turn it round
    (APART | {16: 2.96}, {}, OPEN),          # within redraws of the images
    (dict(zip(PRINTED, (1.0, 2.0, 4.0, 9.0), strict=True)), {}, Verdict.NOT_REPRODUCED),
    (APART | {16: 9.0}, {}, Verdict.NOT_REPRODUCED),
    (APART, {"device": "CPU AMD"}, OPEN),
    (APART, {"num_images": 5000}, OPEN),
    (APART, {"protocol": "clean-fid"}, OPEN),
])
def test_at_the_papers_size_an_order_is_reproduced_or_not(fids, changes, verdict):
    assert order_of("table2-fid-order", _at_paper_size(fids, **changes), IMAGENET).verdict is verdict


def test_an_order_of_one_training_each_says_so():
    order = order_of("table2-fid-order", _at_paper_size(PRINTED), IMAGENET)
    assert "Training spread unknown: one training each, so up to 10% are allowed for another one" in order.evidence
    assert "variant-d8 2.120 ± 0.039 ~ variant-d16 2.050 ± 0.039" in order.evidence


def test_only_what_was_trained_has_a_training_spread():
    results = of(*_at_paper_size(PRINTED).scores.values(), paper_size_score("code-n6", 2.40))
    order = order_of("table2-code-order", results, IMAGENET)
    assert order.verdict is Verdict.REPRODUCED  # CoDe's weights are released
    assert "Training spread unknown: one training of variant-d8, variant-d16, so" in order.evidence


def test_trainings_that_differ_in_the_seed_count_at_the_papers_size():
    config = IMAGENET.model_copy(update={"ablations": IMAGENET.ablations.model_copy(update={"seeds": 2})})
    seeds = of(*_at_paper_size(PRINTED).scores.values(), paper_size_score("variant-d16-s1", 2.20))
    order = order_of("table2-fid-order", seeds, config)
    assert order.verdict is OPEN and "Training spread unknown" not in order.evidence
    assert "variant-d16 2.125 ± 0.953 (2 trainings)" in order.evidence


def test_released_weights_have_no_training_spread():
    free = of(*(paper_size_score(name, fid) for name, fid in (("free-d16-r1to3", 12.9), ("free-d16-r4to6", 8.5),
                                                              ("free-d16", 5.42))))
    order = order_of("table1-order", free, IMAGENET)
    assert order.verdict is Verdict.REPRODUCED and "Training spread" not in order.evidence
    assert "r1-r3 2.1 %, r4-r6 11.3 %, r7-r10 86.6 %" in order.evidence


def test_incomparable_records_say_why():
    few = order_of("table2-fid-order", _at_paper_size(PRINTED, num_images=5000), IMAGENET)
    assert "variant-d2 is scored on 5000 images, the config asks for 50000" in few.evidence
    other = order_of("table2-fid-order", _at_paper_size(PRINTED, protocol="clean-fid"), IMAGENET)
    assert "variant-d2 is scored by the protocol clean-fid, the paper by adm" in other.evidence


def test_what_has_been_run_is_not_asked_for_again():
    run = "snakemake --cores all results/imagenet256/table2.csv"
    assert order_of("table2-fid-order", NOTHING, IMAGENET).command.startswith(run)
    within_noise = order_of("table2-fid-order", _at_paper_size(PRINTED | {16: 2.10}), IMAGENET)
    assert within_noise.command.startswith("varient claims --config workflow/config/imagenet256.yaml --found-in")
    some = order_of("table2-fid-order", _at_paper_size({2: 2.97, 4: 2.28}), IMAGENET)
    assert some.command.startswith(run) and "No records of 2 more pairs." in some.evidence
