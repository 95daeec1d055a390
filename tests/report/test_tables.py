import pandas as pd
import pytest
from conftest import ROOT
from further_arms import FURTHER_DIGITS
from record_factory import cpu_profiles, held_out, profile, reconstruction, score

from varient.config import DepthArms, load_config
from varient.paper import PAPER_DEPTHS, paper_table
from varient.profile_records import ProfileRecord
from varient.records import RecordError, ScoreRecord, write_record
from varient.report.quality_tables import table1, table4, table5, table8
from varient.report.table2 import NO_COUNTERPART, table2
from varient.report.tables import TABLES, render
from varient.report.training_tables import table6, table7
from varient.results import Results

DIGITS = FURTHER_DIGITS
PAPER = load_config(ROOT / "workflow/config/imagenet256.yaml")
SMOKE = load_config(ROOT / "workflow/config/smoke.yaml")


def _score(system, fid):
    return score(system, fid, inception_score=9.876, inception_score_sd=0.02, precision=0.81234, precision_sd=0.01,
                 recall=0.5, recall_sd=0.01, recognised=0.9876)


def _profile(system, latency_s, kv_cache_mib, **changes):
    return profile(system, [latency_s], **{"memory": {"tensors_mib": 30.26, "kv_cache_mib": kv_cache_mib}} | changes)


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
    assert frame["method"].tolist()[-1] == "Real images (held out)"
    assert frame["system"].tolist() == ["dit-mini", "llamagen-mini", "var-d30", "code-n6", "variant-d16", "variant-d8",
                                        "variant-d4", "variant-d2", "free-code-n6", "dit-mini-250", "real-holdout"]


def test_table2_shows_what_others_published():
    rows = table2(DIGITS, RESULTS).set_index("system")
    assert "2.27" in rows.loc["dit-mini-250", "published"] and rows.loc["dit-mini-250", "fid_paper"] == ""
    assert "1.95" in rows.loc["var-d30", "published"]


def test_table2_cells():
    rows = table2(DIGITS, RESULTS).set_index("method")
    ours = rows.loc["VARiant-d16"]
    assert (ours["latency_s"], ours["images_per_s"], ours["images_per_s_paper"]) == ("0.2500", "256.0", "30.2")
    assert ours["speedup"] == "1.60" and ours["kv_cache_mb"] == "11.500"
    assert (ours["memory_mb"], ours["memory_mb_paper"]) == ("30.3", "28644")
    assert ours["params"] == "574K" and ours["fid"] == "0.600" and ours["precision"] == "0.812"
    assert (ours["fid_pm"], ours["precision_pm"]) == ("0.039", "0.020")
    assert (ours["fid_paper"], ours["kv_cache_mb_paper"]) == ("2.05", "16092")
    assert ours["fid_source"] == ours["latency_s_source"] == "measured (digits)"
    missing = rows.loc["VARiant-d8"]
    assert missing["fid"] == "" and missing["fid_paper"] == "2.12" and missing["fid_source"] == "no record"
    assert rows.loc["DiT-XL/2", "fid"] == "" and rows.loc["DiT-XL/2", "fid_paper"] == "2.26"
    assert rows.loc["Real images (held out)", "fid"] == "0.170"


def test_table2_holds_fids_on_two_scales_against_vars():
    """0.6 beside 2.05 says nothing; 1.2 times VAR's beside 1.05 times does."""
    rows = table2(DIGITS, RESULTS).set_index("method")
    shown = {name: tuple(rows.loc[name, ["fid_ratio", "fid_ratio_paper"]])
             for name in ("VAR-d30", "VARiant-d16", "VARiant-d2", "DiT-XL/2", "Real images (held out)")}
    assert shown == {"VAR-d30": ("1.00", "1.00"), "VARiant-d16": ("1.20", "1.05"), "VARiant-d2": ("", "1.52"),
                     "DiT-XL/2": ("", "1.16"), "Real images (held out)": ("0.34", "")}
    assert rows.loc["VARiant-d16", "fid_ratio_source"] == "measured (digits)"
    alone = table2(DIGITS, Results({"variant-d16": _score("variant-d16", 0.6)}, {})).set_index("method")
    assert alone.loc["VARiant-d16", "fid_ratio"] == ""  # no VAR to compare with


def test_table2_has_the_speedups_that_the_papers_latencies_give_where_it_prints_none():
    papers = table2(DIGITS, RESULTS).set_index("method")["speedup_paper"]
    assert papers[["DiT-XL/2", "LlamaGen-XXL", "VAR-d30", "VARiant-d16"]].tolist() == ["[0.19]", "[0.05]", "1.0", "1.7"]


@pytest.mark.parametrize(("method", "ours", "papers"), [
    ("VAR-d30", 1.0, 1.0), ("VARiant-d16", 65 * 30 / (15 * 30 + 50 * 16), 680 * 30 / (91 * 30 + 589 * 16)),
    ("VARiant-d2", 65 * 30 / (15 * 30 + 50 * 2), 680 * 30 / (91 * 30 + 589 * 2))])
def test_table2_has_the_token_layers_beside_the_speedup(method, ours, papers):
    """15 of 65 tokens here, and 91 of the paper's 680, are in the bridge zone."""
    row = table2(DIGITS, RESULTS).set_index("method").loc[method]
    assert (row["work_ratio"], row["work_ratio_paper"]) == (f"{ours:.2f}", f"{papers:.2f}")
    assert row["work_ratio_source"] == "arithmetic"


def test_table2_has_no_token_layers_of_other_networks():
    rows = table2(DIGITS, RESULTS).set_index("method")
    assert not rows.loc[["DiT-XL/2", "LlamaGen-XXL", "VAR-CoDe"], ["work_ratio", "work_ratio_paper"]].any(axis=None)


def test_table2_shows_fid_to_a_test_set_where_there_is_one():
    fashion = load_config(ROOT / "workflow/config/fashion.yaml")
    score = _score("var-d30", 0.5).model_copy(update={"fid_test": 0.75, "fid_test_sd": 0.01})
    results = Results({record.system: record for record in (score, _score("real-test", 0.25))}, {})
    rows = table2(fashion, results).set_index("system")
    assert (rows.loc["var-d30", "fid"], rows.loc["var-d30", "fid_test"]) == ("0.500", "0.750")
    assert rows.loc["real-test", ["method", "fid", "fid_test"]].tolist() == ["Real images (test set)", "0.250", ""]
    assert rows.loc["variant-d16", "fid_test"] == "" and "fid_test" not in table2(DIGITS, RESULTS)


def test_table2_takes_the_allocators_peak_where_there_is_one():
    memory = {"allocator_allocated_mib": 100.0, "allocator_reserved_mib": 200.0, "nvml_process_mib": 300.0}
    rows = table2(DIGITS, Results({}, {"variant-d8": _profile("variant-d8", 1.0, 1.0, memory=memory)}))
    assert rows.set_index("method").loc["VARiant-d8", "memory_mb"] == "100.0"


def test_table2_says_out_of_memory_and_no_number():
    rows = table2(DIGITS, Results({}, {"var-d30": _too_big("var-d30"),
                                       "variant-d16": _profile("variant-d16", 0.25, 11.5)})).set_index("method")
    full, subnet = rows.loc["VAR-d30"], rows.loc["VARiant-d16"]
    assert (full["memory_mb"], full["latency_s"], full["speedup"], full["kv_cache_mb"]) == ("OOM", "OOM", "", "")
    assert (full["latency_s_source"], full["params"]) == ("measured (digits)", "574K")
    assert (subnet["latency_s"], subnet["speedup"]) == ("0.2500", "")
    assert not rows.isin(["0", "0.0", "0.0000"]).any(axis=None)


def test_a_speedup_is_the_median_over_turns_with_the_full_network():
    reference = {"median_s": 0.8, "iqr_s": None, "repeats_s": [0.8, 0.4, 0.6]}
    in_turns = profile("variant-d16", [0.4, 0.2, 0.3], reference=reference)
    rows = table2(DIGITS, Results({}, {"var-d30": _profile("var-d30", 9.9, 1.0), "variant-d16": in_turns}))
    assert rows.set_index("system").loc["variant-d16", "speedup"] == "2.00"


def test_times_of_a_disturbed_profile_are_no_bare_numbers(tmp_path):
    latency = {"median_s": 1.0, "iqr_s": 0.0, "repeats_s": [1.0, 1.0], "cpu_s": [0.5, 0.5]}
    results = Results({}, {"var-d30": _profile("var-d30", 2.0, 1.0),
                           "variant-d16": _profile("variant-d16", 1.0, 1.0, latency=latency)})
    rows = table2(DIGITS, results).set_index("system")
    assert rows.loc["variant-d16", ["latency_s", "speedup"]].tolist() == ["1.0000 (disturbed)", "2.00 (disturbed)"]
    assert rows.loc["variant-d16", "images_per_s"] == "64.0 (disturbed)"
    assert rows.loc["var-d30", "latency_s"] == "2.0000" and rows.loc["variant-d16", "memory_mb"] == "30.3"
    render(2, DIGITS, results, tmp_path / "table2")
    assert "variant-d16: wall-clock time is 2.00 times the CPU time" in (tmp_path / "table2.md").read_text()


def test_table2_of_the_papers_experiment_shows_the_full_size_on_a_cpu():
    rows = table2(PAPER, Results({}, {}, benchmarks=tuple(cpu_profiles()))).set_index("system")
    columns = ["cpu_latency_s", "cpu_speedup", "cpu_kv_cache_mb"]
    assert rows.loc["var-d30", columns].tolist() == ["30.0", "1.00", "448.2"]
    assert rows.loc["variant-d16", columns].tolist() == ["20.0", "1.50", "448.2"]
    assert rows.loc["variant-d8", columns].tolist() == ["", "", ""]
    assert "cpu_latency_s" not in table2(DIGITS, Results({}, {}, benchmarks=tuple(cpu_profiles())))


def test_table4_cells():
    rows = table4(DIGITS, RESULTS)
    rows = rows[rows["training"] == "three phases"].set_index("subnet_depth_paper")
    ours = rows.loc["16"]
    assert (ours["training_free_subnet_fid"], ours["training_free_full_fid"]) == ("4.000", "0.500")
    assert (ours["joint_subnet_fid"], ours["joint_full_fid"]) == ("0.600", "0.550")
    assert ours["joint_subnet_fid_paper"] == "2.05"
    assert (rows.loc["8", "joint_subnet_fid"], rows.loc["8", "joint_subnet_fid_source"]) == ("", "no record")


def test_table4_has_the_ways_of_training_that_the_paper_lacks():
    scores = {name: _score(name, fid) for name, fid in (("variant-d8-multi", 0.7), ("variant-d8-multi-full", 0.8))}
    rows = table4(DIGITS, Results(scores, {}))
    shared = rows["training"] == "multi: one supernet for all depths, 35 epochs in all"
    multi = rows[shared & (rows["subnet_depth"] == "8")].iloc[0]
    assert (multi["joint_subnet_fid"], multi["joint_full_fid"]) == ("0.700", "0.800")
    assert {"early: phases of 3+9+20 epochs", "distil: distillation, weight 0.5",
            "auto: ends of phases found"} < set(rows["training"])


def test_table1_shows_what_the_scales_hold():
    results = Results({name: _score(name, fid) for name, fid in (("var-d30", 0.5), ("free-d8-r4to6", 3.0))}, {},
                      reconstruction=reconstruction(DIGITS, [2.5] * 10))
    rows = table1(DIGITS, results).set_index("scales")
    assert (rows.loc["none", "fid_d16"], rows.loc["r4-r6", "fid_d8"]) == ("0.500", "3.000")
    assert (rows.loc["r4-r6", "fid_d16_paper"], rows.loc["r4-r6", "tokens"]) == ("8.5", "18.5 %")
    assert (rows.loc["r1-r6", "rebuilt_fid"], rows.loc["r1-r6", "rebuilt_fid_pm"]) == ("2.500", "0.196")
    assert rows.loc["r1-r10", "tokens"] == "100.0 %" and rows.loc["r1-r3", "fid_d16"].tolist() == ["", ""]


def test_table5_averages_over_trainings():
    """Three values 1, 2, 3: mean 2, and Student's 4.303 / sqrt(3) around it."""
    names = ("variant-d4-skip", "variant-d4-skip-s1", "variant-d4-skip-s2")
    deep = DIGITS.ablations.model_copy(update={"further": {16: DepthArms(seeds=1, skip_all="skip")}})
    config = DIGITS.model_copy(update={"ablations": deep})
    rows = table5(config, Results({name: _score(name, fid) for name, fid in zip(names, (1.0, 2.0, 3.0), strict=True)},
                                  {})).set_index(["subnet_depth", "design"])
    assert rows.index.get_level_values(0).tolist() == ["4", "4", "16", "16"]  # each as its ablations have it
    rows, other = rows.loc["4"], rows.loc["16"]
    skipping = rows.loc["skip r1-r10"]
    assert (other["subnet_fid"] == "").all() and other["subnet_fid_paper"].tolist() == rows["subnet_fid_paper"].tolist()
    assert (skipping["subnet_fid"], skipping["subnet_fid_pm"]) == ("2.000", "2.484")
    assert skipping["subnet_fid_source"] == "measured (digits), mean of 3 trainings"
    assert rows.loc["skip r7-r10", "subnet_fid_source"] == "no record" and skipping["full_fid_paper"] == "3.12"


LOSSES = Results(RESULTS.scores, {}, held_out=(
    held_out("base", {"var-d30": 1.49, "free-d16": 2.1}),
    held_out("supernet-d16", {"variant-d16": 1.4771, "variant-d16-full": 1.4778, "variant-d16-n7": 1.4711}),
    held_out("supernet-d4-skip", {"variant-d4-skip": 1.5, "variant-d4-skip-full": 1.6}),
    held_out("supernet-d4-skip-s1", {"variant-d4-skip-s1": 1.7, "variant-d4-skip-s1-full": 1.8})))


def test_each_network_has_the_loss_under_its_own_layers():
    ours = table4(DIGITS, LOSSES).set_index("subnet_depth_paper").loc["16"]
    assert (ours["training_free_subnet_loss"], ours["training_free_full_loss"]) == ("2.100", "1.490")
    assert (ours["joint_subnet_loss"], ours["joint_full_loss"]) == ("1.477", "1.478")
    assert ours["joint_full_loss_source"] == "measured (digits)"
    designs = table5(DIGITS, LOSSES)
    skipping = designs[designs["design"] == "skip r1-r10"].iloc[0]  # of d = 4; the ablations' own depth comes first
    assert (skipping["subnet_loss"], skipping["full_loss"]) == ("1.600", "1.700")
    assert skipping["full_loss_source"] == "measured (digits), mean of 2 trainings"
    grid = table8(DIGITS, LOSSES).set_index("depth")
    assert grid.loc["16", ["N6_loss", "N7_loss", "N8_loss", "N10_loss"]].tolist() == ["1.477", "1.471", "", "1.478"]
    assert grid.loc["30", "N6_loss"] == "1.490" and grid.loc["16", "N8_loss_source"] == "no record"


def test_losses_are_shown_where_an_experiment_shows_them(tmp_path):
    """Not at the paper's size, unless the config says so."""
    for number in (4, 5, 8):
        wanted = TABLES[number].needs(DIGITS)
        assert wanted.loss == wanted.score != ()
        assert TABLES[number].needs(PAPER).loss == ()
        assert not any("loss" in column for column in TABLES[number].build(PAPER, LOSSES))
        asking = PAPER.model_copy(update={"held_out_loss": True})
        assert any("loss" in column for column in TABLES[number].build(asking, LOSSES))
    render(8, DIGITS, LOSSES, tmp_path / "table8")
    text = (tmp_path / "table8.md").read_text()
    assert "| Loss, N = 6 |" in text and "nats per token" in text and "of 360 held-out images" in text
    (absent,) = [line for line in text.splitlines() if line.startswith("No record: ")]
    assert "variant-d8" in absent.partition("held-out loss of ")[2]


def test_losses_on_other_images_or_tokens_share_no_column(tmp_path):
    strange = (held_out("supernet-d8", {"variant-d8": 9.0}, images_sha256="other"),
               held_out("supernet-d4", {"variant-d4": 9.0}, tokenizer="other"),
               held_out("supernet-d2", {"variant-d2": 9.0}, experiment="smoke"))
    results = Results(RESULTS.scores, {}, held_out=(*LOSSES.held_out, *strange))
    render(4, DIGITS, results, tmp_path / "table4")
    text = (tmp_path / "table4.md").read_text()
    assert "9.000" not in text and "1.477" in text
    for remark in ("held-out loss of supernet-d8, whose images is other", "of supernet-d4, whose tokenizer is other",
                   "heldout of supernet-d2, which belongs to smoke"):
        assert remark in text


def test_tables_6_and_7_come_from_the_config():
    rows = table6(DIGITS, RESULTS).set_index("configuration")
    assert rows.loc["learning_rate"].tolist()[:2] == ["3e-4 constant", "1e-6 constant"]
    assert rows.loc["hardware", ["value", "value_source"]].tolist() == ["", "not recorded"]
    assert rows.loc["mixed_precision", "value"] == "none"
    phases = table7(DIGITS, RESULTS).set_index("depth_paper")
    assert phases.loc["2", ["phase3_epochs", "total_epochs", "total_epochs_paper"]].tolist() == ["15", "35", "35"]


def test_table8_with_all_scales_in_the_bridge_shows_the_full_network():
    scores = {name: _score(name, fid) for name, fid in (("variant-d8-n7", 0.7), ("variant-d8-full", 0.6))}
    rows = table8(DIGITS, Results(scores | {"var-d30": _score("var-d30", 0.5)}, {})).set_index("depth")
    assert rows.loc["8", ["N6", "N7", "N10"]].tolist() == ["", "0.700", "0.600"]
    assert rows.loc["30", ["N6", "N10"]].tolist() == ["0.500", "0.500"]


def test_depths_without_a_counterpart_show_the_paper_alone():
    rows = table2(SMOKE, Results({}, {})).set_index("method")
    assert rows.loc["VARiant-d16", "system"] == "variant-d4"
    assert rows.loc["VARiant-d8", "system"] == NO_COUNTERPART and rows.loc["VARiant-d8", "fid_paper"] == "2.12"
    assert table4(SMOKE, RESULTS).set_index("subnet_depth_paper").loc["8", "joint_subnet_fid_source"] == ""


def test_rendered_markdown(tmp_path):
    paths = render(4, DIGITS, RESULTS, tmp_path / "table4")
    assert [path.name for path in paths] == ["table4.csv", "table4.md", "table4.tex"]
    text = (tmp_path / "table4.md").read_text()
    assert ("| three phases | 16 / 16 | 4.000 ± 0.039 / 5.42 | 0.500 ± 0.039 / 1.95 | 0.600 ± 0.039 / 2.05 | "
            "0.550 ± 0.039 / 1.96 | – | – | – | – |") in text.splitlines()
    assert "No record: score of variant-d8, " in text
    tex = (tmp_path / "table4.tex").read_text()
    assert r"\begin{tabular}" in tex and r"4.000 $\pm$ 0.039 / 5.42" in tex and "–" not in tex.split(r"\toprule")[1]
    csv = pd.read_csv(tmp_path / "table4.csv", dtype=str, keep_default_na=False)
    assert csv.equals(table4(DIGITS, RESULTS).astype(str))


def test_an_unbuilt_table_and_a_wrong_record_are_refused(tmp_path):
    with pytest.raises(ValueError, match="table 9 is unknown; the paper has 1, 2, 3"):
        render(9, DIGITS, RESULTS, tmp_path / "x")
    write_record(tmp_path / "profile.json", RESULTS.profiles["var-d30"])
    with pytest.raises(RecordError, match="profile.json: not a ScoreRecord"):
        Results.read([tmp_path / "profile.json"])


def test_the_workflow_asks_for_every_row():
    assert list(PAPER_DEPTHS) == [int(m.removeprefix("VARiant-d")) for m in paper_table(2)["method"]
                                  if m.startswith("VARiant")]
    wanted = TABLES[2].needs(DIGITS).score
    assert set(table2(DIGITS, RESULTS)["system"]) <= set(wanted)


_ODD = {"protocol": "adm"}, {"num_images": 50}, {"reference_sha256": "other"}


@pytest.mark.parametrize(("records", "remark"), [
    *(([_score("variant-d16", 9.0).model_copy(update=odd)], f"score of variant-d16, whose {word} is")
      for odd, word in zip(_ODD, ("protocol", "images", "reference"), strict=True)),
    ([_profile("variant-d16", 9.0, 1.0, batch_size=1)], "profile of variant-d16, whose batch is 1 and not 64"),
    ([_profile("variant-d16", 9.0, 1.0, acceleration=("graphs", "compile"))],
     "profile of variant-d16, whose acceleration is graphs, compile and not none"),
    ([_profile("variant-d16", 9.0, 1.0, weights="random, seed 0")], "profile of variant-d16, whose weights is random"),
    ([_profile("variant-d16", 9.0, 1.0), _profile("variant-d16", 8.0, 1.0)], "two profile records of variant-d16 that"),
    ([score("variant-d16", 9.0, experiment="smoke")], "score of variant-d16, which belongs to smoke"),
])
def test_numbers_that_mean_different_things_share_no_column(tmp_path, records, remark):
    """The table says which it leaves out, and renders the rest."""
    sound = [_score("var-d30", 1.0), _score("variant-d8", 2.0), _profile("var-d30", 3.0, 1.0),
             _profile("variant-d8", 2.0, 1.0)]
    scores = {record.system: record for record in [*sound, *records] if isinstance(record, ScoreRecord)}
    profiles = tuple(record for record in [*sound, *records] if isinstance(record, ProfileRecord))
    render(2, DIGITS, Results(scores, {record.system: record for record in profiles}, profiles), tmp_path / "table2")
    text = (tmp_path / "table2.md").read_text()
    assert f"Left out: {remark}" in text
    rows = pd.read_csv(tmp_path / "table2.csv", dtype=str, keep_default_na=False).set_index("system")
    assert not rows.loc["variant-d16"].str.startswith("9").any()
    assert (rows.loc["var-d30", "fid"], rows.loc["variant-d8", "latency_s"]) == ("1.000", "2.0000")


def test_two_scores_of_one_system_that_differ_are_left_out_and_named(tmp_path):
    paths = [tmp_path / "a.json", tmp_path / "b.json", tmp_path / "c.json"]
    for path, record in zip(paths, (_score("var-d30", 1.0), _score("var-d30", 2.0), _score("variant-d8", 1.0)),
                            strict=True):
        write_record(path, record)
    results = Results.read(paths)
    assert list(results.scores) == ["variant-d8"]
    assert results.remarks == ("two score records of var-d30 that differ",)
    assert list(Results.read([paths[0], paths[0]]).scores) == ["var-d30"]  # the same twice contradicts nothing


def test_at_the_papers_size_what_nobody_measured_is_counted_or_predicted(tmp_path):
    rows = table2(PAPER, Results({}, {})).set_index("method")
    subnet = rows.loc["VARiant-d16"]
    assert (subnet["kv_cache_mb"], subnet["kv_cache_mb_source"]) == ("17091.6", "arithmetic")
    assert (subnet["latency_s"], subnet["latency_s_source"]) == ("2.19", "predicted (l20)")
    assert (subnet["steps"], subnet["params"], subnet["fid"]) == ("6+4", "2.01B", "")
    render(2, PAPER, Results({}, {}), tmp_path / "table2")
    assert "17091.6ᵃ / 16092" in (tmp_path / "table2.md").read_text()
    assert r"17091.6\textsuperscript{a} / 16092" in (tmp_path / "table2.tex").read_text()
    assert "predicted" not in table2(DIGITS, Results({}, {})).to_csv()  # a miniature is not the paper's size


LABELS = {1: ["strategy", "scales"], 2: ["method", "system", "published"], 4: ["training", "subnet_depth"],
          5: ["design", "subnet_depth"], 6: ["configuration"], 7: ["depth"], 8: ["depth"]}
"""Columns that say what a row is, or whose text names its own source; every other value needs one."""
NOT_MEASURED = ("arithmetic", "predicted", "config of")


def _sources(frame, number):
    """The source of each value of ours in a table, by column; a value without one fails."""
    found = {}
    for column in frame:
        if column in LABELS[number] or column.endswith(("_source", "_paper", "_pm")):
            continue
        shown = frame[column] != ""
        if shown.any():
            assert f"{column}_source" in frame, (number, column)
            found[column] = frame.loc[shown, f"{column}_source"]
            assert (found[column] != "").all(), (number, column)
    return found


@pytest.mark.parametrize("config", [PAPER, DIGITS], ids=lambda config: config.name)
@pytest.mark.parametrize("number", LABELS)
def test_nothing_looks_measured_where_nothing_was(number, config):
    """Each value that a table shows without a single record says what it is."""
    for column, sources in _sources(TABLES[number].build(config, Results({}, {})), number).items():
        assert sources.str.startswith(NOT_MEASURED).all(), column


@pytest.mark.parametrize("number", LABELS)
def test_every_value_has_a_source(number):
    wanted = TABLES[number].needs(DIGITS)
    results = Results({name: _score(name, 0.5) for name in wanted.score},
                      {name: _profile(name, 0.5, 1.0) for name in wanted.profile},
                      reconstruction=reconstruction(DIGITS, [2.5] * 2),
                      held_out=tuple(held_out(name, {name: 1.5}) for name in wanted.loss))
    found = _sources(TABLES[number].build(DIGITS, results), number)
    measured = [column for column, sources in found.items() if sources.str.startswith("measured (digits)").any()]
    assert bool(measured) == (number not in (6, 7)) and found


def test_every_value_of_table_3_has_a_source():
    """Its one column says the kinds; what a GPU measured says on which."""
    frame = TABLES[3].build(PAPER, Results({}, {}))
    kinds = "arithmetic (KV, parameters), predicted (totals)"
    assert set(frame["source"]) == {kinds}
    values = {"kv_cache_mb", "params_mb", "total_mb", "predicted_total_mb", "simulated_total_mb", "set_by",
              "largest_batch_48gb"}
    labels = {"block", "batch_size", "method", "note", "source"}
    printed = {column for column in frame if column.endswith("_paper")}
    assert set(frame) == values | labels | printed | {"measured_kv_mb", "measured_total_mb"}
    assert (frame[["measured_kv_mb", "measured_total_mb"]] == "").all(axis=None)


def test_a_damaged_record_of_a_run_folder_is_named_and_the_rest_is_read(tmp_path):
    (tmp_path / "records").mkdir()
    write_record(tmp_path / "records/score-var-d30.json", _score("var-d30", 1.0))
    write_record(tmp_path / "records/profile-var-d30.json", _profile("var-d30", 1.0, 1.0))
    write_record(tmp_path / "records/heldout-base.json", held_out("base", {"var-d30": 1.0}))
    (tmp_path / "records/score-variant-d16.json").write_text("{")
    results = Results.found_in(tmp_path)
    assert list(results.scores) == list(results.profiles) == list(results.losses) == ["var-d30"]
    render(2, DIGITS, results, tmp_path / "table2")
    assert "Left out: " in (text := (tmp_path / "table2.md").read_text()) and "score-variant-d16.json: not a" in text
