"""The DAG of the smoke configuration, run end to end, and what people do with its results."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import ROOT
from fashion_fixtures import write_files
from project_copy import SMOKE, copy_to, snakemake

from varient.profile_records import ProfileRecord
from varient.records import HeldOutRecord, ScoreRecord, read_record
from varient.report.table2 import DISTURBED

pytestmark = [pytest.mark.slow, pytest.mark.all_cores]


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    return copy_to(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def finished(copy) -> Path:
    """A copy of the project with all results of the smoke configuration."""
    first = snakemake(copy, "all", "results/smoke/ablations.csv", "--cores", "all", *SMOKE)
    assert first.returncode == 0, first.stdout + first.stderr
    return copy


def test_the_tables_of_a_run_are_filled(finished):
    table = pd.read_csv(finished / "results/smoke/table2.csv", dtype=str, keep_default_na=False).set_index("method")
    assert float(table.loc["VAR-d30", "fid"]) > 0
    assert float(table.loc["VARiant-d16", "latency_s"].removesuffix(DISTURBED)) > 0
    assert table.loc["VARiant-d8", "fid"] == ""
    assert (table.loc["VAR-d30", "psnr_db"], table.loc["VAR-d30", "equal_tokens"]) == ("∞", "1.000")
    assert float(table.loc["VARiant-d16", "psnr_db"]) > 0 and 0 < float(table.loc["VARiant-d16", "equal_tokens"]) < 1
    for row in ("DiT-XL/2", "LlamaGen-XXL", "VAR-CoDe", "CoDe, N = 6, training-free"):
        assert float(table.loc[row, "fid"]) > 0
        assert float(table.loc[row, "latency_s"].removesuffix(DISTURBED)) > 0
    logs = {path.name for path in (finished / "runs/smoke/logs").iterdir()}
    assert {"train_base.log", "train_supernet-d4.log", "score-var-d6.log", "table2.log"} <= logs
    ablations = pd.read_csv(finished / "results/smoke/ablations.csv")
    assert set(ablations["comparison"]) == {"zones", "ratios", "stages", "refinement", "evolution", "bridge", "grid",
                                            "exposures", "rates", "bases", "plain", "extensions"}
    assert ablations["fid"].notna().all() and (ablations["fid"] > 0).all()
    assert (ablations["loss"] > 0).all()
    table = pd.read_csv(finished / "results/smoke/table4.csv", dtype=str, keep_default_na=False)
    losses = ablations.drop_duplicates("system").set_index("system")["loss"]
    row = table[table["training"] == "three phases"].set_index("subnet_depth").loc["2"]
    assert row["joint_full_loss"] == f"{losses['variant-d2-full']:.3f}"
    assert row["joint_subnet_loss"] == f"{losses['variant-d2']:.3f}"


def test_rivals_are_sampled_scored_and_profiled_and_train_nothing(finished):
    settings = yaml.safe_load((ROOT / "workflow/config/smoke.yaml").read_text())
    settings["rivals"] = ["var-d6-w1", "variant-d4-w2-kv8", "free-d4-prefix", "var-d6-gmap-g6", "var-d6-heads30"]
    (finished / "smoke_rivals.yaml").write_text(yaml.safe_dump(settings))
    result = snakemake(finished, "--cores", "all", "--configfile", "smoke_rivals.yaml", "--",
                       "results/smoke/rivals.csv")
    said = result.stdout + result.stderr
    assert result.returncode == 0, said
    trained = re.findall(r"^(?:local)?rule (train_\w+):$.*?^    output: (\S+)$", said, re.MULTILINE | re.DOTALL)
    assert "generate_shard" in said and trained == [("train_network", "runs/smoke/head-kinds.safetensors")]
    table = pd.read_csv(finished / "results/smoke/rivals.csv", dtype=str, keep_default_na=False).set_index("system")
    for system in settings["rivals"]:
        assert float(table.loc[system, "fid"]) > 0 and 0 < float(table.loc[system, "equal_tokens"]) <= 1
        assert float(table.loc[system, "here_latency_s"].removesuffix(DISTURBED)) > 0
    sizes = {name: float(table.loc[name, "here_kv_mib"]) for name in ("var-d6", "variant-d4", *settings["rivals"])}
    assert sizes["var-d6-w1"] < sizes["var-d6"] and sizes["variant-d4-w2-kv8"] < sizes["variant-d4"] / 2
    assert sizes["var-d6-gmap-g6"] < sizes["var-d6"] and sizes["var-d6-heads30"] < sizes["var-d6"]
    assert sizes["free-d4-prefix"] == sizes["variant-d4"]
    profile = read_record(finished / "runs/smoke/records/profile-var-d6-w1.json", ProfileRecord)
    assert profile.cache_policy == "lean"


def test_images_held_out_and_a_test_set_are_what_fashion_is_compared_with(copy):
    """A run of the smoke configuration on small files in the format of Fashion-MNIST."""
    settings = yaml.safe_load((ROOT / "workflow/config/smoke.yaml").read_text())
    settings |= {"name": "smoke_fashion", "patch_nums": [1, 1, 2, 2, 3, 3, 4, 5, 6, 7], "systems": {}, "rows": []}
    settings["data"] = {"source": "fashion-mnist", "root": "data/smoke_fashion", "image_size": 28, "num_classes": 10,
                        "holdout": 150, "checksums": write_files(copy / "data/smoke_fashion", train=300, test=120)}
    settings["tokenizer"]["model"]["ch_mult"] = [1, 1, 1]
    settings["evaluation"] |= {"protocol": "fashion-mnist", "halves": 1}
    settings["held_out_images"] = 20
    (copy / "smoke_fashion.yaml").write_text(yaml.safe_dump(settings))
    folder = "runs/smoke_fashion/records"
    result = snakemake(copy, "--cores", "all", "--configfile", "smoke_fashion.yaml", "--",
                        "results/smoke_fashion/table2.csv", f"{folder}/heldout-supernet-d2.json")
    assert result.returncode == 0, result.stdout + result.stderr
    table = pd.read_csv(copy / "results/smoke_fashion/table2.csv", dtype=str, keep_default_na=False).set_index("method")
    assert {float(table.loc[f"VARiant-d{d}", "fid"]) > 0 for d in (16, 4)} == {True}
    assert read_record(copy / folder / "heldout-supernet-d2.json", HeldOutRecord).num_images == 20
    drawn, floor = (read_record(copy / folder / f"score-{name}.json", ScoreRecord) for name in ("var-d6", "real-test"))
    assert (drawn.num_images, drawn.num_reference, floor.num_images, floor.num_reference) == (100, 150, 120, 150)
    assert drawn.protocol == "fashion-mnist" and drawn.reference_sha256 == floor.reference_sha256
    assert drawn.fid_cross > floor.fid_cross > 0
    assert drawn.fid > floor.fid > 0 and drawn.fid_test > floor.fid and floor.fid_test is None


def test_a_launcher_starts_the_trainings_of_the_dag(tmp_path, copy):
    """Two processes under gloo; the files are those of one process."""
    folder = tmp_path / "project"
    made = {"runs", "results", "figures", ".snakemake", "data"}  # a package of ours is called figures too
    shutil.copytree(copy, folder, ignore=lambda place, names: made & set(names) if Path(place) == copy else ())
    result = snakemake(folder, "--cores", "1", *SMOKE, "--", "runs/smoke/supernet-d4.safetensors",
                        VARIENT_LAUNCH="torchrun --standalone --nproc-per-node 2", VARIENT_DEVICE="cpu")
    assert result.returncode == 0, result.stdout + result.stderr
    for name in ("base", "supernet-d4"):
        log = (folder / f"runs/smoke/logs/train_{name}.log").read_text()
        assert log.count(f"wrote runs/smoke/{name}.safetensors") == 2  # each process says so
        assert (folder / f"runs/smoke/training-{name}/losses.json").exists()


def test_the_report_opens_in_a_browser(finished):
    """A page that a browser could not show, pictures that did not come along, or a first page cut off would fail."""
    from playwright.sync_api import sync_playwright

    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    report = finished / "results/smoke/report.html"
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1300, "height": 500})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(report.as_uri())
        title = page.get_by_role("heading", name="Does VARiant hold?")
        title.wait_for()
        assert title.bounding_box()["y"] >= 0  # Snakemake alone would centre the page and cut off its head
        page.get_by_text("3. Figures").first.click()
        for figure in ("fig1", "fig2", "fig3", "fig4", "fig5", "fig6", "fig7", "kv-live", "quality-cost",
                       "latency-by-scale", "rivals", "fidelity"):
            page.get_by_text(figure, exact=True).wait_for()
        page.get_by_text("fig1", exact=True).locator("xpath=ancestor::tr").locator("a").first.click()
        picture = page.locator("img").last  # the first is Snakemake's own
        picture.wait_for()
        assert picture.evaluate("image => image.naturalWidth") > 1000
        chromium.close()
    assert not errors


def test_varient_sample_draws_the_depths_of_a_run(finished, tmp_path):
    from PIL import Image

    output = tmp_path / "grid.png"
    result = subprocess.run(
        [sys.executable, "-m", "varient", "sample", "--config", "workflow/config/smoke.yaml", "--class", "3",
         "--depth", "6", "--depth", "4", "--depth", "2", "--count", "5", "--output", str(output)],
        cwd=finished, env=os.environ | {"PYTHONPATH": str(finished)}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert min(Image.open(output).size) > 100


@pytest.mark.parametrize("result", ["results/smoke/table1.csv", "results/smoke/claims.csv", "figures/smoke/fig1.png"])
def test_a_result_that_was_edited_or_cut_off_gets_into_no_report(finished, result):
    report = "results/smoke/report.html"
    whole = (finished / result).read_bytes()
    (finished / result).write_bytes(whole[:len(whole) // 2])
    refused = snakemake(finished, "--cores", "all", "--show-failed-logs", *SMOKE, "--", report)
    said = refused.stdout + refused.stderr
    assert refused.returncode != 0 and f"{result}: FAILED" in said and "delete it, and it is made again" in said
    (finished / result).unlink()
    again = snakemake(finished, "--cores", "all", *SMOKE)
    assert again.returncode == 0, again.stdout + again.stderr
    assert (finished / result).read_bytes() == whole or result.endswith(".png")


def test_only_what_an_edit_touches_runs_again(finished):
    """The last test here, as it edits the copy."""
    begin = time.monotonic()
    second = snakemake(finished, "--cores", "all", *SMOKE)
    assert "Nothing to be done" in second.stdout + second.stderr
    print(f"second run: {time.monotonic() - begin:.1f} s")

    def jobs(*edits: str, old: str = "", new: str = "\n# edited\n") -> set[str]:
        """Rules that would run after one more line in each of the files, or with a part of it replaced."""
        for edit in edits:
            text = (finished / edit).read_text()
            assert old in text
            (finished / edit).write_text(text.replace(old, new) if old else text + new)
        dry = snakemake(finished, "-n", *SMOKE).stdout
        stats = dry.partition("Job stats:")[2].partition("total")[0]
        return {line.split()[0] for line in stats.splitlines() if line and line.split()[-1].isdigit()}

    config = "workflow/config/smoke.yaml"
    rendered = {"all", "claims", "figure", "opening", "report_page", "table"}  # any setting may show there
    assert jobs(config, old="repeats: 3", new="repeats: 4") == {"profile", *rendered}
    assert jobs(config, old="repeats: 4", new="repeats: 3") == set()
    assert jobs(config, old="batch_size: 40", new="batch_size: 30") == rendered  # the same images
    assert jobs(config, old="batch_size: 30", new="batch_size: 30, decoded_at_once: 7") == {"profile", *rendered}
    resharded = jobs(config, old="shards: 2", new="shards: 4")  # in other files
    assert {"generate_shard", "score"} <= resharded and not any(rule.startswith("train") for rule in resharded)
    jobs(config, old="shards: 4", new="shards: 2")
    assert jobs(config, old="batch_size: 30, decoded_at_once: 7", new="batch_size: 40") == set()
    described = jobs(config, old="auto: {automatic: true}", new="auto: {automatic: true}\n    p30: {ratio: 0.3}")
    assert described == {"ablations", *rendered}  # a recipe that no arm has yet
    jobs(config, old="\n    p30: {ratio: 0.3}", new="")
    retrained = jobs(config, old="2: [1, 2, 2]", new="2: [1, 2, 3]")
    assert "train_supernet" in retrained and not retrained & {"train_base", "train_tokenizer", "train_network"}
    jobs(config, old="2: [1, 2, 3]", new="2: [1, 2, 2]")
    assert jobs("varient/report/templates/summary.html") == {"all", "opening", "report_page"}
    assert jobs("varient/report/tables.py") == {"all", "table", "opening", "report_page"}
    assert "generate_shard" in jobs("varient/sampling.py")
    assert not jobs("varient/models/kv_cache.py") & {"train_base", "train_supernet", "train_tokenizer"}
    assert "train_supernet" in jobs("varient/training/supernet.py")
