"""Commands for users: costs, plans, verdicts, scores, pictures, profiles, drift."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from varient.cli.app import ASK, app
from varient.cli.guard import command, load_experiment, run_weights
from varient.cli.options import (
    DIGITS,
    AsJson,
    Benchmarks,
    Config,
    FoundIn,
    HeldOut,
    Output,
    Profiles,
    Reconstruction,
    RunDir,
    Scores,
    config_file,
    run_folder,
    tell_fidelity,
    wrote,
)
from varient.config import ExperimentConfig
from varient.shipped import ACCEPTED_SUPERNET, in_project, shipped
from varient.targets import claims_files, sweep_folder, sweep_records
from varient.terminal import print_answer


@command(app, panel=ASK)
def check(config: Config) -> None:
    """Validate a config and print it with all defaults filled in."""
    print(load_experiment(config).model_dump_json(indent=2))


@command(app, panel=ASK)
def schema() -> None:
    """Print the JSON schema of configs, for editors; it does not cover the sections of `systems`."""
    print(json.dumps(ExperimentConfig.model_json_schema(), indent=1, ensure_ascii=False))


@command(app, panel=ASK)
def doctor(config: Config, run_dir: RunDir = None, as_json: AsJson = False) -> None:
    """Check whether an experiment can run here, and estimate the cost of each target; exit code 1 if it cannot."""
    from varient.doctor import examine
    from varient.doctor.page import diagnosis_answer

    experiment = load_experiment(config)
    diagnosis = examine(experiment, run_folder(experiment, run_dir))
    print_answer(diagnosis_answer(diagnosis), as_json=as_json)
    if not diagnosis.ready:
        sys.exit(1)


@command(app, panel=ASK)
def cost(system: Annotated[str | None, typer.Option(help="e.g. variant-d16-n7, code-n6, var-d30")] = None,
         batch: Annotated[int, typer.Option(help="images")] = 64,
         cache: Annotated[str, typer.Option(help="lean or reference; windows, packed entries and other guidance "
                                                 "have lean alone, DiT has none, LlamaGen's is static")] = "lean",
         precision: Annotated[str, typer.Option(help="fp16-autocast, bf16-autocast, fp32, fp16 or bf16")]
         = "fp16-autocast",
         device: Annotated[str, typer.Option(help="l20, a100, h100, h200 or rtx4090")] = "l20",
         as_json: AsJson = False,
         compare: Annotated[bool, typer.Option("--compare", help="instead of --system: all rows of the paper's "
                                                                 "Table 2, in its setting")] = False) -> None:
    """Parameters, KV cache, FLOPs and predicted latency of a system at its authors' size; nothing is run."""
    from varient.cost.printer import comparison_answer, cost_answer
    from varient.cost.roofline import compare_baselines, compare_with_paper, system_cost

    if compare == (system is not None):
        raise ValueError("cost needs either --system or --compare")
    answer = comparison_answer(compare_with_paper(), compare_baselines()) if system is None else cost_answer(
        system_cost(system, batch_size=batch, policy=cache, precision=precision, device_key=device))
    print_answer(answer, as_json=as_json)


@command(app, panel=ASK)
def plan(memory: Annotated[str, typer.Option(help="memory budget, e.g. 12GiB")],
         batch: Annotated[int, typer.Option(help="images")] = 64,
         latency: Annotated[str | None, typer.Option(help="latency budget for a batch, e.g. 1.5s")] = None,
         device: Annotated[str, typer.Option(help="l20, a100, h100, h200 or rtx4090")] = "l20",
         records: Annotated[Path | None, typer.Option(help="score records; default: the paper's Table 8")] = None,
         runners_up: Annotated[int, typer.Option(help="number of alternatives to show after the best")] = 4,
         as_json: AsJson = False) -> None:
    """Find the system, precision and cache with the best quality within a budget, at the paper's size.

    Systems are those whose FID is known: the paper's depths and bridges, or those of the score records."""
    from varient.cost.planner import (
        choices,
        fitting,
        measured_quality,
        paper_quality,
        parse_seconds,
        unknown_methods,
    )
    from varient.cost.printer import plan_answer
    from varient.cost.sizes import MIB, parse_size

    memory_mib, latency_s = parse_size(memory) / MIB, parse_seconds(latency) if latency else None
    quality = measured_quality(records) if records else paper_quality()
    known = choices(quality, batch_size=batch, device=device)
    chosen = fitting(known, memory_mib=memory_mib, latency_s=latency_s)[:1 + runners_up]
    print_answer(plan_answer(chosen, batch_size=batch, device=device, memory_mib=memory_mib, latency_s=latency_s,
                             unknown=unknown_methods(quality)), as_json=as_json)


@command(app, panel=ASK, writes=lambda output, **_: claims_files(output))
def claims(output: Annotated[Path, typer.Option("--output", "-o", help="stem of the .csv and .md files")],
           config: Config = DIGITS,
           scores: Scores = None, profiles: Profiles = None, reconstruction: Reconstruction = None,
           held_out: HeldOut = None, benchmarks: Benchmarks = None, found_in: FoundIn = None,
           run_dir: Annotated[Path | None, typer.Option("--run-dir", help="folder with the training curves")]
           = None) -> None:
    """Give a verdict on each claim and table cell of the paper; without records, only by arithmetic.

    Prints how many findings have each verdict, and in how many places of the paper they stand.
    """
    from varient.claims import judge, summary, write_judgements
    from varient.results import Results

    results = Results.read(scores or [], profiles or [], reconstruction, found_in, benchmarks or [], held_out or [])
    experiment = load_experiment(config)
    judgements = judge(experiment, results, run_dir or found_in)
    print(summary(judgements))
    for path in write_judgements(judgements, experiment, results, output):
        wrote(path)


@command(app, panel=ASK)
def orders(verdicts: Annotated[list[Path], typer.Argument(help="claims.csv of each experiment")],
           output: Output) -> None:
    """Set the paper's rankings in several experiments side by side, as a Markdown page."""
    from varient.claims.side_by_side import read_experiments, write_orders

    write_orders(read_experiments(verdicts), output)
    wrote(output)


def _exported(output: Path, form: str, **_: Any) -> list[Path]:
    from varient.evaluation.inputs import manifest_path

    return [output, manifest_path(output)] if form == "adm" else []


@command(app, panel=ASK, device="auto")
def score(samples: Annotated[list[Path], typer.Argument(help="all shards of a system, PNGs, a folder, or an ADM .npz")],
          reference: Annotated[list[Path], typer.Option(help="real images, or ADM's reference batch")], output: Output,
          config: Annotated[Path | None, typer.Option("--config", parser=config_file, metavar="FILE",
                                                      help="config of the samples' experiment")] = None,
          run_dir: RunDir = None,
          test: Annotated[list[Path] | None, typer.Option(help="real images of a test set, for a second FID; only "
                                                               "with --config")] = None,
          protocol: Annotated[str | None, typer.Option(help="adm, torch-fidelity, clean-fid, fd-dinov2 or cmmd; "
                                                            "without --config")] = None,
          weights: Annotated[Path | None, typer.Option(help="weights of the protocol's network; only without "
                                                            "--config")] = None,
          sha256: Annotated[str | None, typer.Option(help="SHA-256 of --weights, unless published; clean-fid's are a "
                                                          "program that will run: trust it before you give this")]
          = None,
          fid_infinity: Annotated[bool, typer.Option("--fid-infinity", help="extrapolate FID too")] = False,
          device: Annotated[str | None, typer.Option(help="auto, cpu or cuda; default: VARIENT_DEVICE")]
          = None) -> None:
    """Score samples of an experiment or any others: FID, sFID, KID, IS, precision, recall or CMMD, as a record."""
    from varient.evaluation.scoring import score_experiment, score_files
    from varient.systems.pipeline import default_device

    device = str(default_device())
    if (config is None) == (protocol is None):
        raise ValueError("score needs either --config (samples of an experiment) or --protocol (any samples)")
    if test and config is None:
        raise ValueError("--test needs --config")
    if config and (weights or sha256 or fid_infinity):
        raise ValueError("--weights, --sha256 and --fid-infinity need --protocol; with --config they are set in its "
                         "section 'evaluation'")
    if config:
        experiment = load_experiment(config)
        record = score_experiment(experiment, samples, reference, run_folder(experiment, run_dir), output, device,
                                  test or ())
    else:
        assert protocol is not None  # --config or --protocol is given
        record = score_files(protocol, samples, reference, output, weights=weights, sha256=sha256, device=device,
                             extrapolate=fid_infinity)
    for warning in record.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{record.system} ({record.protocol}): {record.summary()}")
    wrote(output)


@command(app, panel=ASK, device="auto")
def compare(samples: Annotated[list[Path], typer.Argument(help="A and B: two sets, each a folder or one file, as in "
                                                               "`score`; or the files of A alone, with --reference")],
            output: Output,
            reference: Annotated[list[Path] | None, typer.Option(help="the files of B; repeat for several")] = None,
            config: Annotated[Path | None, typer.Option("--config", parser=config_file, metavar="FILE",
                                                        help="config of the samples' experiment, for features, classes "
                                                             "and tokens")] = None,
            run_dir: RunDir = None,
            protocol: Annotated[str | None, typer.Option(help="adm, torch-fidelity, clean-fid, fd-dinov2 or cmmd, for "
                                                              "features; without --config")] = None,
            weights: Annotated[Path | None, typer.Option(help="weights of its network")] = None,
            sha256: Annotated[str | None, typer.Option(help="SHA-256 of --weights, unless published")] = None,
            lpips: Annotated[Path | None, typer.Option(help="torchvision's AlexNet, for LPIPS")] = None,
            lpips_sha256: Annotated[str | None, typer.Option(help="SHA-256 of --lpips, unless published")] = None,
            device: Annotated[str | None, typer.Option(help="auto, cpu or cuda; default: VARIENT_DEVICE")]
            = None) -> None:
    """Compare pictures of the same seeds pair by pair: PSNR, SSIM, FID*, equal tokens, as a record."""
    from varient.evaluation.fidelity import compare_experiment, compare_files
    from varient.evaluation.inputs import open_samples
    from varient.evaluation.lpips import Lpips
    from varient.systems.pipeline import default_device

    where = default_device().type
    if config and (protocol or weights or sha256):
        raise ValueError("compare takes either --config, whose section 'evaluation' names the features, or --protocol "
                         "with --weights and --sha256")
    if (weights or sha256) and not protocol:
        raise ValueError("--weights and --sha256 need --protocol")
    if lpips_sha256 and not lpips:
        raise ValueError("--lpips-sha256 needs --lpips")
    if not reference and len(samples) != 2:
        raise ValueError(f"compare takes two sets, got {len(samples)}; name the files of the second by --reference")
    first, second = (samples, reference) if reference else ([samples[0]], [samples[1]])
    sets = open_samples(first), open_samples(second)
    perceptual = Lpips(lpips, sha256=lpips_sha256, device=where) if lpips else None
    if config:
        experiment = load_experiment(config)
        record = compare_experiment(experiment, sets[:1], sets[1], run_folder(experiment, run_dir), output, where,
                                    perceptual)
    else:
        record = compare_files(*sets, output, protocol_name=protocol, weights=weights, sha256=sha256, device=where,
                               lpips=perceptual)
    tell_fidelity(record)
    wrote(output)


@command(app, panel=ASK, writes=_exported, fills=lambda output, form, **_: [output] if form == "png" else [])
def export(shards: Annotated[list[Path], typer.Argument(help="all shards of a system")], output: Output,
           form: Annotated[str, typer.Option("--format", help="adm (.npz) or png (a folder)")] = "adm") -> None:
    """Export samples for other tools: ADM's .npz in a fixed permutation, or PNGs, with a manifest."""
    from varient.export import export_adm, export_png

    exports: dict[str, Callable[[list[Path], Path], dict]] = {"adm": export_adm, "png": export_png}
    if form not in exports:
        raise ValueError(f"format {form!r} is unknown; known: {', '.join(exports)}")
    exports[form](shards, output)
    wrote(output)


def _baseline_files(folder: Path) -> list[Path]:
    """What a baseline consists of."""
    return [folder / "config.json", folder / "drift.json", folder / "speed.json", *folder.glob("*.safetensors")]


def _sample_reads(config: Path | None, run_dir: Path | None, **_: Any) -> list[Path]:
    if config is None:
        return _baseline_files(run_dir or shipped("baseline"))
    return run_weights(config=config, run_dir=run_dir)


@command(app, panel=ASK, device="auto", reads=_sample_reads)
def sample(output: Output,
           label: Annotated[list[int], typer.Option("--class", help="class to generate; repeat for several")],
           depth: Annotated[list[int], typer.Option(help="subnet depth d; repeat for several rows")],
           config: Annotated[Path | None, typer.Option("--config", parser=config_file, metavar="FILE",
                                                       help="config of the networks; default: the shipped baseline, a "
                                                            "supernet of d = 4 on digits")] = None,
           bridge: Annotated[int | None, typer.Option(help="N; default the config's")] = None,
           checkpoint: Annotated[Path | None, typer.Option(help="weights of all rows; default: each depth's")] = None,
           count: Annotated[int, typer.Option(help="images a class")] = 8,
           seed: Annotated[int | None, typer.Option(help="default the config's")] = None,
           run_dir: RunDir = None) -> None:
    """Generate a grid of pictures: the same seeds in each column, one row for each depth."""
    from varient.report.samples import sample_grid

    if config is None:
        run_dir = run_dir or shipped("baseline")
        config, checkpoint = run_dir / "config.json", checkpoint or run_dir / f"{ACCEPTED_SUPERNET}.safetensors"
    experiment = load_experiment(config)
    sample_grid(experiment, run_folder(experiment, run_dir), output, labels=label, depths=depth, bridge=bridge,
                checkpoint=checkpoint, count=count, seed=experiment.seed if seed is None else seed)
    wrote(output)


Precision = Annotated[str | None, typer.Option("--precision", help="fp32, fp16 or bf16; default: the config's")]
CachePolicy = Annotated[str | None, typer.Option("--cache", help="lean or reference; default: the config's")]
RandomWeights = Annotated[bool, typer.Option("--random-weights", help="random weights from a fixed seed")]
MemoryCap = Annotated[str | None, typer.Option("--memory-cap", help="emulate a smaller GPU, e.g. 48GiB")]


def _bytes(memory_cap: str | None) -> int | None:
    from varient.cost.sizes import parse_size

    return None if memory_cap is None else parse_size(memory_cap)


@command(app, panel=ASK)
def profile(config: Config, system: Annotated[str, typer.Option(help="e.g. variant-d16-n7")], output: Output,
            run_dir: RunDir = None,
            batch: Annotated[int | None, typer.Option(help="number of images; default: the config's")] = None,
            precision: Precision = None, cache: CachePolicy = None, random_weights: RandomWeights = False,
            memory_cap: MemoryCap = None) -> None:
    """Measure latency and memory of a system, as a record; running out of memory is recorded too."""
    from varient.profiling.profiler import Configuration, profile_in_fresh_process

    experiment = load_experiment(config)
    wanted = Configuration.of(experiment, system, batch_size=batch, precision=precision, cache_policy=cache,
                              random_weights=random_weights, memory_cap_bytes=_bytes(memory_cap))
    record = profile_in_fresh_process(config, experiment, wanted, run_folder(experiment, run_dir), output)
    if record.latency and record.decoder_latency:
        print(f"{system}: {record.latency.median_s:.4f} s and {record.decoder_latency.median_s:.4f} s in the decoder "
              f"(medians of {len(record.latency.repeats_s)}), {record.images_per_s:.4g} images/s without it, "
              f"memory {record.memory.peak_mib:.1f} MiB, of it KV {record.memory.kv_cache_mib:.3f} MiB")
        if record.energy_j_per_image is not None:
            print(f"energy: {record.energy_j_per_image:.4g} J an image above the {record.idle_w:.1f} W of the idle GPU")
        if record.latency_by_scale_s:
            print(f"seconds by scale: {' '.join(f'{seconds:.4f}' for seconds in record.latency_by_scale_s)}")
    else:
        print(f"{system}: out of memory ({record.reason})")
    wrote(output)


def _sweep_folder(config: Path, run_dir: Path | None, system: str, output: Path | None, **_: Any) -> Path:
    return output or sweep_folder(run_folder(load_experiment(config), run_dir), system)


@command(app, panel=ASK, writes=lambda most, **rest: sweep_records(_sweep_folder(**rest), most),
         fills=lambda **arguments: [_sweep_folder(**arguments)])
def sweep(config: Config, system: Annotated[str, typer.Option(help="e.g. variant-d16-n7")],
          output: Annotated[Path | None, typer.Option("--output", "-o", help="folder of the records; default: "
                                                                             "sweeps/<system> in the run folder")]
          = None,
          run_dir: RunDir = None,
          most: Annotated[int, typer.Option(help="largest batch")] = 1024,
          precision: Precision = None, cache: CachePolicy = None, random_weights: RandomWeights = False,
          memory_cap: MemoryCap = None, as_json: AsJson = False) -> None:
    """Profile a system at batches of 1, 2, 4, ... until one does not fit into memory: the highest throughput.

    Each batch leaves a record; an interrupted sweep goes on with the same command.
    """
    from varient.profiling.profiler import Configuration
    from varient.profiling.sweep import sweep as run_sweep
    from varient.report.sweeps import batch_line, sweep_answer

    experiment = load_experiment(config)
    wanted = Configuration.of(experiment, system, batch_size=1, precision=precision, cache_policy=cache,
                              random_weights=random_weights, memory_cap_bytes=_bytes(memory_cap))
    records = run_sweep(config, experiment, wanted, run_folder(experiment, run_dir),
                        _sweep_folder(config, run_dir, system, output), most=most,
                        told=lambda record: print(batch_line(record), file=sys.stderr, flush=True))
    print_answer(sweep_answer(records), as_json=as_json)


def _drift_writes(baseline: Path | None, output: Path | None, update: Path | None, accept: bool,
                  **_: Any) -> list[Path | None]:
    folder = baseline or shipped("baseline")
    if not update:
        return [output, folder / "speed.json" if accept else None]
    return [folder / name for name in ("config.json", "drift.json", *(path.name for path in
                                                                      update.glob("*.safetensors")))]


def _drift_reads(baseline: Path | None, update: Path | None, accept: bool, **_: Any) -> list[Path]:
    read = [] if update else _baseline_files(baseline or shipped("baseline"))
    return [path for path in read if not (accept and path.name == "speed.json")]


_UNDECIDED = 3
"""Exit code of a check that other work disturbed."""


@command(app, panel=ASK, writes=_drift_writes, reads=_drift_reads)
def drift(baseline: Annotated[Path | None, typer.Option(help="folder of the baseline; default: the shipped one")]
          = None,
          output: Annotated[Path | None, typer.Option("--output", "-o", help="file for the comparison table")] = None,
          update: Annotated[Path | None, typer.Option(help="accept the networks of this run folder as the new "
                                                           "baseline")] = None,
          speed: Annotated[bool, typer.Option("--speed", help="compare ratios of times instead of images; exit code 3 "
                                                              "if other work disturbed them")] = False,
          accept: Annotated[bool, typer.Option("--accept", help="with --speed: accept the ratios of now")] = False,
          config: Config = DIGITS) -> None:
    """Compare what the code generates with the accepted baseline; exit code 1 if it differs."""
    from varient.evaluation.drift import check_drift, report, update_baseline
    from varient.files import write_text

    if accept and not speed:
        raise ValueError("--accept needs --speed; images are accepted with --update")
    if speed and update:
        raise ValueError("--speed takes no --update: it accepts ratios with --accept")
    if accept and output:
        raise ValueError("--accept compares nothing, so it takes no --output")
    if (update or accept) and baseline is None and not in_project():
        raise ValueError(f"{'--update' if update else '--accept'} needs --baseline: the baseline inside the package is "
                         "read-only")
    baseline = baseline or shipped("baseline")
    if speed:
        _accept_speed(baseline) if accept else _compare_speed(baseline, output)
        return
    if update:
        update_baseline(load_experiment(config), update, baseline)
        wrote(baseline)
        return
    findings = check_drift(baseline)
    print(report(findings), end="")
    if output:
        write_text(output, report(findings))
        wrote(output)
    if moved := sum(finding.moved for finding in findings):
        raise ValueError(f"{moved} of {len(findings)} quantities are out of tolerance in {baseline}; if the change is "
                         "intended, accept it with `varient drift --update runs/digits`")


def _compare_speed(baseline: Path, output: Path | None) -> None:
    from varient.files import write_text
    from varient.speed import FAIL, check_speed, speed_report

    findings = check_speed(baseline)
    print(speed_report(findings), end="")
    if output:
        write_text(output, speed_report(findings))
        wrote(output)
    verdicts = [finding.verdict for finding in findings]
    if moved := verdicts.count("moved"):
        raise ValueError(f"{moved} of {len(findings)} ratios of times differ by more than {FAIL:.0%} from those in "
                         f"{baseline}; if the change is intended, accept them with `varient drift --speed --accept`")
    if disturbed := verdicts.count("disturbed"):
        print(f"varient: undecided: other work disturbed {disturbed} of {len(findings)} ratios; measure again on an "
              "idle machine", file=sys.stderr)
        sys.exit(_UNDECIDED)


def _accept_speed(baseline: Path) -> None:
    from varient.speed import FILE, accept_speed, disturbance_report

    measured = accept_speed(baseline)
    for name, ratio in measured.items():
        print(f"{name}: {ratio.value:.3f}, median of {ratio.repeats} turns")
    if disturbed := disturbance_report(measured):
        print(disturbed, end="")
        print("varient: not accepted: other work disturbed the times; measure again on an idle machine",
              file=sys.stderr)
        sys.exit(_UNDECIDED)
    wrote(baseline / FILE)
