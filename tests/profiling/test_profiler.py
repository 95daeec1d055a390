"""The stage as users run it: real processes, networks of the smoke configuration."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import ROOT

from varient.cost.kv_accounting import kv_peak_bytes
from varient.models.checkpoint import save_weights
from varient.profile_records import ProfileRecord
from varient.profiling import profiler
from varient.profiling.profiler import Configuration, Workload, profile_here
from varient.records import RecordError, read_record
from varient.sampling import SampledReadout
from varient.sources import stage_sources
from varient.systems.pipeline import random_pipeline
from varient.systems.registry import resolve_system

SMOKE = ROOT / "workflow/config/smoke.yaml"
MIB = 2 ** 20


def _command(output, *arguments, config=SMOKE):
    return [sys.executable, "-m", "varient", "profile", "--config", str(config), "--output", str(output), *arguments]


def _profile(output, *arguments, config=SMOKE):
    return subprocess.run(_command(output, *arguments, config=config), capture_output=True, text=True, cwd=ROOT)


def _changed(tmp_path, **sections):
    """The smoke configuration with some keys changed."""
    settings = yaml.safe_load(SMOKE.read_text())
    for section, changes in sections.items():
        settings[section] |= changes
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture
def run_dir(smoke, tmp_path) -> Path:
    """A run folder made by hand: random networks where trained ones would be."""
    pipeline = random_pipeline(smoke, smoke.plan())
    save_weights(tmp_path / "run/tokenizer.safetensors", pipeline.tokenizer, {})
    save_weights(tmp_path / "run/supernet-d4.safetensors", pipeline.model, {})
    return tmp_path / "run"


def test_a_trained_system(smoke, run_dir, tmp_path):
    output = tmp_path / "profile.json"
    result = _profile(output, "--system", "variant-d4", "--run-dir", str(run_dir))
    assert result.returncode == 0, result.stderr
    record = read_record(output, ProfileRecord)
    assert f"wrote {output}" in result.stdout and f"{record.latency.median_s:.4f} s" in result.stdout
    assert (record.status, record.weights, record.steps, record.batch_size) == ("ok", "trained", "6+4", 4)
    assert (record.precision, record.cache_policy) == ("fp32", "lean")
    assert set(record.provenance.weights_sha256) == {"tokenizer", "supernet-d4"}
    model = random_pipeline(smoke, smoke.plan()).model
    assert record.num_parameters == sum(p.numel() for p in model.parameters())
    for latency in (record.latency, record.decoder_latency):
        assert len(latency.repeats_s) == 3 and min(latency.repeats_s) <= latency.median_s <= max(latency.repeats_s)
        assert min(latency.repeats_s) > 0 and len(latency.cpu_s) == 3
    assert len(record.latency_by_scale_s) == smoke.pyramid.num_scales and min(record.latency_by_scale_s) > 0
    assert f"{record.batch_size / record.latency.median_s:.4g} images/s" in result.stdout
    assert " ".join(f"{seconds:.4f}" for seconds in record.latency_by_scale_s) in result.stdout
    assert record.load.threads == record.provenance.threads == 1 and record.load.cores >= 1
    assert record.energy_j_per_image is None and set(record.unanswered) == {"energy"}


@pytest.mark.parametrize("system", ["var-d6", "variant-d2-n3", "free-code-n6"])
def test_scales_take_the_time_of_a_generation_together(smoke, system):
    """The same generation by both clocks: what the scales leave out follows the last tokens."""
    wanted = Configuration(system, 8, "fp32", "lean", random_weights=True)
    batch = Workload(smoke, wanted, resolve_system(system, smoke).load(None, "fp32"))
    batch.latents()
    begin = time.perf_counter()
    by_scale = batch.seconds_by_scale(torch.device("cpu"), repeats=1)
    whole_s = time.perf_counter() - begin
    assert len(by_scale) == smoke.pyramid.num_scales and min(by_scale) > 0
    assert 0.8 * whole_s < sum(by_scale) < whole_s


@pytest.mark.parametrize("system", ["dit-mini", "llamagen-mini"])
def test_systems_without_scales_have_no_latency_by_scale(smoke, tmp_path, system):
    wanted = Configuration.of(smoke, system, batch_size=1, random_weights=True)
    assert profile_here(smoke, wanted, tmp_path, tmp_path / "profile.json").latency_by_scale_s == ()


def test_marks_of_scales_are_in_no_timed_run(smoke, tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(profiler, "disturbances", lambda record: ())
    monkeypatch.setattr(SampledReadout, "__call__", _noting(order, SampledReadout.__call__))
    wanted = Configuration("var-d6", 1, "fp32", "lean", random_weights=True)
    profile_here(smoke, wanted, tmp_path, tmp_path / "profile.json")
    marked = smoke.profiling.repeats * smoke.pyramid.num_scales
    assert order[-marked:] == [True] * marked and not any(order[:-marked])


def _noting(order, call):
    def noted(self, k, logits_BlV):
        order.append(self.on_scale is not None)
        return call(self, k, logits_BlV)

    return noted


@pytest.mark.parametrize("policy", ["lean", "reference"])
@pytest.mark.parametrize("system", ["var-d6", "variant-d2-n3"])
def test_the_split_of_memory(smoke, tmp_path, system, policy):
    wanted = Configuration(system, 5, "fp32", policy, random_weights=True)
    record = profile_here(smoke, wanted, tmp_path, tmp_path / "profile.json")
    memory = record.memory
    counted_bytes = kv_peak_bytes(resolve_system(system, smoke).plan, smoke.pyramid, 10, 16, policy, 4, 4)
    assert memory.kv_cache_mib * MIB == counted_bytes
    assert record.weights == f"random, seed 0, drawn by torch {torch.__version__} on cpu"
    assert record.attention == ("flash_attention_for_cpu",) and record.allocator is None
    assert record.provenance.weights_sha256 == {}
    pipeline = random_pipeline(smoke, smoke.plan())
    stored = [t for network in (pipeline.model, pipeline.tokenizer) for t in network.state_dict().values()]
    assert memory.parameters_mib * MIB == sum(t.numel() * t.element_size() for t in stored)
    parts = memory.kv_cache_mib, memory.activations_mib, memory.decoder_mib
    assert min(parts) > 0 and memory.kv_scratch_mib > 0
    whole_mib = memory.tensors_mib - memory.parameters_mib
    assert max(parts) <= whole_mib <= max(memory.kv_cache_mib + memory.activations_mib, memory.decoder_mib)
    assert memory.activations_mib < whole_mib  # the cache's entries are no activations
    assert memory.tensors_mib < memory.rss_mib
    on_gpu = {name: value for name, value in memory.model_dump().items() if name.startswith(("nvml", "allocator"))}
    assert len(on_gpu) == 4 and set(on_gpu.values()) == {None} and memory.memory_cap_mib is None


def test_the_full_network_takes_turns_with_every_other_system(smoke, tmp_path):
    full, subnet = (profile_here(smoke, Configuration(system, 2, "fp32", "lean", random_weights=True), tmp_path,
                                 tmp_path / "profile.json") for system in ("var-d6", "variant-d2"))
    assert full.reference is None and full.speedup is None
    assert len(subnet.reference.repeats_s) == len(subnet.latency.repeats_s) == smoke.profiling.repeats
    ratios = [whole / own for whole, own in zip(subnet.reference.repeats_s, subnet.latency.repeats_s, strict=True)]
    assert subnet.speedup == sorted(ratios)[len(ratios) // 2]


def test_a_full_network_that_does_not_fit_beside_a_system_leaves_it_without_a_speedup(smoke, tmp_path, monkeypatch,
                                                                                      capsys):
    def load(*weights_and_precision):
        raise MemoryError

    def resolve(name, config):
        system = resolve_system(name, config)
        return SimpleNamespace(cache_policies=system.cache_policies, load=load) if name == "var-d6" else system

    monkeypatch.setattr(profiler, "resolve_system", resolve)
    wanted = Configuration("variant-d2", 2, "fp32", "lean", random_weights=True)
    record = profile_here(smoke, wanted, tmp_path, tmp_path / "profile.json")
    assert record.status == "ok" and record.latency and record.reference is None and record.speedup is None
    assert "var-d6 does not fit into memory beside variant-d2" in capsys.readouterr().out


@pytest.mark.parametrize(("disturbed", "measured"), [(0, 1), (1, 2), (9, 3)])
def test_disturbed_times_are_measured_again_up_to_a_limit(smoke, tmp_path, monkeypatch, disturbed, measured):
    signs = iter([("busy",)] * disturbed + [()])
    rounds = []
    monkeypatch.setattr(profiler, "disturbances", lambda record: next(signs))
    time_in_turns = profiler.time_in_turns
    monkeypatch.setattr(profiler, "time_in_turns",
                        lambda steps, *args, **rest: rounds.append([*steps]) or time_in_turns(steps, *args, **rest))
    wanted = Configuration("var-d6", 1, "fp32", "lean", random_weights=True)
    assert profile_here(smoke, wanted, tmp_path, tmp_path / "profile.json").status == "ok"
    assert rounds == [["latency"], ["decoder_latency"]] * measured


def test_policies_and_batches_show_in_memory(smoke, tmp_path):
    def profile(batch_size, policy):
        wanted = Configuration("var-d6", batch_size, "fp32", policy, random_weights=True)
        return profile_here(smoke, wanted, tmp_path, tmp_path / "profile.json").memory

    lean, double, reference = profile(8, "lean"), profile(16, "lean"), profile(8, "reference")
    assert double.kv_cache_mib == 2 * lean.kv_cache_mib
    assert 1.9 < double.activations_mib / lean.activations_mib < 2.1
    assert double.parameters_mib == lean.parameters_mib
    assert reference.kv_cache_mib > lean.kv_cache_mib and reference.tensors_mib > lean.tensors_mib
    # What is neither parameters nor cache is the same under both policies, but for the one layer that lean joins.
    assert lean.activations_mib - lean.kv_scratch_mib == pytest.approx(reference.activations_mib, rel=0.02)


@pytest.mark.parametrize(("arguments", "message"), [
    (["--system", "var-d7"], "base network of smoke is var-d6"),
    (["--system", "var-d6", "--batch", "-3"], "batch size -3 is below 1"),
    (["--system", "var-d6", "--memory-cap", "48"], "size '48' is not understood"),
    (["--system", "var-d6", "--memory-cap", "48GiB", "--random-weights"], "a memory cap emulates a smaller GPU"),
    (["--system", "var-d6", "--run-dir", "/nowhere"], "/nowhere/"),
])
def test_bad_input_ends_in_one_line_and_leaves_nothing(arguments, message, tmp_path):
    result = _profile(tmp_path / "profile.json", *arguments)
    assert result.returncode == 1
    assert message in result.stderr and len(result.stderr.splitlines()) == 1, result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("changes", "message"), [
    ({"batch_size": 0}, "batch size 0 is below 1"),
    ({"precision": "fp8"}, "precision 'fp8' is unknown; known: fp32, fp16, bf16"),
    ({"cache_policy": "big"}, "var-d6 has no cache policy 'big'; known: lean, reference"),
])
def test_what_cannot_be_profiled_is_refused_before_anything_starts(smoke, changes, message):
    with pytest.raises(ValueError, match=message):
        Configuration.of(smoke, "var-d6", **changes)


def test_a_network_beyond_all_memory_is_a_result(tmp_path):
    config = _changed(tmp_path, transformer={"mlp_ratio": 1e12})  # a layer larger than the address space
    output = tmp_path / "profile.json"
    result = _profile(output, "--system", "var-d6", "--random-weights", config=config)
    assert result.returncode == 0, result.stderr
    assert "var-d6: out of memory (" in result.stdout
    record = read_record(output, ProfileRecord)
    assert record.status == "out_of_memory" and "can't allocate memory" in record.reason
    assert (record.latency, record.decoder_latency) == (None, None)
    assert set(record.memory.model_dump().values()) == {None}
    assert record.num_parameters > 1e14


@pytest.fixture
def endless(tmp_path):
    """A profile that does not end by itself, and its worker; both are gone afterwards."""
    config = _changed(tmp_path, profiling={"repeats": 100_000})
    # What a shell starts in the background ignores SIGINT, and so would its children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        parent = subprocess.Popen(
            _command(tmp_path / "profile.json", "--system", "var-d6", "--random-weights", config=config),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True)
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        yield parent, _worker_of(parent.pid)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()
        parent.stderr.close()


def test_a_worker_that_somebody_killed_makes_no_record(endless, tmp_path):
    parent, worker = endless
    os.kill(worker, signal.SIGKILL)
    parent.wait(timeout=60)
    told = [line for line in parent.stderr.read().splitlines() if line.startswith("varient: ")]
    assert parent.returncode == 1 and len(told) == 1 and "var-d6: the profiling process was killed" in told[0]
    assert not (tmp_path / "profile.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_worker_ends_with_the_process_that_started_it(endless, number, tmp_path):
    parent, worker = endless
    os.kill(parent.pid, number)
    parent.wait(timeout=60)
    for _ in range(100):
        if not _lives(worker):
            break
        time.sleep(0.1)
    assert not _lives(worker) and not (tmp_path / "profile.json").exists()


def _lives(pid: int) -> bool:
    """Whether a process is there and is no zombie that nobody has asked for its end."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_worker_that_the_kernel_killed_for_want_of_memory_makes_a_record(smoke, tmp_path, monkeypatch):
    """Of the same threads as the worker's own records."""
    counts = iter([3, 4])
    monkeypatch.setattr(profiler, "oom_kills", lambda: next(counts))
    killed = SimpleNamespace(run=lambda command, env, stdout: subprocess.CompletedProcess(command, -signal.SIGKILL))
    monkeypatch.setattr(profiler, "subprocess", killed)
    before, smoke = torch.get_num_threads(), smoke.model_copy(
        update={"profiling": smoke.profiling.model_copy(update={"threads": 2})})
    try:
        wanted = Configuration("var-d6", 1, "fp32", "lean", random_weights=True)
        profiler.profile_in_fresh_process(SMOKE, smoke, wanted, tmp_path, tmp_path / "profile.json")
    finally:
        torch.set_num_threads(before)
    record = read_record(tmp_path / "profile.json", ProfileRecord)
    assert record.status == "out_of_memory" and "SIGKILL" in record.reason and record.num_parameters == 31_356
    assert record.provenance.threads == 2


@pytest.mark.parametrize(("said", "got"), [(None, "expandable_segments:True"), ("max_split_size_mb:64",) * 2])
def test_the_workers_allocator_grows_its_segments_unless_told_otherwise(smoke, tmp_path, monkeypatch, said, got):
    seen = []
    stopped = SimpleNamespace(
        run=lambda command, env, stdout: seen.append(env) or subprocess.CompletedProcess(command, 1))
    monkeypatch.setattr(profiler, "subprocess", stopped)
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    if said:
        monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", said)
    with pytest.raises(SystemExit):
        profiler.profile_in_fresh_process(SMOKE, smoke, Configuration("var-d6", 1, "fp32", "lean"), tmp_path, tmp_path)
    assert seen[0]["PYTORCH_CUDA_ALLOC_CONF"] == got and seen[0]["PATH"] == os.environ["PATH"]


def _worker_of(pid: int) -> int:
    """The `profile-worker` that a process has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    for _ in range(600):
        for child in children.read_text().split():
            if b"profile-worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
        time.sleep(0.1)
    raise TimeoutError("no worker within a minute")


def test_a_record_cannot_say_two_things(smoke, tmp_path):
    path = tmp_path / "profile.json"
    profile_here(smoke, Configuration("var-d6", 1, "fp32", "lean", random_weights=True), tmp_path, path)
    content = json.loads(path.read_text())
    for change in ({"status": "out_of_memory"}, {"latency": None}, {"reason": "too big"}):
        path.write_text(json.dumps(content | change))
        with pytest.raises(RecordError, match="both latencies and no reason"):
            read_record(path, ProfileRecord)
    untimed = {"status": "out_of_memory", "reason": "too big", "latency": None, "decoder_latency": None}
    path.write_text(json.dumps(content | untimed))
    with pytest.raises(RecordError, match="with a latency by scale"):
        read_record(path, ProfileRecord)
    path.write_text(json.dumps(content | untimed | {"latency_by_scale_s": []}))
    assert read_record(path, ProfileRecord).images_per_s is None


def test_the_workflow_reruns_a_profile_when_its_code_changes():
    sources = stage_sources("varient.profiling.profiler")
    assert {"varient/profiling/memory.py", "varient/profiling/nvml.py", "varient/sampling.py"} <= set(sources)
    assert not any(path.startswith(("varient/training/", "varient/claims/", "varient/report/")) for path in sources)


@pytest.mark.gpu(alone=True)
def test_on_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("VARIENT_DEVICE", "cuda")
    output = tmp_path / "profile.json"
    result = _profile(output, "--system", "var-d6", "--random-weights", "--memory-cap", "2GiB")
    assert result.returncode == 0, result.stderr
    record = read_record(output, ProfileRecord)
    memory = record.memory
    assert record.status == "ok" and record.gpu_driver and memory.memory_cap_mib == 2048
    assert memory.allocator_allocated_mib <= memory.allocator_reserved_mib <= memory.nvml_device_mib
    assert memory.tensors_mib is None and memory.kv_cache_mib + memory.parameters_mib < memory.allocator_allocated_mib
    result = _profile(output, "--system", "var-d6", "--random-weights", "--memory-cap", "1MiB")
    assert result.returncode == 0, result.stderr
    assert read_record(output, ProfileRecord).status == "out_of_memory"
