import json

import pytest
import torch
from pydantic import ValidationError
from record_factory import provenance as made_up
from record_factory import reconstruction, score

from varient.json_file import MOST_BYTES
from varient.profile_records import ProfileRecord
from varient.records import (
    ReconstructionRecord,
    RecordError,
    ScoreRecord,
    provenance,
    random_weights,
    read_record,
    write_record,
)
from varient.results import Results


def _score(**changes):
    return score(**{"system": "var-d30", "fid": 1.25, "fid_sd": 0.05, "precision": 0.8, "precision_sd": 0.01,
                    "recognised": 0.99} | changes)


def test_records_round_trip(tmp_path):
    write_record(tmp_path / "r.json", _score())
    assert read_record(tmp_path / "r.json", ScoreRecord) == _score()


def test_foreign_files_name_file_and_key(tmp_path):
    path = tmp_path / "r.json"
    with pytest.raises(RecordError, match="no such record"):
        read_record(path, ScoreRecord)
    path.write_text("{")
    with pytest.raises(RecordError, match="r.json: not a ScoreRecord"):
        read_record(path, ScoreRecord)
    content = json.loads(_score().model_dump_json())
    content["fid"] = "low"
    path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match="fid: "):
        read_record(path, ScoreRecord)


def test_a_summary_has_the_spreads_that_there_are():
    assert _score(inception_score=5).summary() == "FID 1.250 ± 0.098, IS 5.00, precision 0.800 ± 0.020"


def test_a_score_without_fid_has_cmmd():
    without = {"fid": None, "fid_sd": None, "fid_bias": None}
    record = _score(**without, cmmd=0.5, cmmd_sd=0.01)
    assert record.summary() == "precision 0.800 ± 0.020, CMMD 0.500 ± 0.020"
    assert ScoreRecord.model_validate_json(record.model_dump_json()) == record
    for wrong in (without, {"fid_sd": None}, {"fid": None, "cmmd": 0.5}, {"fid_bias": None, "cmmd": 0.5}):
        with pytest.raises(ValidationError, match="fid"):
            _score(**wrong)


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(("key", "values"), [
    ("fid", (NAN, INFINITE, -0.5)), ("fid_sd", (NAN, -1)), ("fid_bias", (NAN, INFINITE)), ("sfid", (-1, NAN)),
    ("kid", (NAN, INFINITE)), ("kid_sd", (-1,)), ("inception_score", (0, -2, NAN)), ("precision", (-0.1, 1.1, NAN)),
    ("recall", (1.5,)), ("recognised", (7, -1)), ("num_images", (0, -1, 10 ** 400, True, "5")),
    ("num_reference", (-1,)), ("fid_test", (-3, NAN)), ("fid_test_sd", (-1,)), ("fid_infinity", (INFINITE, -1e300)),
    ("inception_score_sd", (1e300,)), ("cmmd", (-0.1, NAN, INFINITE)), ("cmmd_sd", (-1,)),
    ("system", ("x" * 20_000, 5)),
])
def test_scores_that_cannot_be_are_refused_when_they_are_read(tmp_path, key, values):
    path = tmp_path / "r.json"
    for value in values:
        path.write_text(json.dumps(json.loads(_score().model_dump_json()) | {key: value}))
        with pytest.raises(RecordError, match=rf"r.json: not a ScoreRecord: {key}: "):
            read_record(path, ScoreRecord)


@pytest.mark.parametrize("change", [{"scale": 2}, {"scale": 18}, {"side": 2}, {"tokens": 5}])
def test_reconstructions_are_of_the_scales_that_they_name(tmp_path, smoke, change):
    record = reconstruction(smoke, [3, 2, 1])
    write_record(tmp_path / "r.json", record)
    assert read_record(tmp_path / "r.json", ReconstructionRecord) == record
    content = json.loads(record.model_dump_json())
    content["scales"][0] |= change
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(RecordError, match="r.json: not a ReconstructionRecord: .*scale 1 of patch_nums"):
        read_record(tmp_path / "r.json", ReconstructionRecord)


def _profile(**changes):
    once = {"median_s": 0.2, "iqr_s": 0.1, "repeats_s": [0.1, 0.2, 0.3]}
    return {"system": "var-d30", "status": "ok", "reason": None, "steps": "10", "batch_size": 4, "precision": "fp32",
            "cache_policy": "lean", "weights": "trained", "num_parameters": 10, "latency": once | changes,
            "decoder_latency": once, "warmup": 1, "memory": {}, "gpu_driver": None,
            "provenance": made_up().model_dump()}


def test_profiles_of_before_have_no_cpu_time_and_no_load():
    record = ProfileRecord.model_validate(_profile())
    assert record.load is None and record.latency.cpu_s is None


@pytest.mark.parametrize(("changes", "message"), [
    ({"median_s": 0}, "latency.median_s"), ({"median_s": 5e-324}, "latency.median_s"),
    ({"median_s": NAN}, "latency.median_s"), ({"iqr_s": -1}, "latency.iqr_s"),
    ({"median_s": 5}, "outside the repeats"), ({"repeats_s": []}, "latency.repeats_s"),
    ({"repeats_s": [0.1, 0.2, -0.3]}, "latency.repeats_s.2"), ({"cpu_s": [1]}, "1 CPU times for 3 repeats"),
    ({"cpu_s": [1, 2, INFINITE]}, "latency.cpu_s.2"),
])
def test_times_that_cannot_be_are_refused_when_they_are_read(tmp_path, changes, message):
    (tmp_path / "p.json").write_text(json.dumps(_profile(**changes)))
    with pytest.raises(RecordError, match=rf"p.json: not a ProfileRecord: .*{message}"):
        read_record(tmp_path / "p.json", ProfileRecord)


def test_what_is_no_record_is_named(tmp_path):
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    (tmp_path / "list").write_text("[1]")
    (tmp_path / "deep").write_text("[" * 10_000)
    (tmp_path / "profile").write_text(json.dumps(_profile()))
    (tmp_path / "long").write_bytes(b" " * (MOST_BYTES + 1))
    for name in ("bytes", "list", "deep", "profile", ".", "list/below", "long"):
        with pytest.raises(RecordError) as error:
            read_record(tmp_path / name, ScoreRecord)
        assert str(tmp_path / name) in str(error.value) and len(str(error.value).splitlines()) == 1


def test_a_scan_leaves_out_what_is_no_record_and_says_so(tmp_path):
    records = tmp_path / "records"
    write_record(records / "score-a.json", _score())
    (records / "score-b.json").write_bytes(b"\xff")
    (records / "score-c.json").mkdir()
    (records / "notes.json").write_text("{}")
    (records / ".score-e-0123abcd.json").write_text("{")
    (records / "profile-d.json").write_text(_score().model_dump_json())
    results = Results.found_in(tmp_path)
    assert set(results.scores) == {"var-d30"} and len(results.remarks) == 4
    names = ("score-b", "score-c", "profile-d", "notes")
    assert all(any(name in remark for remark in results.remarks) for name in names)
    with pytest.raises(RecordError, match=r"score-a\.json: a file, not a run folder"):
        Results.found_in(records / "score-a.json")
    assert Results.found_in(tmp_path / "none").scores == {}


def test_provenance_tells_device_threads_and_versions():
    made = provenance(experiment="digits", seed=1, settings="x", weights_sha256={})
    assert made.device and made.threads >= 1
    assert {"python", "torch", "torch-fidelity", "clean-fid"} <= set(made.versions)


@pytest.mark.parametrize("on", ["cpu", "cuda"])
def test_random_weights_are_named_with_all_that_their_values_hang_on(on):
    said = random_weights(3, on)
    assert said.startswith("random, seed 3") and torch.__version__ in said and said.endswith(on)
