import pandas as pd
import pytest
from conftest import ROOT

from varient.config import load_config
from varient.paper import paper_table
from varient.records import ProfileRecord, Provenance, RecordError, ScoreRecord, write_record
from varient.report.inputs import PAPER_DEPTHS, table_inputs
from varient.report.tables import NO_COUNTERPART, Results, render, table2, table4

DIGITS = load_config(ROOT / "workflow/config/digits.yaml")
SMOKE = load_config(ROOT / "workflow/config/smoke.yaml")
PROVENANCE = Provenance(experiment="digits", seed=0, settings="x", weights_sha256={}, device="CPU", threads=1,
                        versions={}, git_commit=None, created="2026-01-01T00:00:00+00:00")


def _score(system, fid):
    return ScoreRecord(system=system, protocol="digits", extractor="x", num_images=2000, num_reference=1437,
                       images_sha256="ab", reference_sha256="cd", fid=fid, fid_sd=0.02, fid_bias=0.1,
                       inception_score=9.876, inception_score_sd=0.02, precision=0.81234, precision_sd=0.01, recall=0.5,
                       recall_sd=0.01, recognised=0.9876, provenance=PROVENANCE)


def _profile(system, latency_s, kv_cache_mib, **changes):
    once = {"median_s": latency_s, "iqr_s": None, "repeats_s": [latency_s]}
    values = {"system": system, "status": "ok", "reason": None, "steps": "6+4", "batch_size": 64, "precision": "fp32",
              "cache_policy": "lean", "weights": "trained", "num_parameters": 574_012, "latency": once,
              "decoder_latency": once, "warmup": 1, "memory": {"tensors_mib": 30.26, "kv_cache_mib": kv_cache_mib},
              "gpu_driver": None, "provenance": PROVENANCE}
    return ProfileRecord(**values | changes)


def _too_big(system):
    return _profile(system, 1.0, None, status="out_of_memory", reason="CUDA out of memory", latency=None,
                    decoder_latency=None, memory={"memory_cap_mib": 49152})


RESULTS = Results({r.system: r for r in (_score("var-d30", 0.5), _score("variant-d16", 0.6), _score("free-d16", 4.0),
                                         _score("variant-d16-full", 0.55), _score("real-holdout", 0.17))},
                  {r.system: r for r in (_profile("var-d30", 0.4, 20.25), _profile("variant-d16", 0.25, 11.5))})


def test_table2_has_the_papers_rows_in_its_order_then_ours_and_the_floor():
    frame = table2(DIGITS, RESULTS)
    papers = paper_table(2)["method"].tolist()
    assert frame["method"].tolist()[:len(papers)] == papers
    assert frame["method"].tolist()[-1] == "real images not trained on"
    assert frame["system"].tolist() == ["dit-mini", "llamagen-mini", "var-d30", "code-n6", "variant-d16", "variant-d8",
                                        "variant-d4", "variant-d2", "free-code-n6", "dit-mini-250", "real-holdout"]


def test_table2_shows_what_others_published():
    rows = table2(DIGITS, RESULTS).set_index("system")
    assert "2.27" in rows.loc["dit-mini-250", "published"] and rows.loc["dit-mini-250", "fid_paper"] == ""
    assert "1.95" in rows.loc["var-d30", "published"]


def test_table2_cells():
    rows = table2(DIGITS, RESULTS).set_index("method")
    ours = rows.loc["VARiant-d16"]
    assert ours["latency_s"] == "0.2500" and ours["speedup"] == "1.60" and ours["kv_cache_mb"] == "11.500"
    assert (ours["memory_mb"], ours["memory_mb_paper"]) == ("30.3", "28644")
    assert ours["params"] == "574K" and ours["fid"] == "0.600" and ours["precision"] == "0.812"
    assert (ours["fid_pm"], ours["precision_pm"]) == ("0.039", "0.020")
    assert (ours["fid_paper"], ours["kv_cache_mb_paper"], ours["source"]) == ("2.05", "16092", "measured (digits)")
    missing = rows.loc["VARiant-d8"]
    assert missing["fid"] == "" and missing["fid_paper"] == "2.12" and missing["source"] == "paper"
    assert rows.loc["DiT-XL/2", "fid"] == "" and rows.loc["DiT-XL/2", "fid_paper"] == "2.26"
    assert rows.loc["real images not trained on", "fid"] == "0.170"


def test_table2_takes_the_allocators_peak_where_there_is_one():
    memory = {"allocator_allocated_mib": 100.0, "allocator_reserved_mib": 200.0, "nvml_process_mib": 300.0}
    rows = table2(DIGITS, Results({}, {"variant-d8": _profile("variant-d8", 1.0, 1.0, memory=memory)}))
    assert rows.set_index("method").loc["VARiant-d8", "memory_mb"] == "100.0"


def test_table2_says_out_of_memory_and_no_number():
    rows = table2(DIGITS, Results({}, {"var-d30": _too_big("var-d30"),
                                       "variant-d16": _profile("variant-d16", 0.25, 11.5)})).set_index("method")
    full, subnet = rows.loc["VAR-d30"], rows.loc["VARiant-d16"]
    assert (full["memory_mb"], full["latency_s"], full["speedup"], full["kv_cache_mb"]) == ("OOM", "OOM", "", "")
    assert (full["source"], full["params"]) == ("measured (digits)", "574K")
    assert (subnet["latency_s"], subnet["speedup"]) == ("0.2500", "")
    assert not rows.isin(["0", "0.0", "0.0000"]).any(axis=None)


def test_table4_cells():
    rows = table4(DIGITS, RESULTS).set_index("subnet_depth_paper")
    ours = rows.loc["16"]
    assert (ours["training_free_subnet_fid"], ours["training_free_full_fid"]) == ("4.000", "0.500")
    assert (ours["joint_subnet_fid"], ours["joint_full_fid"]) == ("0.600", "0.550")
    assert ours["joint_subnet_fid_paper"] == "2.05"
    assert rows.loc["8", "joint_subnet_fid"] == ""


def test_depths_without_a_counterpart_show_the_paper_alone():
    rows = table2(SMOKE, Results({}, {})).set_index("method")
    assert rows.loc["VARiant-d16", "system"] == "variant-d4"
    assert rows.loc["VARiant-d8", "system"] == NO_COUNTERPART and rows.loc["VARiant-d8", "fid_paper"] == "2.12"
    assert table4(SMOKE, RESULTS).set_index("subnet_depth_paper").loc["8", "source"] == "paper"


def test_rendered_markdown(tmp_path):
    paths = render(4, DIGITS, RESULTS, tmp_path / "table4")
    assert [path.name for path in paths] == ["table4.csv", "table4.md", "table4.tex"]
    lines = (tmp_path / "table4.md").read_text().splitlines()
    assert lines[-1] == ("| 16 / 16 | 4.000 ± 0.039 / 5.42 | 0.500 ± 0.039 / 1.95 | 0.600 ± 0.039 / 2.05 | "
                         "0.550 ± 0.039 / 1.96 | measured (digits) |")
    tex = (tmp_path / "table4.tex").read_text()
    assert r"\begin{tabular}" in tex and r"4.000 $\pm$ 0.039 / 5.42" in tex and "–" not in tex.split(r"\toprule")[1]
    csv = pd.read_csv(tmp_path / "table4.csv", dtype=str, keep_default_na=False)
    assert csv.equals(table4(DIGITS, RESULTS).astype(str))


def test_an_unbuilt_table_and_a_wrong_record_are_refused(tmp_path):
    with pytest.raises(ValueError, match="table 9 is not built; built: 2, 3, 4"):
        render(9, DIGITS, RESULTS, tmp_path / "x")
    write_record(tmp_path / "profile.json", RESULTS.profiles["var-d30"])
    with pytest.raises(RecordError, match="profile.json: not a ScoreRecord"):
        Results.read([tmp_path / "profile.json"])


def test_the_workflow_asks_for_every_row():
    assert list(PAPER_DEPTHS) == [int(m.removeprefix("VARiant-d")) for m in paper_table(2)["method"]
                                  if m.startswith("VARiant")]
    wanted = table_inputs(2, DIGITS)["score"]
    assert set(table2(DIGITS, RESULTS)["system"]) <= set(wanted)


@pytest.mark.parametrize(("records", "message"), [
    ([_score("var-d30", 1.0), _score("variant-d16", 1.0).model_copy(update={"protocol": "adm"})], "not comparable"),
    ([_score("var-d30", 1.0), _score("variant-d16", 1.0).model_copy(update={"num_images": 50})], "not comparable"),
    ([_profile("var-d30", 1.0, 1.0), _profile("variant-d16", 1.0, 1.0, batch_size=1)], "not comparable"),
    ([_profile("var-d30", 1.0, 1.0), _profile("variant-d16", 1.0, 1.0, weights="random, seed 0")], "not comparable"),
    ([_profile("var-d30", 1.0, 1.0), _profile("var-d30", 2.0, 1.0)], "two profile records of var-d30"),
])
def test_numbers_that_mean_different_things_share_no_column(tmp_path, records, message):
    scores = {record.system: record for record in records if isinstance(record, ScoreRecord)}
    profiles = tuple(record for record in records if isinstance(record, ProfileRecord))
    results = Results(scores, {record.system: record for record in profiles}, profiles)
    with pytest.raises(RecordError, match=message):
        render(2, DIGITS, results, tmp_path / "table2")
    assert not list(tmp_path.iterdir())
