"""Sweeps over batch sizes: where they end, that they go on, and what they answer."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT
from record_factory import profile as made_up
from typer.testing import CliRunner

from varient.cli import app
from varient.profile_records import ProfileRecord
from varient.profiling import sweep as module
from varient.profiling.profiler import Configuration, new_record
from varient.profiling.sweep import SweepError, sweep
from varient.records import RecordError, read_record, write_record
from varient.report.sweeps import best, sweep_answer
from varient.results import read_sweep, read_sweeps

SMOKE = ROOT / "workflow/config/smoke.yaml"
WANTED = Configuration("var-d6", 1, "fp32", "lean", random_weights=True)


@pytest.fixture
def profiled(monkeypatch, smoke):
    """The batches that were profiled; those above 8 images do not fit into memory, and 2 a second are drawn."""
    asked = []

    def profile(config_path, config, wanted, run_dir, output, *, quiet):
        asked.append(wanted.batch_size)
        latency = {"median_s": wanted.batch_size / 2, "iqr_s": None, "repeats_s": [wanted.batch_size / 2]}
        measured = {"latency": latency, "decoder_latency": latency} if wanted.batch_size <= 8 else {"reason": "full"}
        record = new_record(config, wanted, run_dir, **measured)
        write_record(output, record)
        return record

    monkeypatch.setattr(module, "profile_in_fresh_process", profile)
    return asked


def _sweep(smoke, folder, wanted=WANTED, most=1024):
    return sweep(SMOKE, smoke, wanted, folder, folder, most=most, told=lambda record: None)


def test_batches_double_until_one_does_not_fit(smoke, tmp_path, profiled):
    records = _sweep(smoke, tmp_path)
    assert profiled == [record.batch_size for record in records] == [1, 2, 4, 8, 16]
    assert [record.status for record in records] == ["ok"] * 4 + ["out_of_memory"]
    assert read_sweep(tmp_path) == records


@pytest.mark.parametrize(("most", "batches"), [(1, [1]), (2, [1, 2]), (3, [1, 2]), (7, [1, 2, 4]), (8, [1, 2, 4, 8])])
def test_no_batch_is_above_the_largest(smoke, tmp_path, profiled, most, batches):
    assert [record.batch_size for record in _sweep(smoke, tmp_path, most=most)] == profiled == batches


def test_an_interrupted_sweep_goes_on_where_it_was(smoke, tmp_path, profiled):
    _sweep(smoke, tmp_path, most=2)
    profiled.clear()
    assert [record.batch_size for record in _sweep(smoke, tmp_path)] == [1, 2, 4, 8, 16] and profiled == [4, 8, 16]
    profiled.clear()
    _sweep(smoke, tmp_path)
    assert profiled == []


@pytest.mark.parametrize(("changes", "named"), [
    ({"system": "variant-d4"}, "system (var-d6, not variant-d4)"), ({"precision": "bf16"}, "precision (fp32, not bf16"),
    ({"cache_policy": "reference"}, "cache policy (lean, not reference)"),
    ({"memory_cap_bytes": 2 ** 30}, "memory cap in MiB (None, not 1024"),
    ({"random_weights": False}, "weights (random, not trained)")])
def test_records_of_another_configuration_are_refused_by_what_differs(smoke, tmp_path, profiled, changes, named):
    _sweep(smoke, tmp_path, most=1)
    for name in ("tokenizer", "base"):
        (tmp_path / f"{name}.safetensors").write_text("x")
    other = Configuration(**vars(WANTED) | changes)
    with pytest.raises(SweepError) as error:
        _sweep(smoke, tmp_path, other)
    assert "profile-b1.json" in str(error.value) and named in str(error.value) and profiled == [1]


def test_records_of_other_settings_and_weights_are_refused(smoke, tmp_path, profiled):
    _sweep(smoke, tmp_path, most=1)
    slower = smoke.model_copy(update={"profiling": smoke.profiling.model_copy(update={"repeats": 9})})
    with pytest.raises(SweepError, match=r"profile-b1\.json.*settings"):
        _sweep(slower, tmp_path)
    wider = smoke.model_copy(update={"transformer": smoke.transformer.model_copy(update={"mlp_ratio": 8.0})})
    with pytest.raises(SweepError, match=r"profile-b1\.json.*parameters"):
        _sweep(wider, tmp_path)
    trained = Configuration("var-d6", 1, "fp32", "lean")
    for name in ("tokenizer", "base"):
        (tmp_path / f"{name}.safetensors").write_text("x")
    (tmp_path / "profile-b1.json").unlink()
    _sweep(smoke, tmp_path, trained, most=1)
    (tmp_path / "base.safetensors").write_text("y")
    with pytest.raises(SweepError, match=r"profile-b1\.json.*weight files"):
        _sweep(smoke, tmp_path, trained)


@pytest.mark.parametrize("changes", [{"device": "CPU of another kind"}, {"threads": 7}])
def test_a_sweep_does_not_go_on_elsewhere(smoke, tmp_path, profiled, changes):
    _sweep(smoke, tmp_path, most=2)
    first = tmp_path / "profile-b1.json"
    record = read_record(first, ProfileRecord)
    elsewhere = record.model_copy(update={"provenance": record.provenance.model_copy(update=changes)})
    write_record(first, elsewhere)
    with pytest.raises(SweepError) as error:
        _sweep(smoke, tmp_path)
    said = "7 threads" if "threads" in changes else "CPU of another kind"
    assert "profile-b2.json: measured on" in str(error.value) and said in str(error.value)


def test_a_record_of_another_batch_under_its_name_is_refused(smoke, tmp_path, profiled):
    _sweep(smoke, tmp_path, most=2)
    (tmp_path / "profile-b2.json").rename(tmp_path / "profile-b1.json")
    with pytest.raises(SweepError, match=r"profile-b1\.json.*batch size \(2, not 1\)"):
        _sweep(smoke, tmp_path)


def test_the_answer_is_the_batch_with_the_highest_throughput():
    records = [made_up("var-d30", [seconds], batch_size=batch, provenance=made_up("x", [1.0]).provenance)
               for batch, seconds in ((1, 0.5), (2, 0.5), (4, 2.0))]
    records.append(made_up("var-d30", [1.0], batch_size=8, status="out_of_memory", reason="full", latency=None,
                           decoder_latency=None))
    assert best(records) is records[1]
    document = sweep_answer(records).document
    assert (document["best_batch_size"], document["best_images_per_s"], document["out_of_memory_at"]) == (2, 4.0, 8)
    assert [row["images_per_s"] for row in document["batches"]] == [2.0, 4.0, 2.0, None]
    assert best(records[3:]) is None and sweep_answer(records[3:]).document["best_batch_size"] is None


def test_sweeps_that_are_mixed_up_are_named(tmp_path):
    for folder, system, batch in (("a", "var-d6", 1), ("a", "var-d6", 2), ("b", "var-d6", 1), ("c", "var-d6", 1),
                                  ("c", "variant-d2", 2), ("d", "var-d6", 4)):
        write_record(tmp_path / folder / f"profile-b{batch}.json", made_up(system, [1.0], batch_size=min(batch, 2)))
    assert [record.batch_size for record in read_sweeps([tmp_path / "a"])] == [1, 2]
    with pytest.raises(RecordError, match=f"{tmp_path / 'b'}: a second sweep of var-d6"):
        read_sweeps([tmp_path / "a", tmp_path / "b"])
    for folder, batch in (("c", 2), ("d", 4)):
        with pytest.raises(RecordError, match=rf"{folder}/profile-b{batch}\.json: not batch {batch} of var-d6"):
            read_sweeps([tmp_path / folder])


@pytest.mark.parametrize("damage", [None, "{"])
def test_a_folder_that_is_no_sweep_is_named(tmp_path, damage):
    if damage:
        (tmp_path / "profile-b1.json").write_text(damage)
    with pytest.raises(RecordError, match=str(tmp_path)):
        read_sweep(tmp_path)


def test_the_command_answers_in_one_document_and_leaves_a_record_for_each_batch(tmp_path):
    command = [sys.executable, "-m", "varient", "sweep", "--config", str(SMOKE), "--system", "variant-d2",
               "--random-weights", "--most", "2", "--json", "-o", str(tmp_path / "sweep")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [row["batch_size"] for row in document["batches"]] == [1, 2] and document["out_of_memory_at"] is None
    assert document["best_images_per_s"] == max(row["images_per_s"] for row in document["batches"])
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir()) == ["profile-b1.json", "profile-b2.json"]
    record = read_record(tmp_path / "sweep/profile-b2.json", ProfileRecord)
    assert (record.batch_size, record.system, record.status) == (2, "variant-d2", "ok")
    again = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert json.loads(again.stdout) == document and "profiling" not in again.stderr


@pytest.mark.parametrize(("arguments", "message"), [
    (["--system", "var-d6", "--most", "0"], "most 0 is below 1"),
    (["--system", "var-d6", "--most", str(2 ** 21)], "most 2097152 is above"),
    (["--system", "var-d7"], "base network of smoke is var-d6"),
    (["--system", "nothing"], "nothing"),
    (["--system", "var-d6", "--precision", "fp8"], "precision 'fp8' is unknown"),
    (["--system", "dit-mini", "--cache", "lean"], "no cache policy 'lean'"),
    (["--system", "var-d6", "--memory-cap", "48"], "size '48' is not understood"),
])
def test_bad_input_ends_in_one_line_and_leaves_nothing(arguments, message, tmp_path):
    result = CliRunner().invoke(app, ["sweep", "--config", str(SMOKE), *arguments, "-o", str(tmp_path / "x")])
    assert result.exit_code == 1 and len(result.output.splitlines()) == 1, result.output
    assert message in result.output and list(tmp_path.iterdir()) == []
