"""Latency, memory and devices of the cost model, against the paper's printed numbers; its command."""

import json
import re
import subprocess
import sys
from dataclasses import fields

import pytest
from conftest import ROOT

from varient.cost.gpus import device, known_devices
from varient.cost.printer import cost_answer
from varient.cost.quantities import PRECISIONS, Work
from varient.cost.roofline import (
    MIB,
    calibration_factor,
    compare_baselines,
    compare_with_paper,
    part_seconds,
    peak_memory,
    system_cost,
)
from varient.cost.simulated_memory import simulated_memory
from varient.paper import paper_table

AUTOCAST = PRECISIONS["fp16-autocast"]


def _varient(*arguments):
    return subprocess.run([sys.executable, "-m", "varient", *arguments], capture_output=True, text=True, cwd=ROOT)


def test_a_part_takes_the_longer_of_computing_and_moving():
    l20, work = device("l20"), Work(flops=119_500_000_000, activation_bytes=864_000_000)  # a millisecond each
    assert part_seconds("mlp", work, l20, AUTOCAST) == pytest.approx(1e-3)
    assert part_seconds("mlp", work + Work(flops=119_500_000_000), l20, AUTOCAST) == pytest.approx(2e-3)
    assert part_seconds("mlp", work + Work(kv_read_bytes=1_728_000_000), l20, AUTOCAST) == pytest.approx(3e-3)
    assert part_seconds("mlp", work, l20, PRECISIONS["fp32"]) == pytest.approx(119.5 / 59.8 * 1e-3)


def _document(cost):
    return cost_answer(cost).document


def test_training_free_code_costs_what_code_costs():
    free, trained = (_document(system_cost(name)) for name in ("free-code-n7", "code-n7"))
    assert free | {"system": ""} == trained | {"system": ""}


def test_latency_of_the_other_baselines_is_not_explained():
    errors = {(row.cost.system.name, row.cost.precision.name): row.latency_error for row in compare_baselines()}
    # Not successes: the module says so, with likely reasons.
    assert errors == {
        ("dit-xl2", "fp16-autocast"): pytest.approx(0.17, abs=0.02), ("dit-xl2", "fp32"): pytest.approx(1.0, abs=0.05),
        ("llamagen-xxl", "fp16-autocast"): pytest.approx(-0.63, abs=0.02),
        ("llamagen-xxl", "bf16"): pytest.approx(-0.71, abs=0.02)}
    # 50 guided steps in float32, or in TF32 at the same peak, need longer than the paper prints.
    flops = _document(system_cost("dit-xl2"))["flops"]
    assert 25.3 < flops / (device("l20").fp32_tflops * 1e12) < 25.5


def test_latency_is_fitted_to_one_row_and_explains_all_but_the_shallowest():
    errors = {row.cost.system.name: row.latency_error for row in compare_with_paper()}
    assert list(errors) == ["var-d30", "code-n6", "variant-d16", "variant-d8", "variant-d4", "variant-d2"]
    assert errors["var-d30"] == pytest.approx(0, abs=1e-12)
    assert 1 < calibration_factor() < 1.5  # kernels below peak, and no more than that
    assert all(abs(errors[name]) < 0.05 for name in ("code-n6", "variant-d16", "variant-d8"))
    # Not a success: the module says that these two rows are not explained.
    assert -0.25 < errors["variant-d4"] < -0.15
    assert -0.31 < errors["variant-d2"] < -0.21


@pytest.mark.parametrize(("system", "printed_s"), [
    ("code-n7", 1.60), ("code-n8", 2.11), ("code-n9", 2.97), ("var-d24", 2.07), ("var-d20", 1.29)])
def test_latency_of_rows_that_only_code_prints(system, printed_s):
    assert system_cost(system, policy="reference").latency_s == pytest.approx(printed_s, rel=0.05)


@pytest.mark.parametrize("row", paper_table(3).to_dict("records"), ids=lambda row: row["method"] + row["batch_size"])
def test_peak_memory_beside_table_3(row):
    cost = system_cost(row["method"].lower(), batch_size=int(row["batch_size"]), policy="reference")
    if (row["method"], row["batch_size"]) == ("VARiant-d2", "256"):
        assert cost.peak_memory.mib > 46068  # known contradiction: printed as 40927, without room for the decoder
        return
    assert _document(cost)["fits_device"] == (row["total_mb"] != "OOM")
    if row["total_mb"] != "OOM":
        assert cost.peak_memory.mib == pytest.approx(float(row["total_mb"]), rel=0.02)


def test_peak_memory_is_not_modelled_for_32_bit_operands():
    document = _document(system_cost("var-d16", precision="fp32"))
    assert document["peak_memory_mib"] is document["fits_device"] is None
    assert document["latency_s"] > _document(system_cost("var-d16"))["latency_s"]


def test_peak_memory_is_the_larger_phase():
    assert peak_memory(0, [(1000 * MIB, 256)], 2).mib == pytest.approx(1000 + 2 * 34.5)
    assert peak_memory(MIB, [(100 * MIB, 256)], 2).mib == pytest.approx(1 + 2 * 168.4)


def test_cache_and_activations_are_those_of_one_pass():
    """The lean cache of d = 2 is fullest in the bridge zone, activations are largest at the last scale."""
    assert peak_memory(0, [(1000 * MIB, 64), (500 * MIB, 256)], 40).transformer_mib == 500 + 40 * 34.5
    assert peak_memory(0, [(1000 * MIB, 64), (500 * MIB, 256)], 4).transformer_mib == 1000 + 34.5
    cost = system_cost("variant-d2", policy="lean", precision="fp16")
    assert cost.kv_cache_bytes / MIB == 1614.375 > max(cost.stages[0].kv_peak_bytes[-1:]) / MIB == 1035.0
    parameters_mib = cost.system.parameter_bytes(cost.precision) / MIB
    assert cost.peak_memory.transformer_mib == pytest.approx(parameters_mib + 1035 + 64 * 34.5)


SIMULATED = [(system, batch_size, policy, precision)
             for system in ("var-d30", "variant-d16", "variant-d8", "variant-d4", "variant-d2")
             for batch_size in (64, 128, 256) for policy in ("reference", "lean")
             for precision in ("fp16-autocast", "fp16")]


@pytest.mark.parametrize(("system", "batch_size", "policy", "precision"), SIMULATED)
def test_the_transformers_phase_is_that_of_the_simulated_allocator(system, batch_size, policy, precision):
    """Nothing is fitted there.  Adding the peaks of two passes was 9 to 16 % off for the lean d = 2."""
    peak = system_cost(system, batch_size=batch_size, policy=policy, precision=precision).peak_memory
    simulated = simulated_memory(system, batch_size, policy, precision)
    assert peak.transformer_mib == pytest.approx(simulated.transformer_mib, rel=0.03)
    # Beside what the paper's totals give: they have cuDNN's workspaces.
    assert 0.84 * peak.decoder_mib < simulated.decoder_whole_batch_mib < peak.decoder_mib


def test_the_total_of_d8_speaks_for_the_cache_of_the_formula():
    """Printed are a cache of 9465 and a total of 20759, which would lie 800 above a simulation with that cache."""
    rows = {(row["method"], row["batch_size"]): row for row in paper_table(3).to_dict("records")}
    simulated = {system: simulated_memory(system, 64, "reference", "fp16-autocast").transformer_mib
                 for system in ("var-d30", "variant-d8")}
    of_d30 = simulated["var-d30"] - float(rows["VAR-d30", "64"]["total_mb"])
    of_d8 = simulated["variant-d8"] - float(rows["VARiant-d8", "64"]["total_mb"])
    assert of_d30 == pytest.approx(215.7, abs=1) and of_d8 == pytest.approx(of_d30, abs=10)


def test_no_latency_is_below_what_the_host_needs_to_launch():
    small, large = (system_cost("var-d30", batch_size=size, precision="fp16", device_key="h200") for size in (1, 64))
    assert small.launches == large.launches == 300 * 24 + 10 * 105
    assert small.latency_s == small.host_s == pytest.approx(0.0495, abs=0.001)
    assert large.latency_s > 4 * large.host_s
    assert system_cost("dit-xl2", batch_size=1).launches == 50 * (28 * 25 + 20)


def test_devices_have_positive_peaks_and_a_source():
    assert set(known_devices()) == {"l20", "a100", "h100", "h200", "rtx4090"}
    for sheet in known_devices().values():
        assert sheet.source
        assert all(getattr(sheet, field.name) > 0 for field in fields(sheet) if field.name not in ("name", "source"))
        assert sheet.tensor_tflops > sheet.fp32_tflops


def test_a_faster_device_is_predicted_faster():
    assert (system_cost("var-d30", device_key="h200").latency_s < system_cost("var-d30", device_key="h100").latency_s
            < system_cost("var-d30", device_key="l20").latency_s)


def test_json_is_one_document_with_units_in_the_keys():
    result = _varient("cost", "--system", "variant-d16", "--batch", "64", "--cache", "reference", "--json")
    assert result.returncode == 0
    document = json.loads(result.stdout)
    assert document["kv_cache_mib"] == 17091.56
    assert document["transformer_parameters"] == 2_010_020_356
    assert document["stages"][0]["token_layers_share_of_full"] == 0.5958
    assert document["stages"][0]["kv_live_mib_by_pass"][-1] == 17091.56
    listed = document["sources"]["arithmetic"] + document["sources"]["predicted"]
    assert set(document["flops_by_part"]) == set(document["moved_bytes_by_part"]) == set(document["latency_s_by_part"])
    assert {key for key in listed if "." not in key} == set(list(document)[list(document).index("sources") + 1:])


@pytest.mark.parametrize(("system", "parameters", "steps", "cache", "kv_cache_mib", "passes"), [
    ("dit-xl2", 675_129_632, "50", "none", 0, [50]), ("dit-xl2-250", 675_129_632, "250", "none", 0, [250]),
    ("llamagen-xxl", 1_410_972_672, "576", "static", 21024.0, [576])])
def test_documents_of_the_other_baselines(system, parameters, steps, cache, kv_cache_mib, passes):
    document = _document(system_cost(system))
    assert (document["transformer_parameters"], document["steps"]) == (parameters, steps)
    assert (document["cache_policy"], document["kv_cache_mib"]) == (cache, kv_cache_mib)
    assert document["stages"][0]["times_by_pass"] == passes
    assert document["stages"][0]["tokens_by_pass"] == [256 if "dit" in system else 1]
    assert document["peak_memory_mib"] is document["fits_device"] is None  # its constants are VAR's
    assert set(document) == set(_document(system_cost("var-d16")))
    assert passes[0] * document["stages"][0]["latency_s_by_pass"][0] == pytest.approx(document["latency_s"], rel=0.01)


def test_tables_for_people():
    assert "2,320,303,876" in _varient("cost", "--system", "code-n7").stdout
    assert "675,129,632" in _varient("cost", "--system", "dit-xl2").stdout
    result = _varient("cost", "--compare", "--json")
    rows = {row["system"]: row for row in json.loads(result.stdout)["systems"]}
    assert rows["variant-d8"]["paper_latency_s"] == 1.4
    assert rows["variant-d8"]["kv_cache_error"] == pytest.approx(0.1057, abs=1e-4)  # the paper's cell is 1000 short
    assert (rows["llamagen-xxl"]["paper_latency_s"], rows["llamagen-xxl"]["precision"]) == (74.27, "bf16")
    assert rows["dit-xl2"]["memory_error"] is rows["dit-xl2"]["peak_memory_mib"] is None
    people = _varient("cost", "--compare").stdout
    assert people.count("variant-d") == 3 * 4
    assert re.search(r"dit-xl2\b.* 19\.20 ", people) and re.search(r"variant-d8\b.* 1\.40 ", people)  # as printed


def test_neither_torch_nor_pandas_is_needed():
    code = ("import sys; from varient.cost.printer import cost_answer; from varient.terminal import print_answer; "
            "from varient.cost.roofline import system_cost; "
            "print_answer(cost_answer(system_cost('code-n6')), as_json=False); "
            "sys.exit(bool({'torch', 'pandas'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT).returncode == 0


@pytest.mark.parametrize(("arguments", "message"), [
    (["--system", "var-d31"], "released depths at 256 x 256 are 16, 20, 24, 30"),
    (["--system", "gan"], "system 'gan' is unknown; known forms: var-d<D>"),
    (["--system", "free-d8-full"], "'-full' is only for ids that begin with variant-"),
    (["--system", "variant-d1"], "d = 1"),
    (["--system", "variant-d8-n11"], "N = 11 is outside 0..10"),
    (["--system", "code-n10"], "the drafter takes 1..9 scales"),
    (["--system", "var-d30", "--device", "tpu"], "device 'tpu' is unknown; known: l20, a100, h100, h200, rtx4090"),
    (["--system", "var-d30", "--batch", "-1"], "batch size -1 is below 1"),
    (["--system", "var-d30", "--precision", "int8"], "precision 'int8' is unknown"),
    (["--system", "dit-xl2", "--cache", "huge"], "cache policy 'huge' is unknown"),
    ([], "either --system or --compare"),
    (["--system", "var-d30", "--compare"], "either --system or --compare"),
])
def test_bad_input_ends_in_one_line(arguments, message):
    result = _varient("cost", *arguments)
    assert result.returncode == 1
    assert result.stdout == ""
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
