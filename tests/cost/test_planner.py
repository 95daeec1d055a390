import pytest
from hypothesis import given
from hypothesis import strategies as st

from varient.cost.planner import (
    PLANNED_PRECISIONS,
    choices,
    fitting,
    measured_quality,
    paper_quality,
    parse_seconds,
    unknown_methods,
)
from varient.cost.printer import plan_answer
from varient.cost.roofline import system_cost
from varient.records import ScoreRecord, provenance, write_record
from varient.systems.ids import VarId

ALL = choices(paper_quality(), batch_size=64, device="l20")


def test_quality_is_the_papers_table_8():
    quality = paper_quality()
    assert quality[VarId("variant", 16, bridge=7)].fid == 2.00 and quality[VarId("variant", 2)].fid == 2.97
    assert quality[VarId("var", 30)].fid == 1.96 and quality[VarId("free", 8)].fid == 22.7
    assert len(quality) == 4 * 5 + 1 + 4


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
    unknown = unknown_methods(paper_quality())
    assert unknown == ["windows", "packed entries", "budgets by head", "other guidance"]
    assert unknown_methods([VarId("var", 30)]) == [*unknown, "untrained subnets"]
    answer = plan_answer(ALL[:1], batch_size=64, device="l20", memory_mib=40_000, latency_s=None, unknown=unknown)
    assert answer.document["not_considered"] == unknown
    assert all(method in answer.grids[0].caption for method in unknown)
    known = plan_answer(ALL[:1], batch_size=64, device="l20", memory_mib=40_000, latency_s=None, unknown=())
    assert known.document["not_considered"] == [] and "Not considered" not in known.grids[0].caption


def test_methods_are_chosen_once_their_quality_is_known(tmp_path):
    """A window and packed entries on a subnet: the worse FID, and chosen where the full network does not fit."""
    fids = {"var-d30": 1.0, "variant-d8-w2-kv8": 1.1, "var-d30-g6": 1.2, "var-d30-heads30": 1.3, "free-d16-prefix": 5.0}
    for system, fid in fids.items():
        write_record(tmp_path / f"score-{system}.json", _score(system, fid))
    quality = measured_quality(tmp_path)
    assert {str(system): known.fid for system, known in quality.items()} == fids and unknown_methods(quality) == []
    found = choices(quality, batch_size=64, device="l20")
    small = next(choice for choice in found if str(choice.system) == "variant-d8-w2-kv8")
    assert small.latency_s == system_cost("variant-d8-w2-kv8", precision=small.precision).latency_s
    assert {choice.policy for choice in found if choice.system == small.system} == {"lean"}
    # Both caches for the full network and the untrained subnet, whose cache is not their own.
    assert len(found) == len(PLANNED_PRECISIONS) * (2 * 2 + 3)
    assert fitting(found, memory_mib=40_000)[0].name == "d = 30 (full), fp16, lean cache"
    assert fitting(found, memory_mib=small.memory_mib)[0].name == "variant-d8-w2-kv8, fp16, lean cache"


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


def _score(system, fid, **changes):
    values = {"protocol": "adm", "num_images": 10, "fid_sd": 0.1, "fid_bias": 0.1} | changes
    return ScoreRecord(system=system, extractor="x", num_reference=10, images_sha256="a", reference_sha256="b", fid=fid,
                       provenance=provenance(experiment="own", seed=0, settings="x", weights_sha256={}), **values)


def test_records_without_fid_are_refused(tmp_path):
    write_record(tmp_path / "score-var-d30.json",
                 _score("var-d30", None, protocol="cmmd", cmmd=1.0, fid_sd=None, fid_bias=None))
    with pytest.raises(ValueError, match="have no FID, .*cmmd"):
        measured_quality(tmp_path)


def test_records_of_other_systems_are_passed_over(tmp_path):
    others = ("variant-d16-p50", "variant-d16-s1", "variant-d16-full", "variant-d16-e5", "free-d16-r1to3",
              "var-d30-plain", "var-d30-b1", "code-n6", "real")
    for number, system in enumerate(("variant-d16-n6", "variant-d16-n7", "var-d30", *others)):
        write_record(tmp_path / f"score-{system}.json", _score(system, 1.0 + number))
    measured = measured_quality(tmp_path)
    assert {str(system): quality.fid for system, quality in measured.items()} == {
        "variant-d16": 1.0, "variant-d16-n7": 2.0, "var-d30": 3.0}


@pytest.mark.parametrize(("changes", "said"), [
    ({"protocol": "adm-rehearsal"}, "protocol differs: 'adm', 'adm-rehearsal'"),
    ({"num_images": 20}, "num_images differs: '10', '20'"),
    ({"reference_sha256": "c"}, "reference_sha256 differs"),
    ({"system": "variant-d8"}, "score-variant-d16.json: is of 'variant-d8', and not of variant-d16"),
])
def test_records_that_cannot_be_compared_are_refused(tmp_path, changes, said):
    sound = _score("var-d30", 1.0)
    write_record(tmp_path / "score-var-d30.json", sound)
    write_record(tmp_path / "score-variant-d16.json", sound.model_copy(update={"system": "variant-d16"} | changes))
    with pytest.raises(ValueError, match=said):
        measured_quality(tmp_path)
