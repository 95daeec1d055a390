"""Verdicts on printed numbers that need no record."""

import subprocess
import sys

import pytest
from claim_fixtures import DIGITS, IMAGENET, NOTHING, SMOKE, print_instead, write_instead

from varient.claims import Verdict, judge
from varient.claims.claims import READINGS, all_claims, table_claims, text_claims
from varient.claims.claims import _text_rows as text_rows
from varient.claims.directions import directions
from varient.paper import paper_table

HOLDS, CONTRADICTS, OPEN = Verdict.HOLDS, Verdict.CONTRADICTS, Verdict.OPEN

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
    assert len(table_claims()) == cells == 179


def test_every_row_of_the_text_is_read():
    rows = [row["id"] for row in text_rows()]
    assert set(rows) == set(READINGS)
    assert [claim.id for claim in text_claims() if claim.id in rows] == rows


def test_ids_are_unique_and_every_claim_has_a_judgement():
    judgements = judge(DIGITS, NOTHING)
    ids = [claim.id for claim in all_claims()] + [direction.id for direction in directions()]
    assert [judgement.id for judgement in judgements] == ids and len(set(ids)) == len(ids)
    for judgement in judgements:
        assert judgement.evidence and judgement.command and judgement.source and judgement.where


CONTRADICTED = {
    "4.2-d8-fid": "2.12", "4.2-d2-fid": "2.97", "intro-early": "+10.95", "4.4.1-d2-gain": "44.4 x",
    "intro-d8-fid": "2.12", "intro-d2-fid": "2.97", "4.2-d4-fid": "2.28",
    "intro-d16-mem": "40.4 %", "4.5.2-mem": "7.4 %", "3.3.1-bridge-tokens": "13.4 %", "3.2.2-nested": "False",
    "table2-variant-d16-kv_cache_mb": "17091.6 MB", "table2-variant-d8-kv_cache_mb": "10465.3 MB",
    "table2-variant-d4-kv_cache_mb": "7152.2 MB",
    "table3-b64-variant-d16-kv_cache_mb": "17091.6 MB", "table3-b64-variant-d8-kv_cache_mb": "10465.3 MB",
    "table2-var-d30-memory_mb": "38977", "table3-b64-var-d30-total_mb": "39265",
    "table2-variant-d16-memory_mb": "27015", "table3-b64-variant-d16-total_mb": "28644",
    "table8-d2-n10": "2.14", "table4-d2-joint_full_fid": "2.78",
    "table8-d4-n10": "2.13", "table4-d4-joint_full_fid": "2.16",
    "table2-llamagen-xxl-steps": "576",
}


def test_what_is_contradicted_and_by_what(judged):
    assert {id: j.found for id, j in judged.items() if j.verdict is CONTRADICTS} == CONTRADICTED


@pytest.mark.parametrize(("claim", "found"), [
    ("abs-mem", "40.4 and 63.5 %"), ("abs-d2-mem", "80.8 %"), ("abs-d2-speed", "3.51 x"),
    ("4.2-d4-kv", "7152.2 MB"), ("4.2-code-kv", "8160.0 MB"), ("4.2-d2-kv", "5495.6 MB"),
    ("4.3-share", "73.6 %"), ("4.3-d16", "40.4 %"), ("4.3-d8", "63.5 %"), ("4.3-d2", "80.8 %"),
    ("3.2.1-flops", "46.7 %"), ("3.2.1-early", "10.96"),
    ("intro-late", "3.47"), ("4.4.1-d4-gain", "57.0 x"), ("6.3-rec-mem", "36.0 %"), ("6.3-rec-mem-from", "28687.5 MB"),
    ("6.3-rec-mem-to", "18351.6 MB"),
    ("table2-var-d30-kv_cache_mb", "28687.5 MB"), ("table2-code-n6-kv_cache_mb", "8160.0 MB"),
    ("table2-variant-d16-speedup", "1.71 x"), ("table2-code-n6-speedup", "2.85 x"),
    ("table2-code-n6-params", "2010020356 and 310283520"), ("table2-variant-d4-steps", "6 and 4"),
    ("table3-b128-variant-d8-kv_cache_mb", "20930.6 MB"), ("table3-b64-variant-d2-params_mb", "8083.2 MB"),
    ("table3-b128-var-d30-total_mb", "more than 65458 MB"), ("table3-b256-variant-d8-total_mb", "more than 49944 MB"),
    ("table6-batch_size", "1024"), ("table6-hardware", "8"), ("table7-d2-total", "35"),
    ("table6-bridge_zone", "N = 6, r1-r6 full, r7-r10 subnet"),
])
def test_what_holds(judged, claim, found):
    assert (judged[claim].verdict, judged[claim].found) == (HOLDS, found)


def test_the_majority_of_printings_stays_open_and_says_who_differs(judged):
    table = judged["table2-variant-d8-fid"]
    assert table.verdict is OPEN and "Printed otherwise: 2.15 in introduction" in table.evidence
    assert judged["table8-d16-n10"].verdict is judged["table8-d8-n10"].verdict is OPEN


def test_kv_slips_name_their_witnesses(judged):
    evidence = judged["table3-b64-variant-d8-kv_cache_mb"].evidence
    assert "10465.5 MB from 20931 (batch 128) in Table 3" in evidence and "63.5% in section 4.3" in evidence
    assert "40.4% in section 4.3" in judged["table2-variant-d16-kv_cache_mb"].evidence


def test_the_formula_is_on_the_side_of_section_4_3(judged):
    assert "43.9 % from 28687, 16092 in Table 3" in judged["4.3-d16"].evidence


def test_predictions_never_decide(judged):
    for judgement in judged.values():
        assert judgement.source != "predicted" or judgement.verdict is OPEN
    for claim in ("table2-variant-d2-latency_s", "6.3-rec-speed", "3.2.1-late", "table3-b128-variant-d16-total_mb",
                  "table2-variant-d8-memory_mb"):
        assert (judged[claim].verdict, judged[claim].source) == (OPEN, "predicted")
    assert "fitted to this very cell" in judged["table2-var-d30-latency_s"].evidence


def test_without_records_nothing_is_measured(judged):
    assert {judgement.verdict for judgement in judged.values()} == {HOLDS, CONTRADICTS, OPEN}
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
    (8, 0, "N10", "2.14", "table4-d2-joint_full_fid", OPEN),
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
    ("abs-mem", "40-70%", CONTRADICTS),
])
def test_another_number_in_the_text_gives_another_verdict(monkeypatch, claim, value, verdict):
    write_instead(monkeypatch, claim, value)
    assert _verdicts()[claim].verdict is verdict


def test_a_claim_that_nobody_has_read_stays_open(monkeypatch):
    from varient.claims import claims

    rows = [*claims._text_rows(), {"id": "new", "where": "section 9", "claim": "something", "value": "3"}]
    monkeypatch.setattr(claims, "_text_rows", lambda: rows)
    assert _verdicts()["new"].verdict is OPEN


def test_torch_stays_out():
    code = ("import sys; from pathlib import Path; from varient.claims import judge; from varient.config import "
            "load_config; from varient.report.results import Results; judge(load_config(Path("
            "'workflow/config/digits.yaml')), Results({}, {})); sys.exit('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
