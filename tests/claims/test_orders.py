"""Rankings: printed, and looked for in records both ways."""

import pytest
from claim_fixtures import (
    DIGITS,
    IMAGENET,
    NOT_RESOLVED,
    NOTHING,
    OPEN,
    PARTLY,
    REVERSED,
    SEEN,
    SMOKE,
    order_of,
    print_instead,
    profiles,
    scores,
    write_instead,
)
from record_factory import of, profile, reconstruction, score

from varient.claims import Verdict, judge
from varient.claims.claims import all_claims, rankings
from varient.claims.derived import Ledger
from varient.claims.measured import look
from varient.claims.noise import Estimate, Estimates, resolved
from varient.claims.records import Records
from varient.claims.verdicts import ranking_verdict
from varient.results import Results

pytestmark = pytest.mark.usefixtures("published", "assumed")

def _zones(early, mid, late, full=0.6):
    return scores(free__d16__r1to3=early, free__d16__r4to6=mid, free__d16__r7to10=late, var__d30=full)


@pytest.mark.parametrize(("results", "verdict"), [
    (_zones(20.0, 8.0, 3.0), SEEN),
    (_zones(3.0, 8.0, 20.0), REVERSED),
    (_zones(20.0, 8.0, 7.5), NOT_RESOLVED),
    (_zones(20.0, 8.0, 30.0), PARTLY),         # one pair the other way is enough
    (scores(free__d16__r1to3=3.0, free__d16__r4to6=8.0), PARTLY),  # the other may be as claimed
    (scores(free__d16__r1to3=20.0, free__d16__r4to6=8.0), OPEN),  # the other lacks a record
    (NOTHING, OPEN),
])
def test_an_order_is_seen_reversed_or_not_resolved(results, verdict):
    assert order_of("table1-order", results).verdict is verdict


def test_zones_are_ranked_apart_from_the_full_network():
    """That any subnet is worse than full depth says nothing of where depth is needed."""
    reversed_zones = _zones(3.0, 8.0, 20.0)
    assert order_of("table1-order", reversed_zones).verdict is REVERSED
    assert order_of("table1-any-zone", reversed_zones).verdict is SEEN
    assert order_of("table1-any-zone", _zones(3.0, 8.0, 20.0, full=40.0)).verdict is REVERSED


def test_the_evidence_shows_the_chain():
    seen = order_of("table1-order", _zones(20.0, 8.0, 7.5))
    assert "free-d16-r1to3 20.000 ± 5.880 > free-d16-r4to6 8.000 ± 2.352 ~ free-d16 7.500 ± 2.205." in seen.evidence
    assert seen.found == "of 2 pairs 1 as claimed, 0 reversed, 1 within noise"
    assert seen.printed == "12.91 > 8.5; 8.5 > 5.42" and seen.source == "measured (digits)"


def test_an_order_that_the_table_does_not_show_is_contradicted(monkeypatch):
    print_instead(monkeypatch, 1, row=2, fid="15.5")
    judgement = order_of("table1-order", _zones(20.0, 8.0, 3.0))
    assert judgement.verdict is Verdict.CONTRADICTS and judgement.found == "12.91 < 15.5"


def test_a_tie_in_print_is_no_contradiction():
    assert order_of("figure2-full-order", NOTHING).printed == "1.96 = 1.96; 2.32 > 1.96"
    assert order_of("figure2-full-order", NOTHING).verdict is OPEN


class Paper(Estimates):
    """An experiment that measures what the paper prints, each number changed by ``change``, with small errors."""

    def __init__(self, where, change):
        super().__init__(Records(DIGITS, NOTHING))
        self.ledger, self.where, self.change = Ledger(all_claims()), where, change

    def of(self, quantity, *, depth):
        if (printed := self.ledger.at(quantity, self.where)) is None:
            return None
        value = self.change(printed.values[0].middle)
        return Estimate(quantity.systems[0], value, 1e-4 * value, 1)


NOT_PRINTED = {"figure7-order", "3.3.2-maintained", "single-model-order"}
OTHERWISE = {"2.2-code-memory": ((REVERSED,), (SEEN,)),        # the paper's own numbers say the opposite
             "4.2-code-comparable": ((SEEN,), (SEEN,))}        # what is comparable is so both ways


@pytest.mark.parametrize("ranking", rankings(), ids=lambda ranking: ranking.id)
def test_an_experiment_that_measures_the_papers_numbers_shows_each_ranking(ranking):
    """And one that measures their reciprocals, which are ranked the other way, shows none."""
    same, other = (look(ranking, Paper(ranking.where, change), "") for change in (float, lambda x: 1 / x))
    if ranking.id in NOT_PRINTED:
        assert same is None
    else:
        papers, reciprocals = OTHERWISE.get(ranking.id, ((SEEN,), (REVERSED, PARTLY)))
        assert ranking_verdict(same) in papers, same.sentence
        assert ranking_verdict(other) in reciprocals


@pytest.mark.parametrize(("ours", "verdict"), [
    (1.00, SEEN), (1.03, SEEN),             # within the margin of 5 % beyond the noise
    (1.05, NOT_RESOLVED), (1.07, REVERSED), (0.8, SEEN)])
def test_at_least_as_good_has_a_margin(ours, verdict):
    order = order_of("3.3.2-maintained", _phase_3(16, ours))
    assert order.verdict is verdict and "read as at most 5% worse" in order.evidence
    assert ("variant-d16-e20-full 1.000 ± 0.010 ≥ variant-d16-full" in order.evidence) == (verdict is SEEN)


def _phase_3(depth, ours):
    """Full networks at the end of phase 2 (FID 1) and of phase 3, and trainings that make the noise small."""
    near = {"variant__d4": 1.0, "variant__d4__s1": 1.001, "variant__d4__s2": 0.999}
    results = scores(**near, **{f"variant__d{depth}__e20__full": 1.0, f"variant__d{depth}__full": ours})
    return of(*(record.model_copy(update={"fid_sd": 0.005}) for record in results.scores.values()))


def test_a_ranking_is_judged_at_the_depth_that_it_is_claimed_for():
    """At d = 4 phase 3 takes 12 epochs, at the text's d = 16 five."""
    elsewhere = order_of("3.3.2-maintained", _phase_3(4, 1.5))
    assert elsewhere.verdict is OPEN and elsewhere.found == "" and "No records of 1 pair." in elsewhere.evidence
    assert "Beside it, at other depths: variant-d4-e20-full 1.000 ± 0.010 < variant-d4-full 1.500" in elsewhere.evidence
    both = of(*_phase_3(4, 1.5).scores.values(), *_phase_3(16, 1.0).scores.values())
    judged = order_of("3.3.2-maintained", both)
    assert judged.verdict is SEEN and "Beside it, at other depths: variant-d4-e20-full" in judged.evidence


def test_ablations_at_the_claimed_depth_go_before_those_at_their_own():
    own = {name.replace("__d4", "__d16"): 1.0 / fid for name, fid in RATIOS.items()}
    order = order_of("3.3.1-full-order", scores(**RATIOS, **own))
    assert order.verdict is REVERSED and "variant-d16-p100-full 0.417" in order.evidence
    assert "Measured at d" not in order.evidence and "at other depths: variant-d4-p100-full 2.400" in order.evidence
    assert order_of("3.3.1-full-order", scores(**RATIOS)).verdict is SEEN


def test_one_model_for_all_depths_is_held_against_one_for_each():
    """The paper claims it and trains none."""
    alone = {f"variant__d{depth}": 1.0 for depth in (16, 8, 4, 2)}
    order = order_of("single-model-order", scores(**alone, **{f"{name}__multi": 1.0 for name in alone}))
    assert order.verdict is NOT_RESOLVED and order.printed == ""
    far = scores(**alone, **{f"{name}__multi": 5.0 for name in alone})
    assert order_of("single-model-order", far).verdict is REVERSED


def test_a_ranking_without_a_margin_has_none():
    assert {ranking.id: ranking.margin for ranking in rankings() if ranking.margin} == dict.fromkeys(
        ("3.3.2-maintained", "figure2-subnet-order", "figure2-full-order", "4.2-code-comparable",
         "single-model-order"), 0.05)
    assert resolved(Estimate("a", 1.0, 1e-6, 1), Estimate("b", 1.0, 1e-6, 1)) == 0
    assert resolved(Estimate("a", 1.0, 1e-6, 1), Estimate("b", 1.0, 1e-6, 1), margin=0.05) == 1


FRONT = {f"variant__d4__p{p}": fid for p, fid in ((10, 40.0), (20, 18.0), (50, 8.0), (80, 3.0), (100, 1.0))} | {
    f"variant__d4__p{p}__full": fid for p, fid in ((10, 1.0), (20, 2.2), (50, 5.0), (80, 11.0), (100, 25.0))}


@pytest.mark.parametrize(("changes", "best", "no_single", "front"), [
    ({}, SEEN, SEEN, SEEN),
    ({"variant__d4__p50__full": 0.2}, PARTLY, SEEN, PARTLY),
    ({"variant__d4__p50": 0.2}, SEEN, PARTLY, PARTLY),
    ({"variant__d4__p100__full": 1.0}, NOT_RESOLVED, NOT_RESOLVED, PARTLY),
    ({"variant__d4__p0": 0.1, "variant__d4__p0__full": 0.1}, SEEN, SEEN, SEEN),  # a control, not one of the paper's
])
def test_what_section_3_3_1_says_of_fixed_ratios(changes, best, no_single, front):
    results = scores(**FRONT | changes)
    names = ("3.3.1-best-p01", "3.3.1-no-single-p", "3.3.1-smooth-front")
    assert [order_of(name, results).verdict for name in names] == [best, no_single, front]


def test_a_ranking_of_ratios_waits_for_all_that_the_experiment_trains():
    some = {name: fid for name, fid in FRONT.items() if "p20" not in name}
    order = order_of("3.3.1-smooth-front", scores(**some))
    assert order.verdict is OPEN and "No records of 4 more pairs." in order.evidence


def test_statements_of_section_3_3_1_are_held_against_its_own_numbers(monkeypatch):
    assert order_of("3.3.1-best-p01", NOTHING).printed == "2.32 > 1.96"
    assert order_of("3.3.1-no-single-p", NOTHING).printed == "2.68 > 2.15; 2.32 > 1.96"
    assert order_of("3.3.1-smooth-front", NOTHING).printed == "2.32 > 1.96; 2.68 > 2.15"
    assert order_of("3.3.2-maintained", NOTHING).printed == ""
    write_instead(monkeypatch, "3.3.1-p01-full", "2.40")
    assert order_of("3.3.1-best-p01", NOTHING).verdict is Verdict.CONTRADICTS


RATIOS = {"variant__d4__p10": 5.0, "variant__d4__p10__full": 0.9, "variant__d4__p100": 1.5,
          "variant__d4__p100__full": 2.4}


def test_ablations_are_at_their_own_depth():
    conflict = scores(**RATIOS)
    full, subnet = order_of("3.3.1-full-order", conflict), order_of("3.3.1-subnet-order", conflict)
    assert full.verdict is subnet.verdict is SEEN
    assert full.printed == "2.32 > 1.96"
    for order in (full, subnet):  # Sec. 3.3.1 names no depth, so it cannot be called the paper's
        assert order.evidence.startswith("The text names no d; read as d = 16. variant-d4-p10")
        assert "Measured at d = 4." in order.evidence and "where the paper has" not in order.evidence


def test_table_5_has_a_depth_of_its_own():
    bridge = order_of("table5-subnet-fid-order", scores(variant__d4=1.0, variant__d4__skip=2.0))
    assert "Measured at d = 4, where the paper has d = 16." in bridge.evidence and "names no d" not in bridge.evidence


@pytest.mark.parametrize("order", ["3.3.1-full-order", "3.3.1-subnet-order", "figure2-subnet-order",
                                   "figure2-full-order"])
def test_the_reading_of_d_stands_without_records_too(order):
    assert order_of(order, NOTHING).evidence.startswith("The text names no d; read as d = 16.")


@pytest.mark.parametrize(("three_phases", "verdict"), [(0.5, SEEN), (3.0, PARTLY), (1.4, NOT_RESOLVED)])
def test_three_phases_against_each_fixed_ratio(three_phases, verdict):
    others = {"variant__d4__p20": 4.0, "variant__d4__p50": 1.4, "variant__d4__p80": 1.45}
    results = scores(variant__d4=three_phases, **others, **RATIOS)
    assert order_of("figure2-subnet-order", results).verdict is verdict


def test_the_bridge_zone_in_both_networks():
    results = scores(variant__d4=1.0, variant__d4__skip=2.0, variant__d4__full=1.4, variant__d4__skip__full=1.3)
    assert order_of("table5-subnet-fid-order", results).verdict is SEEN
    assert order_of("table5-full-fid-order", results).verdict is NOT_RESOLVED
    assert order_of("table5-subnet-is-order", results).verdict is OPEN  # no Inception Score in the records


def test_ends_of_the_phases():
    results = scores(variant__d16__e5=6.0, variant__d16__e20=2.0, variant__d16=0.6)
    assert order_of("figure7-order", results).verdict is SEEN


def test_latency_with_the_spread_of_its_repeats():
    times = {"var-d30": 4.0, "variant-d16": 2.0, "variant-d8": 1.5, "variant-d4": 1.0, "variant-d2": 0.7}
    clear = profiles(*(profile(system, [s, s + 0.001, s - 0.001]) for system, s in times.items()))
    assert order_of("table2-latency-order", clear).verdict is SEEN
    close = times | {"variant-d2": 0.85}
    steady, noisy = (profiles(*(profile(system, [s, s + spread * s, s - spread * s]) for system, s in close.items()))
                     for spread in (0.01, 0.06))
    assert order_of("table2-latency-order", steady).verdict is SEEN
    assert order_of("table2-latency-order", noisy).verdict is NOT_RESOLVED
    disturbed = profiles(*(profile(system, [s, s + 0.2, s - 0.2]) for system, s in times.items()))
    assert order_of("table2-latency-order", disturbed).verdict is OPEN  # its times are not used, its memory is
    assert order_of("table2-memory-order", disturbed).verdict is NOT_RESOLVED
    near = profiles(*(profile(system, [s]) for system, s in (times | {"variant-d2": 0.95}).items()))
    assert order_of("table2-latency-order", near).verdict is NOT_RESOLVED  # another process may differ as much
    assert order_of("table2-memory-order", clear).verdict is NOT_RESOLVED  # all the same here


def test_latencies_in_turns_are_told_apart_where_those_of_processes_are_not():
    full = {"var-d30": 4.0}
    apart = {"variant-d16": 2.0, "variant-d8": 1.5, "variant-d4": 1.0, "variant-d2": 0.9}
    alone = profiles(*(profile(system, [s]) for system, s in (full | apart).items()))
    assert order_of("table2-latency-order", alone).verdict is NOT_RESOLVED

    def turns(slower):
        """Two turns, in the second of which the machine is slower; the process of d = 2 runs in a slow hour."""
        found = [profile("var-d30", [4.0, 4.1])]
        for system, s in apart.items():
            paces = [pace * (1.3 if system == "variant-d2" else 1) for pace in (1, slower)]
            reference = {"median_s": 4.0 * paces[1], "iqr_s": None, "repeats_s": [4.0 * pace for pace in paces]}
            found.append(profile(system, [s * pace for pace in paces], reference=reference))
        return profiles(*found)

    for slower in (1.0, 1.5):
        seen = order_of("table2-latency-order", turns(slower))
        assert seen.verdict is SEEN and "variant-d4 1.0250" in seen.evidence
    waited = {"median_s": 4.0, "iqr_s": None, "repeats_s": [4.0], "cpu_s": [2.0]}
    steady = turns(1.0).profiles
    alone = order_of("table2-latency-order", profiles(*(
        record if name != "var-d30" else profile("var-d30", [4.0], latency=waited) for name, record in steady.items())))
    assert alone.verdict is OPEN and "variant-d4 1.0000" in alone.evidence  # seconds of its own
    waited = {"median_s": 1.0, "iqr_s": None, "repeats_s": [1.0], "cpu_s": [0.5]}
    disturbed = profiles(profile("var-d30", [4.0]), *(
        profile(system, [s], latency=waited, reference={"median_s": 4.0, "iqr_s": None, "repeats_s": [4.0]})
        for system, s in apart.items()))
    assert order_of("table2-latency-order", disturbed).verdict is OPEN


def test_profiles_of_another_experiment_are_left_out():
    stranger = profiles(*(profile(f"variant-d{d}", [float(d)], experiment="imagenet256") for d in (16, 8, 4, 2)))
    assert order_of("table2-latency-order", stranger).verdict is OPEN


# --- where the layout puts the picture ------------------------------------------------------------------------------


TOKENS = "Tokens in this layout: r1-r3 4.6 %, r4-r6 18.5 %, r7-r10 76.9 %."
FOLLOWS = "The more of the picture a zone makes, the more a subnet harms there: the ranking follows the layout."


def _seen(fids, recognised):
    """Real images rebuilt: FID and recognised share after the scales of each zone."""
    return reconstruction(DIGITS, *([zones[0]] * 3 + [zones[1]] * 3 + [zones[2]] * 4 for zones in (fids, recognised)))


@pytest.mark.parametrize(("zones", "recognised", "conclusion"), [
    ((3.0, 8.0, 20.0), (0.1, 0.35, 0.99), FOLLOWS),
    ((8.0, 20.0, 3.0), (0.1, 0.98, 0.99), FOLLOWS),  # a layout that makes the picture in the middle
    ((20.0, 8.0, 3.0), (0.1, 0.35, 0.99), "a subnet harms there: the ranking does not follow the layout."),
    ((20.0, 8.0, 30.0), (0.1, 0.35, 0.99), "Whether the ranking follows the layout cannot be decided."),
    ((20.0, 8.0, 7.5), (0.1, 0.35, 0.99), "Whether the ranking follows the layout cannot be decided."),
])
def test_an_order_of_scales_is_held_against_where_the_picture_is_made(zones, recognised, conclusion):
    record = _seen((78.0, 31.0, 0.1), recognised)
    evidence = order_of("table1-order", Results(_zones(*zones).scores, {}, reconstruction=record)).evidence
    rebuilt = "FID of real images rebuilt from their tokens: r1-r3 78, r1-r6 31, r1-r10 0.1; each zone adds to the"
    assert f"{TOKENS} {rebuilt} judge's accuracy, in percentage points: r1-r3 10," in evidence
    assert conclusion in evidence


@pytest.mark.parametrize("record", [None, _seen((78.0, 31.0, 0.1), (None, None, None))])
def test_an_order_of_scales_concludes_nothing_where_nobody_looked(record):
    some = order_of("table1-order", Results(_zones(3.0, 8.0, 20.0).scores, {}, reconstruction=record)).evidence
    assert TOKENS in some and "the layout." not in some.replace(TOKENS, "")
    assert ("rebuilt" in some) == (record is not None)
    part = order_of("table1-order", scores(free__d16__r4to6=8.0, free__d16=3.0)).evidence
    assert TOKENS in part and "follows the layout" not in part
    assert "Tokens" not in order_of("table4-collapse", scores(free__d16=3.0, var__d30=0.6)).evidence
    assert "Tokens" not in order_of("table1-order", NOTHING).evidence


# --- experiments ----------------------------------------------------------------------------------------------------


def test_depths_without_a_counterpart_are_left_out():
    record = score("variant-d4", 1.0, experiment="smoke")
    order = order_of("table2-fid-order", Results({"variant-d4": record}, {}), SMOKE)
    assert order.verdict is OPEN
    records = Records(SMOKE, NOTHING)
    assert records.here("variant-d16") == "variant-d4" and records.here("variant-d8") is None
    assert records.here("variant-d16-p10") is None
    assert records.here("variant-d16-skip", depth=2) == "variant-d2-skip"
    assert records.here("variant-d16-end1") == "variant-d4-e1" and records.here("llamagen-xxl") == "llamagen-mini"


def test_an_experiment_without_ablations_says_so():
    config = IMAGENET.model_copy(update={"ablations": None})
    order = order_of("3.3.1-full-order", NOTHING, config)
    assert order.verdict is OPEN and "no section `ablations`" in order.evidence
    assert order.command.endswith("--configfile workflow/config/imagenet256.yaml")


def test_scores_of_another_experiment_are_left_out():
    late = {"free-d16-r7to10": score("free-d16-r7to10", 3.0, experiment="smoke")}
    assert order_of("table1-order", Results(_zones(20.0, 8.0, 3.0).scores | late, {})).verdict is OPEN
    assert judge(SMOKE, scores(var__d30=1.0)) == judge(SMOKE, NOTHING)


def test_an_empty_phase_has_no_end():
    def end(phases, phase):
        supernet = DIGITS.supernet.model_copy(update={"phases": DIGITS.supernet.phases | {16: phases}})
        records = Records(DIGITS.model_copy(update={"supernet": supernet}), NOTHING)
        return records.here(f"variant-d16-end{phase}")

    assert [end((5, 15, 5), phase) for phase in (1, 2)] == ["variant-d16-e5", "variant-d16-e20"]
    assert [end((0, 15, 5), phase) for phase in (1, 2)] == [None, "variant-d16-e15"]
    assert [end((5, 0, 5), phase) for phase in (1, 2)] == ["variant-d16-e5", None]
    assert [end((5, 15, 0), phase) for phase in (1, 2)] == ["variant-d16-e5", None]  # the end of the training
