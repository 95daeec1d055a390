import pytest
from record_factory import cpu_profiles
from test_tables import _profile

from varient.paper import paper_table
from varient.records import RecordError
from varient.report.table3 import PAPER_PARAMETERS, SECTIONS, table3


@pytest.fixture(scope="module")
def sections():
    frame = table3()
    return [frame[frame["block"] == section.title].reset_index(drop=True) for section in SECTIONS]


def test_rows_on_a_cpu_stand_beside_the_arithmetic():
    frame = table3(cpu_profiles())
    papers, ours = len(table3()), frame[frame["block"].str.startswith("on a CPU")]
    assert len(frame) == papers + 2 and ours["method"].tolist() == ["VAR-d30", "VARiant-d16"]
    assert ours["kv_cache_mb"].tolist() == ["597.7", "356.1"] and set(ours["measured_kv_mb"]) == {"448.2"}
    assert set(ours["measured_total_mb"]) == {"9000.0"} and not frame.isna().any(axis=None)


def test_every_section_has_the_papers_rows(sections):
    for section in sections:
        assert section["method"].tolist() == paper_table(3)["method"].tolist()


def test_kv_cells_are_the_papers_but_for_two_slips_of_1000(sections):
    for _, row in sections[0].iterrows():
        if row["kv_cache_mb_paper"] != "OOM":
            missing = float(row["kv_cache_mb"]) - float(row["kv_cache_mb_paper"])
            slipped = row["batch_size"] == 64 and row["method"] in ("VARiant-d16", "VARiant-d8")
            assert missing == pytest.approx(1000 if slipped else 0, abs=0.7)
            assert ("1000 below" in row["note"]) == slipped


def test_the_oom_pattern_is_the_papers_but_for_one_decode_that_cannot_fit(sections):
    differing = sections[0][(sections[0]["total_mb"] == "OOM") != (sections[0]["total_mb_paper"] == "OOM")]
    assert differing[["batch_size", "method"]].values.tolist() == [[256, "VARiant-d2"]]
    assert "cannot hold a decode of the whole batch" in differing.iloc[0]["note"]


def test_the_lean_cache_fits_larger_batches(sections):
    rows = (section.itertuples() for section in sections)
    for reference, lean, reference_half, half in zip(*rows, strict=True):
        assert reference.largest_batch_48gb < lean.largest_batch_48gb < half.largest_batch_48gb
        assert reference.largest_batch_48gb < reference_half.largest_batch_48gb < half.largest_batch_48gb
        assert float(lean.kv_cache_mb) < 0.45 * float(reference.kv_cache_mb)
        assert lean.kv_cache_mb_paper == ""


def test_the_largest_batch_is_the_largest(sections):
    section = SECTIONS[1]
    largest = section.largest_batch("variant-d8", 46068)
    assert section.total_mib("variant-d8", largest) <= 46068 < section.total_mib("variant-d8", largest + 1)


def _measured(status, cap_mib, **changes):
    record = _profile("variant-d8", 1.0, 3420.0)
    memory = record.memory.model_copy(update={"memory_cap_mib": cap_mib, "allocator_allocated_mib": 9_876.0})
    ran_out = {"status": status, "reason": "CUDA out of memory", "latency": None, "decoder_latency": None}
    update = {"num_parameters": PAPER_PARAMETERS, "precision": "fp16", "memory": memory, "batch_size": 64, **changes}
    return record.model_copy(update=update | (ran_out if status != "ok" else {}))


def test_measurements_on_an_l20_or_a_card_held_to_one_are_shown():
    frame = table3([_measured("ok", 46_080.0), _measured("out_of_memory", 46_080.0, batch_size=256)])
    lean = frame[frame["block"] == SECTIONS[3].title].set_index(["batch_size", "method"])
    assert lean.loc[(64, "VARiant-d8"), "measured_total_mb"] == "9876.0"
    assert "measured (" in lean.loc[(64, "VARiant-d8"), "source"]
    assert lean.loc[(256, "VARiant-d8"), "measured_total_mb"] == "OOM"
    others = frame[frame["block"] != SECTIONS[3].title]
    assert (others["measured_total_mb"] == "").all()


def test_measurements_of_other_cards_networks_formats_and_ways_to_compute_are_not():
    strangers = [_measured("ok", 4096.0), _measured("ok", None), _measured("ok", 46_080.0, num_parameters=1),
                 _measured("ok", 46_080.0, precision="fp32"), _measured("ok", 46_080.0, acceleration=("graphs",))]
    assert (table3(strangers)["measured_total_mb"] == "").all()


def test_two_measurements_of_one_setting_are_refused():
    with pytest.raises(RecordError, match="two profile records of variant-d8 at batch 64"):
        table3([_measured("ok", 46_080.0), _measured("ok", 46_080.0)])
