"""Verdicts on printed numbers that need no record."""

import subprocess
import sys
from collections import Counter

import pytest
from claim_fixtures import DIGITS, IMAGENET, NOTHING, SMOKE, print_instead, rows_instead, write_instead
from typer.testing import CliRunner

from varient import paper
from varient.claims import Verdict, judge
from varient.claims.claims import all_claims, rankings, table_claims, text_claims
from varient.cli import app
from varient.paper import paper_rows, paper_table
from varient.paper.published import published

HOLDS, CONSISTENT, CONTRADICTS, OPEN = Verdict.HOLDS, Verdict.CONSISTENT, Verdict.CONTRADICTS, Verdict.OPEN

LABELS = {1: ["strategy", "full_depth_scales", "subnet_scales", "subnet_depth"], 2: ["method"],
          3: ["batch_size", "method"], 4: ["subnet_depth"], 5: ["design"], 6: ["configuration"], 7: ["depth"],
          8: ["depth"]}


@pytest.fixture(scope="module")
def judged():
    return {judgement.id: judgement for judgement in judge(DIGITS, NOTHING)}


def _verdicts(config=DIGITS):
    return {judgement.id: judgement for judgement in judge(config, NOTHING)}


def test_every_cell_that_is_no_label_is_a_claim():
    cells = 0
    for number, labels in LABELS.items():
        frame = paper_table(number).drop(columns=labels)
        cells += int((frame != "").to_numpy().sum())
        cells -= 2 * int((frame == "OOM").all(axis=1).sum())  # an OOM row is one claim
    assert len(table_claims()) == cells == 183


def test_every_row_of_the_text_is_a_claim():
    assert [claim.id for claim in text_claims()] == [row["id"] for row in paper_rows("claims")]


@pytest.mark.parametrize(("table", "columns", "places"), [
    (2, ["latency_s", "fid", "precision", "recall"], 2), (2, ["speedup"], 1), (8, ["N6", "N7", "N8", "N9", "N10"], 2)])
def test_columns_keep_the_places_that_they_are_printed_with(table, columns, places):
    cells = [cell for column in columns for cell in paper_table(table)[column] if cell]
    assert [cell for cell in cells if len(cell.partition(".")[2]) != places] == []


def test_printed_numbers_are_shown_as_printed(judged):
    assert [judged[claim].printed for claim in ("4.2-d4-fid", "table2-dit-xl2-latency_s", "table2-dit-xl2-recall",
                                                "table8-d16-n7", "table1-mid")] == [
        "2.30", "19.20", "0.60", "2.00", "8.5"]
    assert "Different value: 2.30 in section 4.2" in judged["table2-variant-d4-fid"].evidence
    assert judged["table2-latency-order"].printed == "3.62 > 2.12; 2.12 > 1.40; 1.40 > 1.21; 1.21 > 1.03"


def test_what_agrees_is_judged_by_the_printed_places(monkeypatch):
    """2.3 would stand for 2.25 to 2.35, and so for 2.28 too."""
    write_instead(monkeypatch, "4.2-d4-fid", "2.3")
    assert "Same value" in _verdicts()["4.2-d4-fid"].evidence


BEYOND_THE_DIGITS = {
    "within 0.1 %": {"table2-var-d30-kv_cache_mb", "table2-code-n6-kv_cache_mb", "table2-variant-d2-kv_cache_mb",
                     "table3-b64-variant-d2-kv_cache_mb"},
    "to the nearest 5 %": {"abs-mem", "4.2-mem", "abs-d2-mem", "intro-d2-mem", "4.2-d2-mem", "intro-d8-mem"}}


@pytest.mark.parametrize("tolerance", BEYOND_THE_DIGITS)
def test_what_holds_by_a_tolerance_alone_says_which(judged, tolerance):
    said = f"It agrees {tolerance}, not to the last printed digit."
    assert {claim for claim, j in judged.items() if said in j.evidence} == BEYOND_THE_DIGITS[tolerance]
    assert {judged[claim].verdict for claim in BEYOND_THE_DIGITS[tolerance]} == {HOLDS}


@pytest.mark.parametrize(("printed", "says"), [("28687", False), ("28688", False), ("28677", True), ("28710", True)])
def test_a_cell_says_its_tolerance_where_it_needs_it(monkeypatch, printed, says):
    """The formula gives 28687.5."""
    print_instead(monkeypatch, 2, row=2, kv_cache_mb=printed)
    judgement = _verdicts()["table2-var-d30-kv_cache_mb"]
    assert judgement.verdict is HOLDS and ("agrees within 0.1 %" in judgement.evidence) is says


def test_printings_that_are_the_same_by_a_tolerance_alone_say_which(judged):
    assert "Same value within 0.1 %: 28687 in Table 3." in judged["table2-var-d30-kv_cache_mb"].evidence
    assert "Same value within 0.1 %: 18869 in Table 2." in judged["table3-b64-variant-d2-total_mb"].evidence
    assert "Same value to the nearest 5 %: 80% in abstract" in judged["4.3-d2"].evidence
    assert "other numbers, each to the nearest 5 %: 67.0 % from 28677, 9465" in judged["intro-d8-mem"].evidence
    assert "other numbers: 80.8 % from 28677, 5495 in Table 2;" in judged["4.3-d2"].evidence
    assert judged["4.2-d2-mem"].evidence.count("Same value in abstract, introduction.") == 1


@pytest.mark.parametrize(("printed", "verdict"), [("8085", HOLDS), ("8083", CONTRADICTS), ("8086", CONTRADICTS)])
def test_parameters_in_memory_are_exact_with_the_attention_mask(monkeypatch, printed, verdict):
    """8083.22 MB of weights, and 680 x 680 float32 values: 1.76 MB."""
    print_instead(monkeypatch, 3, row=0, params_mb=printed)
    judgement = _verdicts()["table3-b64-var-d30-params_mb"]
    assert (judgement.verdict, judgement.found) == (verdict, f"{8083.2225 + 680 * 680 * 4 / 2 ** 20:.2f} MB")
    assert "680 x 680 float32 values" in judgement.evidence and "agrees within" not in judgement.evidence


def test_ids_are_unique_and_every_claim_has_a_judgement():
    judgements = judge(DIGITS, NOTHING)
    ids = [claim.id for claim in all_claims()] + [ranking.id for ranking in rankings()]
    assert [judgement.id for judgement in judgements] == ids and len(set(ids)) == len(ids)
    for judgement in judgements:
        assert judgement.evidence and judgement.command and judgement.source and judgement.where


CONTRADICTED = {
    "4.2-d8-fid": "2.12", "4.2-d8-fid-code": "2.12", "4.2-d2-fid": "2.97", "intro-early": "+10.95",
    "4.4.1-d2-gain": "44.4 x",
    "intro-d8-fid": "2.12", "intro-d2-fid": "2.97", "4.2-d4-fid": "2.28",
    "intro-d16-mem": "40.4 %; total memory: 27 to 31 %",
    "4.5.2-mem": "7.4 %", "3.3.1-bridge-tokens": "13.4 %", "3.2.2-nested": "false",
    "table2-variant-d16-kv_cache_mb": "17091.6 MB", "table2-variant-d8-kv_cache_mb": "10465.3 MB",
    "table2-variant-d4-kv_cache_mb": "7152.2 MB",
    "table3-b64-variant-d16-kv_cache_mb": "17091.6 MB", "table3-b64-variant-d8-kv_cache_mb": "10465.3 MB",
    "table2-var-d30-memory_mb": "38977", "table3-b64-var-d30-total_mb": "39265",
    "table2-variant-d16-memory_mb": "27015", "table3-b64-variant-d16-total_mb": "28644",
    "table8-d2-n10": "2.14", "table8-d4-n10": "2.13",
    "table3-b256-variant-d2-total_mb": "51225 MB", "4.3-d2-b256": "51225 MB",
    "table2-llamagen-xxl-steps": "576", "4.2-ar-steps": "576", "4.2-magnitude-dit-xl2": "5.3 x",
    "3.3.2-gradient": "reaches 14 of 14 full-only layers", "3.3.1-solely": "reaches 14 of 14 full-only layers",
    "3.3.1-late-fid": "2.32", "3.3.1-inaccurate": "-1.65", "4.4.2-starved": "38.4 %", "4.5.2-linear": "4.0",
    "intro-50": "53.3 %", "3.2.1-50": "53.3 %", "table4-d16-depth_share": "53.3 %",
    "table4-d8-depth_share": "26.7 %", "table4-d2-depth_share": "6.7 %",
    **dict.fromkeys(("abs-single-model", "intro-single-model", "3.2.2-single-model", "4.2-single-model",
                     "4.5.3-single-model"), "4 models"),
    "intro-recommended": "N=7", "6.2-distillation": "CE(p(r_k | r_<k), r*_k) and L (Eq. 4)",
    "conf-mem": "36.0 %", "2.2-code-memory": "19943 < 39265",
}


def test_what_is_contradicted_and_by_what(judged):
    assert {id: j.found for id, j in judged.items() if j.verdict is CONTRADICTS} == CONTRADICTED


@pytest.mark.parametrize(("claim", "found"), [
    ("abs-mem", "40.4 and 63.5 %; total memory: 27 to 31 and 47 %"), ("abs-d2-mem", "80.8 %; total memory: 52 %"),
    ("4.2-d4-kv", "7152.2 MB"), ("4.2-code-kv", "8160.0 MB"), ("4.2-d2-kv", "5495.6 MB"),
    ("4.3-d16", "40.4 %"), ("4.3-d8", "63.5 %"), ("4.3-d2", "80.8 %"), ("3.2.1-flops", "46.7 %"),
    ("6.3-rec-mem", "36.0 %"), ("6.3-rec-mem-from", "28687.5 MB"), ("6.3-rec-mem-to", "18351.6 MB"),
    ("intro-d8-mem", "63.5 %; total memory: 47 %"), ("intro-d2-mem", "80.8 %; total memory: 52 %"),
    ("4.2-mem", "40.4 and 63.5 %; total memory: 27 to 31 and 47 %"), ("4.2-d2-mem", "80.8 %; total memory: 52 %"),
    ("4.5.3-mem", "36.0 %"), ("fig5-mem", "36.0 %"), ("4.2-d4-less", "14.1 %; total memory: 2 %"),
    ("4.5.1-linear", "1.0; printed KV caches: 1.8; printed totals: 3.3"),
    ("2.1-quadratic", "1.72"), ("table4-d4-depth_share", "13.3 %"), ("4.2-code-params", "2010020356 and 310283520"),
    ("4.3-d30-oom", "more than 65458 MB"),
    ("table2-var-d30-kv_cache_mb", "28687.5 MB"), ("table2-code-n6-kv_cache_mb", "8160.0 MB"),
    ("table2-code-n6-params", "2010020356 and 310283520"), ("table2-variant-d4-steps", "6 and 4"),
    ("table3-b128-variant-d8-kv_cache_mb", "20930.6 MB"), ("table3-b64-variant-d2-params_mb", "8084.99 MB"),
    ("table3-b128-var-d30-total_mb", "more than 65458 MB"), ("table3-b256-variant-d8-total_mb", "more than 49944 MB"),
    ("table6-bridge_zone", "N = 6, r1-r6 full, r7-r10 subnet"),
])
def test_what_holds(judged, claim, found):
    assert (judged[claim].verdict, judged[claim].found) == (HOLDS, found)
    assert judged[claim].source == "arithmetic" and "From shapes" in judged[claim].evidence


def test_only_arithmetic_makes_a_claim_hold(judged):
    """That the paper's numbers fit together says nothing of what they were measured from."""
    by_source = {(j.verdict, j.source) for j in judged.values() if j.verdict in (HOLDS, CONSISTENT)}
    assert by_source == {(HOLDS, "arithmetic"), (CONSISTENT, "paper")}
    counts = Counter(j.verdict for j in judged.values() if j.kind != "ranking")
    assert set(counts) == {HOLDS, CONSISTENT, CONTRADICTS, OPEN} and counts[CONTRADICTS] == len(CONTRADICTED) - 1


def test_a_share_of_the_layers_is_not_rounded_to_fives(judged):
    """Their column prints 13 % too; 5, 25 and 50 % stand for 6.7, 26.7 and 53.3 %."""
    shares = {depth: judged[f"table4-d{depth}-depth_share"].verdict for depth in (2, 4, 8, 16)}
    assert shares == {2: CONTRADICTS, 4: HOLDS, 8: CONTRADICTS, 16: CONTRADICTS}


@pytest.mark.parametrize(("claim", "found", "words"), [
    ("intro-d16-speed", "1.71 x", "3.62, 2.12 in Table 2"), ("intro-d8-speed", "2.59 x", "3.62, 1.40 in Table 2"),
    ("intro-d2-speed", "3.51 x", ""), ("4.2-d2-speed", "3.51 x", ""), ("abs-d2-speed", "3.51 x", ""),
    ("4.3-share", "73.6 %", ""), ("3.2.1-early", "10.96", ""), ("intro-late", "3.47", ""),
    ("4.4.1-d4-gain", "57.0 x", ""), ("4.4.1-d2-collapse", "132", "other numbers: 132 in Table 4."),
    ("table2-variant-d16-speedup", "1.71 x", ""), ("table2-code-n6-speedup", "2.85 x", ""),
    ("table6-batch_size", "1024", ""), ("table6-hardware", "8", ""), ("table7-d2-total", "35", ""),
    ("4.5.2-n7", "0.05", "2.05, 2.00 in Table 8"), ("4.5.2-n8", "0.02", ""), ("4.5.2-n9", "0.01", ""),
    ("4.5.2-n10", "0.01", "1.97, 1.96 in Table 8"), ("6.3-delta", "0.04", "2.00, 1.96 in section 6.3"),
    ("6.3-rec-quality", "2.0 %", "relative increase of FID"),
    ("4.4.1-full-least", "1.96", "2.14, 2.13, 2.02, 1.96 in Table 4"), ("4.4.1-full-most", "2.14", "in Table 4"),
    ("4.4.1-shallow-most", "2.97", ""), ("4.4.1-deep-least", "2.05", ""), ("3.3.1-stagnates", "0.52 %", "5.75, 5.72"),
    ("4.2-magnitude-llamagen-xxl", "20.5 x", "74.27, 3.62 in Table 2"), ("4.5.2-diminishing", "0.20", ""),
    ("4.5.1-diminishing", "0.10", ""), ("6.3-saturates", "22 %", "no further gain"),
    ("table2-variant-d8-memory_mb", "20741 MB", "8085, 33397 (batch 128) in Table 3"),
    ("4.3-d8-b128", "33433 MB", "if all but the parameters grows with the batch"),
])
def test_what_follows_from_other_numbers_of_the_paper(judged, claim, found, words):
    assert (judged[claim].verdict, judged[claim].found) == (CONSISTENT, found) and words in judged[claim].evidence
    assert "Follows from the paper's other numbers" in judged[claim].evidence


@pytest.mark.parametrize("claim", ["abs-d30-fid", "intro-full-fid", "intro-d16-fid", "3.3.1-p10-loss8",
                                   "3.3.1-p10-loss", "3.3.1-p01-loss", "3.3.1-early-fid", "4.5.3-fid", "6.3-rec-fid",
                                   "table4-d2-joint_full_fid", "table4-d4-joint_full_fid", "conf-fid"])
def test_what_only_trained_weights_can_tell(judged, claim):
    assert judged[claim].verdict is OPEN and "Needs the paper's weights" in judged[claim].evidence
    assert "imagenet256" in judged[claim].command


def test_a_verdict_says_from_what(judged):
    assert "Follows from the paper's other numbers: 1.71 x" in judged["table2-variant-d16-speedup"].evidence
    assert "From shapes: The formula" in judged["table2-var-d30-kv_cache_mb"].evidence
    assert "From shapes" not in judged["table2-variant-d16-speedup"].evidence


def test_a_limit_that_a_rounded_number_is_astride_of_is_open(judged):
    """130 stands for 129.5 to 130.5; whether it is over 130 cannot be said."""
    judgement = judged["4.4.1-d4-collapse"]
    assert judgement.verdict is OPEN and "On the limit within rounding: 130 in Table 4." in judgement.evidence


@pytest.mark.parametrize(("printed", "verdict"), [("131", CONSISTENT), ("129", CONTRADICTS)])
def test_a_limit_is_kept_or_not(monkeypatch, printed, verdict):
    print_instead(monkeypatch, 4, row=1, training_free_subnet_fid=printed)
    assert _verdicts()["4.4.1-d4-collapse"].verdict is verdict


def test_a_ratio_beyond_what_is_said_of_all_contradicts_it(monkeypatch, judged):
    assert "another value: 2.32 from 1.96, 2.32 in section 3.3.1" in judged["3.3.1-late-fid"].evidence
    write_instead(monkeypatch, "3.3.1-late-fid", "≤ 2.4")
    assert _verdicts()["3.3.1-late-fid"].verdict is CONSISTENT


def test_a_range_is_on_the_side_of_what_lies_in_it(monkeypatch, judged):
    """Sec. 4.4.1 prints "1.96-2.14" for the full networks: 2.78 and 2.16 of Table 8 are outside."""
    assert "Different value: 2.13 in Table 4; at most 2.14 in section 4.4.1." in judged["table8-d4-n10"].evidence
    within = "Within what else is said: at least 1.96 in section 4.4.1; at most 2.14 in section 4.4.1."
    assert within in judged["table4-d4-joint_full_fid"].evidence
    assert judged["4.2-d4-fid"].verdict is CONTRADICTS  # 2.30 is within 2.28-2.97, but three tables print 2.28
    rows_instead(monkeypatch, "claims", lambda claims: [row for row in claims if "4.4.1-full" not in row["id"]])
    without = _verdicts()
    assert [without[f"table{cell}"].verdict for cell in ("4-d4-joint_full_fid", "8-d4-n10")] == [CONTRADICTS] * 2


def test_totals_of_memory_grow_with_the_batch(monkeypatch, judged):
    """18870 and 29635 at batch 64 and 128 lead to 51 GB at 256, which is above the card's memory."""
    cell = judged["table3-b256-variant-d2-total_mb"]
    assert "51225 MB from 8085, 18870 in Table 3; 51185 MB from 8085, 29635 (batch 128) in Table 3" in (
        cell.evidence.replace(", if all but the parameters grows with the batch", ""))
    assert "with 16 images decoded at once" in judged["4.3-d2-b256"].evidence
    assert judged["table3-b128-variant-d16-total_mb"].verdict is OPEN  # out of memory is no number
    print_instead(monkeypatch, 3, row=11, total_mb="51200")
    large = _verdicts()
    assert large["table3-b256-variant-d2-total_mb"].verdict is CONSISTENT
    assert large["4.3-d2-b256"].verdict is CONTRADICTS  # 51200 MB do not fit


def test_nesting_is_told_for_both_readings(judged):
    evidence = judged["3.2.2-nested"].evidence
    assert "I_8 has layers 4, 8, 12, 16, 20, 24, which I_16 lacks." in evidence
    assert "0.5 D = 15 and 0.25 D = 7.5, no whole number: rounded up, every layer of I_8 is in I_15; rounded down, " \
           "I_7 has layers 9, 19, which I_15 lacks." in evidence


def test_one_supernet_for_each_depth_is_no_single_model(monkeypatch, judged):
    for claim in ("abs-single-model", "4.5.3-single-model"):
        assert "4 models from 1.96, 2.02, 2.13, 2.14 in Table 4" in judged[claim].evidence
        assert "We currently train one subnet with the full network" in judged[claim].evidence
    rows_instead(monkeypatch, "table4", lambda rows: [row | {"joint_full_fid": "1.96"} for row in rows])
    rows_instead(monkeypatch, "table8", lambda rows: [row | {"N10": "1.96"} for row in rows])
    assert _verdicts()["abs-single-model"].verdict is CONSISTENT


def test_the_second_edition_is_held_against_the_first_and_contradicts_nothing_in_it(monkeypatch, judged):
    assert "Against the first edition: Different value: 1.7x in section 6.3." in judged["conf-speed"].evidence
    assert "another value: 0.05 from" in judged["conf-fid"].evidence
    rows_instead(monkeypatch, "claims", lambda claims: [row for row in claims if not row["id"].startswith("conf-")])
    without = _verdicts()
    assert {claim: judged[claim] for claim in without} == without


def test_a_model_that_is_known_from_a_readme_is_not_known_from_shapes(judged):
    steps = judged["table2-llamagen-xxl-steps"]
    assert steps.source != "arithmetic" and "LlamaGen's README" in steps.source
    assert "16 x 16, 256 steps" in steps.evidence and judged["table2-var-d30-steps"].source == "arithmetic"


def test_the_words_of_the_paper_are_shown_and_their_number_is_judged(monkeypatch, judged):
    assert judged["4.2-magnitude-dit-xl2"].printed == "order-of-magnitude"
    write_instead(monkeypatch, "4.2-magnitude-dit-xl2", "over 5", column="means")
    assert _verdicts()["4.2-magnitude-dit-xl2"].verdict is CONSISTENT


@pytest.mark.parametrize("claim", ["3.3.1-p01-full", "3.3.1-p01-sub", "3.3.1-p10-sub", "3.3.1-p10-full",
                                   "3.3.1-p01-loss", "3.3.1-early-fid"])
def test_section_3_3_1_names_no_depth(judged, claim):
    assert judged[claim].evidence.startswith("The text names no d; read as d = 16.")


def test_a_network_that_the_paper_does_not_name_is_not_asked_for(monkeypatch, judged):
    for claim in ("table8-d30-n6", "table8-d30-n10", "6.3-full-fid"):
        judgement = judged[claim]
        assert judgement.verdict is OPEN and judgement.command.startswith("cat ")
        assert "The paper does not say which supernet's full network it is." in judgement.evidence
        assert "In Table 4 that FID is printed for: d = 16: FID, joint full." in judgement.evidence
    print_instead(monkeypatch, 4, row=3, joint_full_fid="1.97")
    assert "printed for: none." in _verdicts()["table8-d30-n6"].evidence


def test_the_published_numbers_are_shown_where_there_are_any(judged):
    assert "Published elsewhere: 2.34 (LlamaGen README)" in judged["table2-llamagen-xxl-fid"].evidence
    assert not [j.id for j in judged.values() if "Published elsewhere: ." in j.evidence]
    assert "Published elsewhere" not in judged["table2-variant-d16-fid"].evidence  # a source without a score


def test_llamagen_is_read_as_the_model_whose_fid_is_printed(judged):
    """Of its authors' two models; its settings are published ones."""
    source = published("llamagen-xxl")
    fid = next(row["fid"] for row in paper_rows("table2") if row["method"] == "LlamaGen-XXL")
    side, tokens = source.protocol.settings["image_size"], source.protocol.settings["tokens"]
    assert (side, tokens) == (384, 24 ** 2)
    assert fid in [number.fid for number in source.numbers if number.protocol == "authors"]
    assert judged["table2-llamagen-xxl-steps"].evidence.startswith(
        f"Read as the {side} x {side} model, whose FID of {fid} is printed (LlamaGen's README); it decodes 24 x 24 "
        f"tokens. At 256 x 256 it would be 16 x 16, {(24 * 256 // side) ** 2} steps.")


def test_readings_of_memory_claim_no_fit(judged):
    """Whether the number fits is what the verdict says, and "44 %" does not."""
    assert judged["intro-d16-mem"].evidence.startswith('"Memory" read as the KV cache. From shapes')
    assert not [j.id for j in judged.values() if "which the number fits" in j.evidence]


def test_the_majority_of_printings_stays_open_and_says_who_differs(judged):
    table = judged["table2-variant-d8-fid"]
    assert table.verdict is OPEN and "Different value: 2.15 in introduction" in table.evidence
    assert judged["table8-d16-n10"].verdict is judged["table8-d8-n10"].verdict is OPEN


def test_wrong_kv_cells_name_their_witnesses(judged):
    evidence = judged["table3-b64-variant-d8-kv_cache_mb"].evidence
    assert "10465.5 MB from 20931 (batch 128) in Table 3" in evidence and "63.5% in section 4.3" in evidence
    assert "40.4% in section 4.3" in judged["table2-variant-d16-kv_cache_mb"].evidence


def test_the_formula_is_on_the_side_of_section_4_3(judged):
    assert "43.9 % from 28687, 16092 in Table 3" in judged["4.3-d16"].evidence


def test_predictions_never_decide(judged):
    for judgement in judged.values():
        assert judgement.source != "predicted" or judgement.verdict is OPEN
    for claim in ("table2-variant-d2-latency_s", "6.3-rec-speed", "3.2.1-late", "table3-b128-variant-d16-total_mb",
                  "table2-variant-d4-memory_mb", "conf-speed"):
        assert (judged[claim].verdict, judged[claim].source) == (OPEN, "predicted")
    assert "fitted to this very cell" in judged["table2-var-d30-latency_s"].evidence


def test_without_records_nothing_is_measured(judged):
    assert {judgement.verdict for judgement in judged.values()} == {HOLDS, CONSISTENT, CONTRADICTS, OPEN}
    assert judged["table1-order"].command == "snakemake --cores all results/ablations.csv"


@pytest.mark.parametrize("config", [IMAGENET, SMOKE], ids=lambda config: config.name)
def test_numbers_do_not_depend_on_the_experiment(judged, config):
    other = _verdicts(config)
    numbers = {claim.id for claim in all_claims()}
    assert {id: other[id] for id in numbers} == {id: judged[id] for id in numbers}


@pytest.mark.parametrize(("table", "row", "column", "value", "claim", "verdict"), [
    (2, 4, "kv_cache_mb", "17092", "table2-variant-d16-kv_cache_mb", HOLDS),
    (2, 4, "kv_cache_mb", "17092", "table3-b64-variant-d16-kv_cache_mb", CONTRADICTS),
    (3, 2, "kv_cache_mb", "10465", "table3-b64-variant-d8-kv_cache_mb", HOLDS),
    (2, 6, "kv_cache_mb", "7152", "table2-variant-d4-kv_cache_mb", HOLDS),
    (3, 7, "kv_cache_mb", "10996", "table3-b128-variant-d2-kv_cache_mb", HOLDS),       # within 0.1 %
    (3, 7, "kv_cache_mb", "11091", "table3-b128-variant-d2-kv_cache_mb", CONTRADICTS),
    (2, 2, "memory_mb", "38980", "table2-var-d30-memory_mb", OPEN),
    (2, 2, "memory_mb", "38980", "table3-b64-var-d30-total_mb", OPEN),
    (2, 2, "memory_mb", "30000", "table2-var-d30-memory_mb", CONTRADICTS),             # below KV and parameters
    (3, 4, "total_mb", "40000", "table3-b128-var-d30-total_mb", CONTRADICTS),
    (8, 0, "N10", "2.14", "table8-d2-n10", OPEN),
    (4, 0, "joint_full_fid", "2.78", "4.4.1-full-most", CONTRADICTS),                  # which prints 2.14
    (4, 3, "depth_share", "53%", "table4-d16-depth_share", HOLDS),
    (8, 3, "N10", "1.97", "table8-d16-n10", CONTRADICTS),
    (4, 0, "joint_subnet_fid", "2.98", "table4-d2-joint_subnet_fid", CONTRADICTS),
    (2, 4, "speedup", "1.8", "table2-variant-d16-speedup", CONTRADICTS),
    (2, 4, "latency_s", "2.5", "table2-variant-d16-speedup", CONTRADICTS),
    (2, 1, "steps", "576", "table2-llamagen-xxl-steps", HOLDS),
    (2, 2, "params", "1.9B", "table2-var-d30-params", CONTRADICTS),
    (7, 1, "total_epochs", "27", "table7-d8-total", CONTRADICTS),
    (6, 3, "value", "1024 (64 per GPU x 8 GPUs)", "table6-batch_size", CONTRADICTS),
    (6, 7, "value", "4 x NVIDIA H100 (80GB)", "table6-hardware", CONTRADICTS),
    (6, 9, "value", "N=6 (r1-r5 full depth, r6-r10 subnet depth)", "table6-bridge_zone", CONTRADICTS),
    (1, 3, "fid", "5.5", "table1-late", CONTRADICTS),                                  # Table 4 prints 5.42
])
def test_another_printed_cell_gives_another_verdict(monkeypatch, table, row, column, value, claim, verdict):
    print_instead(monkeypatch, table, row=row, **{column: value})
    assert _verdicts()[claim].verdict is verdict


@pytest.mark.parametrize(("claim", "value", "verdict"), [
    ("3.3.1-bridge-tokens", "13%", HOLDS), ("4.5.2-mem", "7%", HOLDS), ("intro-d16-mem", "40%", HOLDS),
    ("intro-d8-fid", "2.12", OPEN), ("4.2-d4-fid", "2.28", OPEN), ("4.3-d8", "67.0%", CONTRADICTS),
    ("3.2.1-flops", "50.1%", CONTRADICTS), ("abs-d2-speed", "3.7x", CONTRADICTS), ("4.3-share", "75.0%", CONTRADICTS),
    ("abs-mem", "40-70%", CONTRADICTS), ("intro-d8-speed", "2.8x", CONTRADICTS), ("4.5.2-n8", "0.05", CONTRADICTS),
    ("intro-d8-mem", "70%", CONTRADICTS), ("6.3-delta", "+0.06", CONTRADICTS), ("6.3-rec-quality", "4%", CONTRADICTS),
    ("intro-d16-fid", "2.06", CONTRADICTS), ("4.5.3-fid", "2.01", CONTRADICTS),
])
def test_another_number_in_the_text_gives_another_verdict(monkeypatch, claim, value, verdict):
    write_instead(monkeypatch, claim, value)
    assert _verdicts()[claim].verdict is verdict


def test_torch_stays_out():
    code = ("import sys; from pathlib import Path; from varient.claims import judge; from varient.config import "
            "load_config; from varient.results import Results; judge(load_config(Path("
            "'workflow/config/digits.yaml')), Results({}, {})); sys.exit('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- rows in unknown words ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "row", "column", "text", "named"), [
    ("claims", "intro-d16-mem", "kind", "memory", "'memory'"),
    ("claims", "intro-d16-mem", "kind", "", "kv_mb"),
    ("claims", "intro-d16-mem", "of", "variant-16", "'variant-16'"),
    ("claims", "intro-d16-mem", "of", "variant-d99", "variant-d99"),
    ("claims", "intro-d16-mem", "of", "", "''"),
    ("claims", "intro-d16-mem", "of", "variant-full", "variant-full"),      # of which nothing can be computed
    ("claims", "abs-mem", "of", "variant-d16; variant-d8; variant-d2", "<system>; <system?>"),
    ("claims", "4.5.2-n7", "of", "variant-d16", "<trained>; <trained>"),
    ("claims", "3.2.2-nested", "of", "code-n6; variant-d16", "code-n6"),
    ("claims", "3.3.1-p10-loss8", "of", "variant-d16-p100-full; eight", "'eight'"),
    ("claims", "4.5.2-linear", "of", "K", "'K'"),
    ("claims", "4.3-d2-b256", "batch", "many", "'many'"),
    ("claims", "4.2-magnitude-dit-xl2", "means", "much", "means 'much'"),
    ("claims", "4.2-magnitude-dit-xl2", "means", "", "value 'order-of-magnitude'"),
    ("cells", "table2-{system}-params", "finding", "{count} parameters", "{params}"),
    ("claims", "abs-d16-fid", "value", "better", "'better'"),
    ("cells", "table2-{system}-fid", "kind", "score", "'score'"),
    ("cells", "table2-{system}-fid", "of", "{network}", "{system}"),
    ("cells", "table2-{system}-fid", "claim", "{0}", "{method}"),
    ("cells", "table2-{system}-fid", "column", "fid50k", "fid50k"),
    ("cells", "table5-r7-r10-full_is", "row", "skip r8-r10", "skip r8-r10"),
    ("cells", "table7-d{depth}-phase1", "of", "d{depth}; phase4", "phase4"),
    ("cells", "table2-{system}-fid", "table", "9", "Table 9"),
    ("rankings", "table2-fid-order", "kind", "score", "'score'"),
    ("rankings", "table2-memory-order", "kind", "kv_mb", "'kv_mb'"),        # which no record is asked for
    ("rankings", "table2-fid-order", "order", "variant-d2", "variant-d2"),
    ("rankings", "table2-fid-order", "order", "variant-d2 > variant-2", "variant-2"),
    ("rankings", "table2-fid-order", "order", "variant-d2 < variant-d4", "variant-d2 < variant-d4"),
    ("rankings", "table2-fid-order", "order", "variant-d2 > ... > variant-d16", "..."),
    ("rankings", "3.3.1-best-p01", "order", "variant-d16-p*-all > variant-d16", "p10-all"),
    ("rankings", "table2-fid-order", "depth", "4", "'4'"),
    ("rankings", "figure2-full-order", "margin", "0.05", "'0.05'"),
])
def test_a_row_in_unknown_words_is_named_before_anything_is_written(monkeypatch, tmp_path, name, row, column, text,
                                                                    named):
    write_instead(monkeypatch, row, text, name, column)
    result = CliRunner().invoke(app, ["claims", "-o", str(tmp_path / "verdicts")])
    message = str(result.exception)
    assert isinstance(result.exception, SystemExit) and "\n" not in message
    assert f"varient/paper/{name}.csv, row {row}: " in message and named in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", ["new,section 9", "new,section 9,something,3,fid,variant-d16,,more"])
def test_a_row_with_too_few_or_too_many_cells_is_named(monkeypatch, tmp_path, line):
    (tmp_path / "claims.csv").write_text(f"id,where,claim,value,kind,of,reading\n{line}\n")
    monkeypatch.setattr(paper, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match=r"claims\.csv, row new: .*reading$"):
        paper_rows("claims")
