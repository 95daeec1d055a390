import pytest
from hypothesis import given
from hypothesis import strategies as st

from varient.cost.planner import choices, fitting, measured_quality, paper_quality, parse_seconds
from varient.cost.printer import plan_answer
from varient.records import ScoreRecord, provenance, write_record

ALL = choices(paper_quality(), batch_size=64, device="l20")


def test_quality_is_the_papers_table_8():
    quality = paper_quality()
    assert quality[16, 7].fid == 2.00 and quality[2, 6].fid == 2.97
    assert len(quality) == 25


@pytest.mark.parametrize(("text", "seconds"), [("1.5s", 1.5), ("900ms", 0.9), ("2", 2)])
def test_times(text, seconds):
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["soon", "-1s", "1 min", "0s", "0", "nan", "inf", "9" * 400, "x" * 10_000])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="write 1.5s or 900ms"):
        parse_seconds(text)


@given(st.floats(4_000, 60_000), st.one_of(st.none(), st.floats(0.3, 5)))
def test_what_is_chosen_fits_and_nothing_better_does(memory_mib, latency_s):
    def fits(choice):
        return choice.memory_mib <= memory_mib and (latency_s is None or choice.latency_s <= latency_s)

    if not any(map(fits, ALL)):
        with pytest.raises(ValueError, match="nothing fits: the least memory is"):
            fitting(ALL, memory_mib=memory_mib, latency_s=latency_s)
        return
    chosen = fitting(ALL, memory_mib=memory_mib, latency_s=latency_s)
    assert all(map(fits, chosen))
    assert chosen[0].quality.fid == min(choice.quality.fid for choice in ALL if fits(choice))


def test_what_is_not_considered_is_said():
    answer = plan_answer(ALL[:1], batch_size=64, device="l20", memory_mib=40_000, latency_s=None)
    assert answer.document["not_considered"] == ["windows", "packed entries", "other guidance"]
    assert "windows, packed entries and other guidance" in answer.grids[0].caption


def test_the_lean_cache_needs_less_and_comes_first_among_equals():
    lean, reference = ([c.memory_mib for c in ALL if c.policy == policy] for policy in ("lean", "reference"))
    assert max(lean) < max(reference)
    assert ALL[0].policy == "lean"


def test_a_folder_without_records_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file: a file, not a folder of score records"):
        measured_quality(tmp_path / "file")
    with pytest.raises(ValueError, match="no score records"):
        measured_quality(tmp_path)


def test_records_without_fid_are_refused(tmp_path):
    made = provenance(experiment="own", seed=0, settings="x", weights_sha256={})
    write_record(tmp_path / "score-var-d30.json", ScoreRecord(
        system="var-d30", protocol="cmmd", extractor="x", num_images=10, num_reference=10, images_sha256="a",
        reference_sha256="b", cmmd=1.0, provenance=made))
    with pytest.raises(ValueError, match="have no FID, .*cmmd"):
        measured_quality(tmp_path)


def test_records_of_other_systems_are_passed_over(tmp_path):
    made = provenance(experiment="own", seed=0, settings="x", weights_sha256={})
    for number, system in enumerate(("variant-d16", "variant-d16-n7", "var-d30", "variant-d16-p50", "code-n6", "real")):
        write_record(tmp_path / f"score-{system}.json", ScoreRecord(
            system=system, protocol="adm", extractor="x", num_images=10, num_reference=10, images_sha256="a",
            reference_sha256="b", fid=1.0 + number, fid_sd=0.1, fid_bias=0.1, provenance=made))
    measured = measured_quality(tmp_path)
    assert {key: quality.fid for key, quality in measured.items()} == {(16, 6): 1.0, (16, 7): 2.0, (30, 6): 3.0}


@pytest.mark.parametrize(("changes", "said"), [
    ({"protocol": "adm-rehearsal"}, "protocol differs: 'adm', 'adm-rehearsal'"),
    ({"num_images": 20}, "num_images differs: '10', '20'"),
    ({"reference_sha256": "c"}, "reference_sha256 differs"),
    ({"system": "variant-d8"}, "score-variant-d16.json: is of 'variant-d8', and not of variant-d16"),
])
def test_records_that_cannot_be_compared_are_refused(tmp_path, changes, said):
    sound = ScoreRecord(system="var-d30", protocol="adm", extractor="x", num_images=10, num_reference=10,
                        images_sha256="a", reference_sha256="b", fid=1.0, fid_sd=0.1, fid_bias=0.1,
                        provenance=provenance(experiment="own", seed=0, settings="x", weights_sha256={}))
    write_record(tmp_path / "score-var-d30.json", sound)
    write_record(tmp_path / "score-variant-d16.json", sound.model_copy(update={"system": "variant-d16"} | changes))
    with pytest.raises(ValueError, match=said):
        measured_quality(tmp_path)
