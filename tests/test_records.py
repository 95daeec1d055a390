import json

import pytest

from varient.records import Provenance, RecordError, ScoreRecord, provenance, read_record, write_record

PROVENANCE = Provenance(experiment="digits", seed=0, settings="x", weights_sha256={"base": "ab"}, device="CPU",
                        threads=1, versions={"torch": "2"}, git_commit=None, created="2026-01-01T00:00:00+00:00")


def _score(**changes):
    values = {"system": "var-d30", "protocol": "digits", "extractor": "x", "num_images": 10, "num_reference": 10,
              "images_sha256": "ab", "reference_sha256": "cd", "fid": 1.25, "fid_sd": 0.05, "fid_bias": 0.1,
              "precision": 0.8, "precision_sd": 0.01, "recognised": 0.99, "provenance": PROVENANCE}
    return ScoreRecord(**values | changes)


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


def test_provenance_tells_device_threads_and_versions():
    made = provenance(experiment="digits", seed=1, settings="x", weights_sha256={})
    assert made.device and made.threads >= 1
    assert {"python", "torch", "torch-fidelity", "clean-fid"} <= set(made.versions)
