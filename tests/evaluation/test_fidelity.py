"""Records of fidelity: systems of a small run against its full network, and any two sets of images."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from varient.archive import Archive, read_archive, write_archive
from varient.cli import app
from varient.evaluation.extractors import ClassifierExtractor
from varient.evaluation.fidelity import compare_systems
from varient.evaluation.image_source import source_of
from varient.evaluation.pairs import PairError
from varient.evaluation.scoring import ScoreError, verdicts
from varient.evaluation.token_agreement import drawn_tokens
from varient.files import write_text
from varient.generation import generate_shard, images, label_of
from varient.models.build import build_classifier, load_classifier
from varient.models.checkpoint import save_weights
from varient.records import FidelityRecord, read_record
from varient.systems.registry import resolve_system

SYSTEMS = ("var-d6", "free-d4", "variant-d4")


@pytest.fixture(scope="module")
def experiment():
    from conftest import ROOT

    from varient.config import load_config

    return load_config(ROOT / "workflow/config/smoke.yaml")


@pytest.fixture(scope="module")
def run_dir(experiment, tmp_path_factory):
    """Random networks of the experiment and what they draw, in two shards."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    for name in ("base", "supernet-d4"):
        pipeline = resolve_system("var-d6", experiment).load(None, "fp32")
        with torch.no_grad():
            pipeline.model.head.weight.normal_()  # the initial head is nearly zero, so that all plans would agree
        save_weights(folder / f"{name}.safetensors", pipeline.model, {})
    save_weights(folder / "tokenizer.safetensors", pipeline.tokenizer, {})
    for role in ("features", "judge"):
        classifier = build_classifier(experiment).train()
        classifier(torch.randint(0, 256, (256, 3, 8, 8)))  # gives the batch norms statistics
        save_weights(folder / f"classifier-{role}.safetensors", classifier, {})
    for system in SYSTEMS:
        for shard in range(2):
            generate_shard(experiment, system, shard, folder, folder / f"samples/{system}/shard-{shard}.npz")
    return folder


@pytest.fixture(scope="module")
def record(experiment, run_dir):
    return compare_systems(experiment, SYSTEMS, run_dir, run_dir / "records/fidelity-base.json")


def _drawn(run_dir, system):
    return np.concatenate([read_archive(run_dir / f"samples/{system}/shard-{shard}.npz").images for shard in range(2)])


def test_a_network_is_itself(experiment, run_dir, record):
    same = record.systems[0]
    assert read_record(run_dir / "records/fidelity-base.json", FidelityRecord) == record
    assert (same.system, same.identical, same.psnr_db, same.psnr) == ("var-d6", 1, None, math.inf)
    assert same.ssim == pytest.approx(1, abs=1e-6) and same.fid == pytest.approx(0, abs=1e-6)
    assert (same.feature_distance, same.same_class, same.tokens) == (0, 1, 1)
    assert same.tokens_by_scale == (1,) * 10
    assert "PSNR inf dB" in same.summary()
    assert (record.num_images, record.reference, record.ssim_kernel) == (100, "var-d6", 7)
    assert (record.protocol, record.judge, record.num_token_images) == ("digits", "classifier-judge", 100)
    assert {"base", "tokenizer", "supernet-d4", "classifier-judge"} <= set(record.provenance.weights_sha256)


def test_an_untrained_subnet_draws_the_full_networks_tokens_up_to_the_bridge_and_not_after_it(experiment, record):
    bridge = experiment.supernet.bridge
    free, trained = record.systems[1:]
    assert free.tokens_by_scale[:bridge] == (1,) * bridge
    assert all(share < 1 for share in free.tokens_by_scale[bridge:])
    assert all(share < 1 for share in trained.tokens_by_scale[1:])  # other weights from the first scale on
    sizes = [experiment.pyramid.tokens(k) for k in experiment.pyramid.scales]
    assert free.tokens == pytest.approx(np.average(free.tokens_by_scale, weights=sizes))
    assert 0 < free.tokens_sd < 0.1


def test_a_record_says_what_its_definitions_say(experiment, run_dir, record):
    full, subnet = _drawn(run_dir, "var-d6"), _drawn(run_dir, "free-d4")
    found = record.systems[1]
    error_N = ((full.astype(float) - subnet) ** 2).mean(axis=(1, 2, 3))
    assert found.psnr_db == pytest.approx(10 * math.log10(255 ** 2 / error_N.mean()))
    assert found.identical == (error_N == 0).mean() < 1
    order = np.argsort(error_N, kind="stable")
    assert found.examples == (order[0], order[50], order[-1])
    assert found.examples_psnr_db[2] == pytest.approx(10 * math.log10(255 ** 2 / error_N.max()))
    extractor = ClassifierExtractor(load_classifier(experiment, run_dir / "classifier-features.safetensors"))
    a, b = (extractor(part)["features"].astype(float) for part in (full, subnet))
    unrelated = 2 * a.var(axis=0).sum()
    assert found.feature_distance == pytest.approx(math.sqrt(((a - b) ** 2).sum(axis=1).mean() / unrelated), rel=1e-5)
    assert found.feature_distance > 0 and found.fid > 0 and found.fid_sd > 0
    judge = load_classifier(experiment, run_dir / "classifier-judge.safetensors")
    nothing, indices = np.zeros(100, int), np.arange(100)
    seen = [verdicts(judge, source_of(Archive(part, nothing, indices, {}))) for part in (full, subnet)]
    assert found.same_class == pytest.approx((seen[0] == seen[1]).mean())


def test_tokens_are_those_that_the_images_are_decoded_from(experiment, run_dir):
    sampler = resolve_system("free-d4", experiment).load(run_dir, "fp32")
    indices = range(experiment.sampling.batch_size)
    tokens = drawn_tokens(experiment, "free-d4", run_dir, indices)
    f_hat = sampler.tokenizer.quantize.f_hats(torch.from_numpy(tokens), 10)[-1]
    labels = [label_of(index, 10) for index in indices]
    assert np.array_equal(sampler.decode(f_hat).numpy(), images(sampler, labels, indices, experiment.seed))


def test_tokens_are_those_of_the_pictures_that_are_compared(experiment, run_dir, tmp_path):
    """A set may be a part: its tokens are those of its own indices, not of the first ones."""
    write_text(tmp_path / "config.json", experiment.model_dump_json())
    parts = [run_dir / f"samples/{system}/shard-1.npz" for system in ("free-d4", "var-d6")]
    result = _run(*parts, "--config", tmp_path / "config.json", "--run-dir", run_dir, "-o", tmp_path / "record.json")
    assert result.exit_code == 0, result.output
    record = read_record(tmp_path / "record.json", FidelityRecord)
    indices = read_archive(parts[0]).indices.tolist()
    subnet, full = (drawn_tokens(experiment, system, run_dir, indices) for system in ("free-d4", "var-d6"))
    assert indices[0] > 0 and record.num_token_images == len(indices) == 50
    assert record.systems[0].tokens == pytest.approx((subnet == full).mean())


def test_a_set_that_does_not_say_its_weights_is_compared_with_a_warning(experiment, run_dir, tmp_path):
    write_text(tmp_path / "config.json", experiment.model_dump_json())
    archive = read_archive(run_dir / "samples/free-d4/shard-0.npz")
    silent = {key: value for key, value in archive.origin.items() if key != "weights_sha256"}
    write_archive(tmp_path / "silent.npz", Archive(archive.images, archive.labels, archive.indices, silent))
    result = _run(tmp_path / "silent.npz", run_dir / "samples/var-d6/shard-0.npz", "--config", tmp_path / "config.json",
                  "--run-dir", run_dir, "-o", tmp_path / "record.json")
    assert result.exit_code == 0, result.output
    warnings = read_record(tmp_path / "record.json", FidelityRecord).warnings
    assert any("silent.npz" in text and "base, tokenizer" in text for text in warnings)


def test_what_is_odd_about_either_set_is_in_the_record(tmp_path):
    """JPEG is not what was drawn; pixels up to 15 are of another scale."""
    pixels = np.random.default_rng(0).integers(0, 16, (12, 16, 16, 3)).astype(np.uint8)
    for name, ending in (("a", "jpg"), ("b", "png")):
        (tmp_path / name).mkdir()
        for index, picture in enumerate(pixels):
            Image.fromarray(picture).save(tmp_path / name / f"{index}.{ending}")
    result = _run(tmp_path / "a", tmp_path / "b", "-o", tmp_path / "record.json")
    assert result.exit_code == 0, result.output
    warnings = read_record(tmp_path / "record.json", FidelityRecord).warnings
    assert any("JPEG" in text for text in warnings) and any("/b: no colour" in text for text in warnings)


def test_a_set_of_other_weights_than_the_runs_is_refused(experiment, run_dir, tmp_path):
    for path in run_dir.glob("*.safetensors"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "samples").symlink_to(run_dir / "samples")
    (tmp_path / "supernet-d4.safetensors").write_bytes((run_dir / "base.safetensors").read_bytes())
    with pytest.raises(PairError, match="supernet-d4"):
        compare_systems(experiment, ["variant-d4"], tmp_path, tmp_path / "record.json")
    (tmp_path / "supernet-d4.safetensors").unlink()
    with pytest.raises(PairError, match="supernet-d4"):
        compare_systems(experiment, ["variant-d4"], tmp_path, tmp_path / "record.json")
    assert not (tmp_path / "record.json").exists()


def test_sets_of_another_experiment_seed_or_sampling_are_refused(experiment, run_dir, tmp_path):
    for changes in ({"name": "other"}, {"seed": 1}, {"sampling": experiment.sampling.model_copy(update={"cfg": 3.0})}):
        with pytest.raises(ScoreError, match="var-d6|free-d4"):
            compare_systems(experiment.model_copy(update=changes), ["free-d4"], run_dir, tmp_path / "record.json")
    assert list(tmp_path.iterdir()) == []


def test_only_vars_systems_draw_the_full_networks_pictures(experiment, run_dir, tmp_path):
    with pytest.raises(ValueError, match="'dit-mini'"):
        compare_systems(experiment, ["dit-mini"], run_dir, tmp_path / "record.json")


# -- the command -------------------------------------------------------------------------------------------------------

def _run(*arguments):
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


@pytest.fixture
def sets(tmp_path):
    """Two systems of somebody else's, whose files say little."""
    pixels = np.random.default_rng(0).integers(0, 200, (30, 3, 8, 8))
    for name, shift in (("a", 0), ("b", 10)):
        archive = Archive((pixels + shift).astype(np.uint8), np.arange(30) % 10, np.arange(30), {"system": name})
        write_archive(tmp_path / f"{name}.npz", archive)
    return tmp_path


def test_any_two_sets_are_compared_by_their_pixels(sets):
    result = _run(sets / "a.npz", sets / "b.npz", "-o", sets / "record.json")
    assert result.exit_code == 0, result.output
    record = read_record(sets / "record.json", FidelityRecord)
    (found,) = record.systems
    assert (found.system, record.reference, record.network) == ("a", "b", None)
    assert found.psnr_db == pytest.approx(10 * math.log10(255 ** 2 / 100)) and found.psnr_db_sd == 0
    assert found.fid is found.feature_distance is found.same_class is found.lpips is found.tokens is None
    assert record.protocol is record.extractor is record.judge is None
    assert any("seed" in text for text in record.warnings) and "PSNR 28.13" in result.output
    named = _run(sets / "a.npz", "--reference", sets / "b.npz", "-o", sets / "named.json")
    assert named.exit_code == 0 and read_record(sets / "named.json", FidelityRecord).systems == record.systems


def test_a_set_and_itself_print_an_infinite_psnr(sets):
    result = _run(sets / "a.npz", sets / "a.npz", "-o", sets / "record.json")
    assert result.exit_code == 0 and "PSNR inf dB, SSIM 1.0000" in result.output


GROWTH = """
import re, sys
from pathlib import Path
from varient.evaluation.fidelity import compare_files
from varient.evaluation.inputs import open_samples
def anonymous_kib():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
folder, before = Path(sys.argv[1]), None
for count in ("few", "many"):
    a, b = (open_samples([folder / f"{side}-{count}.npz"]) for side in "ab")
    compare_files(a, b, folder / "record.json")
    before, growth = anonymous_kib(), anonymous_kib() - (before or 0)
print(growth)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_pairs(tmp_path):
    draw = np.random.default_rng(0)
    for count, pairs in (("few", 320), ("many", 960)):
        index = np.arange(pairs)
        for side in "ab":
            drawn = draw.integers(0, 256, (pairs, 3, 256, 256), np.uint8)
            write_archive(tmp_path / f"{side}-{count}.npz", Archive(drawn, index % 1000, index, {}))
    growth_kib = int(subprocess.run([sys.executable, "-c", GROWTH, tmp_path], capture_output=True, text=True,
                                    check=True).stdout.split()[-1])
    assert growth_kib < 200 * 2 ** 10  # a batch that is kept with all its temporary maps is 25 MiB, and there are 20


def test_compare_with_a_config_looks_at_features_and_tokens(experiment, run_dir, record, tmp_path):
    write_text(tmp_path / "config.json", experiment.model_dump_json())
    result = _run(run_dir / "samples/free-d4", run_dir / "samples/var-d6", "--config", tmp_path / "config.json",
                  "--run-dir", run_dir, "-o", tmp_path / "record.json")
    assert result.exit_code == 0, result.output
    (found,) = read_record(tmp_path / "record.json", FidelityRecord).systems
    assert found == record.systems[1]


def test_images_that_do_not_say_their_system_have_no_tokens_and_the_record_says_so(experiment, run_dir, tmp_path):
    write_text(tmp_path / "config.json", experiment.model_dump_json())
    archive = read_archive(run_dir / "samples/var-d6/shard-0.npz")
    for name in ("a", "b"):
        write_archive(tmp_path / f"{name}.npz", Archive(archive.images, archive.labels, archive.indices, {}))
    result = _run(tmp_path / "a.npz", tmp_path / "b.npz", "--config", tmp_path / "config.json", "--run-dir", run_dir,
                  "-o", tmp_path / "record.json")
    assert result.exit_code == 0, result.output
    record = read_record(tmp_path / "record.json", FidelityRecord)
    assert record.systems[0].tokens is None and record.num_token_images == 0
    assert any("b.npz: no tokens" in text for text in record.warnings)
    assert record.systems[0].fid is None and any("no FID*" in text for text in record.warnings)  # of 50 images
    assert record.systems[0].same_class == 1


@pytest.mark.parametrize(("arguments", "named"), [
    (["a.npz"], "two sets"), (["a.npz", "b.npz", "a.npz"], "two sets"),
    (["a.npz", "none.npz"], "none.npz"), (["a.npz", "b.npz", "--protocol", "adm"], "--weights"),
    (["a.npz", "b.npz", "--protocol", "admm"], "admm"), (["a.npz", "b.npz", "--weights", "b.npz"], "--protocol"),
    (["a.npz", "b.npz", "--lpips-sha256", "0" * 64], "--lpips"), (["a.npz", "b.npz", "--lpips", "b.npz"], "b.npz"),
    (["a.npz", "b.npz", "--config", "smoke", "--protocol", "adm"], "--config")])
def test_what_cannot_be_compared_is_told_in_one_line(arguments, named, sets, monkeypatch):
    monkeypatch.chdir(sets)
    before = sorted(sets.rglob("*"))
    result = _run(*arguments, "-o", "record.json")
    assert result.exit_code == 1 and len(result.output.splitlines()) == 1, result.output
    assert named in result.output and sorted(sets.rglob("*")) == before


def test_the_record_takes_the_place_of_no_image(sets):
    before = (sets / "b.npz").read_bytes()
    result = _run(sets / "a.npz", sets / "b.npz", "-o", sets / "b.npz")
    assert result.exit_code == 1 and (sets / "b.npz").read_bytes() == before
