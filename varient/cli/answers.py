"""Commands that a person types: costs, plans, verdicts, scores, pictures, profiles, drift."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from varient.cli.app import ASK, app
from varient.cli.guard import load_experiment, verb
from varient.cli.options import (
    DIGITS,
    AsJson,
    Config,
    FoundIn,
    Output,
    Profiles,
    Reconstruction,
    RunDir,
    Scores,
    config_file,
    run_folder,
    wrote,
)
from varient.config import ExperimentConfig
from varient.shipped import ACCEPTED_SUPERNET, in_project, shipped
from varient.targets import claims_files
from varient.terminal import print_answer


@verb(app, panel=ASK)
def check(config: Config) -> None:
    """Validate a config and print it with all defaults filled in."""
    print(load_experiment(config).model_dump_json(indent=2))


@verb(app, panel=ASK)
def schema() -> None:
    """The JSON schema of configs, for editors; sections of `systems` are checked by their families."""
    print(json.dumps(ExperimentConfig.model_json_schema(), indent=1, ensure_ascii=False))


@verb(app, panel=ASK)
def doctor(config: Config, run_dir: RunDir = None, as_json: AsJson = False) -> None:
    """Whether an experiment can run here, and what each target would take; exit code 1 where it is not ready."""
    from varient.doctor import examine
    from varient.doctor.page import diagnosis_answer

    experiment = load_experiment(config)
    diagnosis = examine(experiment, run_folder(experiment, run_dir))
    print_answer(diagnosis_answer(diagnosis), as_json=as_json)
    if not diagnosis.ready:
        sys.exit(1)


@verb(app, panel=ASK)
def cost(system: Annotated[str | None, typer.Option(help="e.g. variant-d16-n7, code-n6, var-d30")] = None,
         batch: Annotated[int, typer.Option(help="images")] = 64,
         cache: Annotated[str, typer.Option(help="lean or reference; DiT has none, LlamaGen's is static")] = "lean",
         precision: Annotated[str, typer.Option(help="fp16-autocast, bf16-autocast, fp32, fp16 or bf16")]
         = "fp16-autocast",
         device: Annotated[str, typer.Option(help="l20, a100, h100, h200 or rtx4090")] = "l20",
         as_json: AsJson = False,
         compare: Annotated[bool, typer.Option("--compare", help="in place of --system: the rows of the paper's "
                                                                 "Table 2, at its setting")] = False) -> None:
    """What a system of Table 2 costs at its authors' size: counted and predicted, nothing is run."""
    from varient.cost.printer import comparison_answer, cost_answer
    from varient.cost.roofline import compare_baselines, compare_with_paper, system_cost

    if compare == (system is not None):
        raise ValueError("cost needs either --system or --compare")
    answer = comparison_answer(compare_with_paper(), compare_baselines()) if system is None else cost_answer(
        system_cost(system, batch_size=batch, policy=cache, precision=precision, device_key=device))
    print_answer(answer, as_json=as_json)


@verb(app, panel=ASK)
def plan(memory: Annotated[str, typer.Option(help="what may be used, e.g. 12GiB")],
         batch: Annotated[int, typer.Option(help="images")] = 64,
         latency: Annotated[str | None, typer.Option(help="longest time of a batch, e.g. 1.5s")] = None,
         device: Annotated[str, typer.Option(help="l20, a100, h100, h200 or rtx4090")] = "l20",
         records: Annotated[Path | None, typer.Option(help="score records; default the paper's Table 8")] = None,
         runners_up: Annotated[int, typer.Option(help="how many to show after the best")] = 4,
         as_json: AsJson = False) -> None:
    """The (d, N, precision, cache) of best quality that fits a budget at the paper's size, with the runners-up."""
    from varient.cost.planner import choices, fitting, measured_quality, paper_quality, parse_seconds
    from varient.cost.printer import plan_answer
    from varient.cost.sizes import MIB, parse_size

    memory_mib, latency_s = parse_size(memory) / MIB, parse_seconds(latency) if latency else None
    known = choices(measured_quality(records) if records else paper_quality(), batch_size=batch, device=device)
    chosen = fitting(known, memory_mib=memory_mib, latency_s=latency_s)[:1 + runners_up]
    print_answer(plan_answer(chosen, batch_size=batch, device=device, memory_mib=memory_mib, latency_s=latency_s),
                 as_json=as_json)


@verb(app, panel=ASK, writes=lambda output, **_: claims_files(output))
def claims(output: Annotated[Path, typer.Option("--output", "-o", help="stem of the .csv and the .md")],
           config: Config = DIGITS,
           scores: Scores = None, profiles: Profiles = None, reconstruction: Reconstruction = None,
           found_in: FoundIn = None,
           run_dir: Annotated[Path | None, typer.Option("--run-dir", help="where the curves of the trainings are")]
           = None) -> None:
    """A verdict on each claim of the paper's text and each cell of its tables; arithmetic alone without records."""
    from varient.claims import write_claims
    from varient.results import Results

    results = Results.read(scores or [], profiles or [], reconstruction, found_in)
    for path in write_claims(load_experiment(config), results, output, run_dir or found_in):
        wrote(path)


def _exported(output: Path, form: str, **_: Any) -> list[Path]:
    from varient.evaluation.inputs import manifest_path

    return [output, manifest_path(output)] if form == "adm" else []


@verb(app, panel=ASK, device="auto")
def score(samples: Annotated[list[Path], typer.Argument(help="all shards of a system, PNGs or a folder, an ADM .npz")],
          reference: Annotated[list[Path], typer.Option(help="real images, or ADM's reference batch")], output: Output,
          config: Annotated[Path | None, typer.Option("--config", help="of the experiment of the samples")] = None,
          run_dir: RunDir = None,
          test: Annotated[list[Path] | None, typer.Option(help="real images of a test set, for FID against them too; "
                                                               "with --config")] = None,
          protocol: Annotated[str | None, typer.Option(help="adm, torch-fidelity, clean-fid; without --config")] = None,
          weights: Annotated[Path | None, typer.Option(help="the protocol's Inception; without --config")] = None,
          sha256: Annotated[str | None, typer.Option(help="of --weights, where it is not the published file")] = None,
          fid_infinity: Annotated[bool, typer.Option("--fid-infinity", help="extrapolate FID too")] = False,
          device: Annotated[str | None, typer.Option(help="auto, cpu or cuda; default: VARIENT_DEVICE")]
          = None) -> None:
    """FID, sFID, KID, IS, precision and recall with their spread, as a record: an experiment's samples or anybody's."""
    from varient.evaluation.scoring import score_experiment, score_files
    from varient.systems.pipeline import default_device

    device = str(default_device())
    if (config is None) == (protocol is None):
        raise ValueError("score needs either --config (samples of an experiment) or --protocol (any samples)")
    if test and config is None:
        raise ValueError("--test goes with --config")
    if config and (weights or sha256 or fid_infinity):
        raise ValueError("--weights, --sha256 and --fid-infinity go with --protocol; with --config they are settings "
                         "of its section 'evaluation'")
    if config:
        experiment = load_experiment(config)
        record = score_experiment(experiment, samples, reference, run_folder(experiment, run_dir), output, device,
                                  test or ())
    else:
        assert protocol is not None  # one of both was given
        record = score_files(protocol, samples, reference, output, weights=weights, sha256=sha256, device=device,
                             extrapolate=fid_infinity)
    for warning in record.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{record.system} ({record.protocol}): {record.summary()}")
    wrote(output)


@verb(app, panel=ASK, writes=_exported, fills=lambda output, form, **_: [output] if form == "png" else [])
def export(shards: Annotated[list[Path], typer.Argument(help="all shards of a system")], output: Output,
           form: Annotated[str, typer.Option("--format", help="adm (.npz) or png (a folder)")] = "adm") -> None:
    """Samples for other people's tools: ADM's .npz on a fixed permutation, or PNGs, with a manifest."""
    from varient.export import export_adm, export_png

    exports: dict[str, Callable[[list[Path], Path], dict]] = {"adm": export_adm, "png": export_png}
    if form not in exports:
        raise ValueError(f"format {form!r} is unknown; known: {', '.join(exports)}")
    exports[form](shards, output)
    wrote(output)


@verb(app, panel=ASK, device="auto")
def sample(output: Output,
           label: Annotated[list[int], typer.Option("--class", help="class to draw; repeat for several")],
           depth: Annotated[list[int], typer.Option(help="subnet depth d; repeat for several rows")],
           config: Annotated[Path | None, typer.Option("--config", parser=config_file, metavar="FILE",
                                                       help="of the networks; default: those of the accepted state, "
                                                            "a supernet of d = 4 on digits")] = None,
           bridge: Annotated[int | None, typer.Option(help="N; default the config's")] = None,
           checkpoint: Annotated[Path | None, typer.Option(help="weights for all rows; default: of each depth")] = None,
           count: Annotated[int, typer.Option(help="images a class")] = 8,
           seed: Annotated[int | None, typer.Option(help="default the config's")] = None,
           run_dir: RunDir = None) -> None:
    """A picture grid: the same seeds, one row for each depth."""
    from varient.report.samples import sample_grid

    if config is None:
        run_dir = run_dir or shipped("baseline")
        config, checkpoint = run_dir / "config.json", checkpoint or run_dir / f"{ACCEPTED_SUPERNET}.safetensors"
    experiment = load_experiment(config)
    sample_grid(experiment, run_folder(experiment, run_dir), output, labels=label, depths=depth, bridge=bridge,
                checkpoint=checkpoint, count=count, seed=experiment.seed if seed is None else seed)
    wrote(output)


@verb(app, panel=ASK)
def profile(config: Config, system: Annotated[str, typer.Option(help="e.g. variant-d16-n7")], output: Output,
            run_dir: RunDir = None,
            batch: Annotated[int | None, typer.Option(help="images; default the config's")] = None,
            precision: Annotated[str | None, typer.Option(help="fp32, fp16 or bf16; default the config's")] = None,
            cache: Annotated[str | None, typer.Option(help="lean or reference; default the config's")] = None,
            random_weights: Annotated[bool, typer.Option("--random-weights", help="seeded, in place of trained "
                                                                                  "ones")] = False,
            memory_cap: Annotated[str | None, typer.Option(help="emulate a smaller GPU, e.g. 48GiB")] = None) -> None:
    """Latency and memory of a system, or that it does not fit, as a record."""
    from varient.cost.sizes import parse_size
    from varient.profiling.profiler import Configuration, profile_in_fresh_process

    experiment = load_experiment(config)
    wanted = Configuration.of(experiment, system, batch_size=batch, precision=precision, cache_policy=cache,
                              random_weights=random_weights,
                              memory_cap_bytes=None if memory_cap is None else parse_size(memory_cap))
    record = profile_in_fresh_process(config, experiment, wanted, run_folder(experiment, run_dir), output)
    if record.latency and record.decoder_latency:
        print(f"{system}: {record.latency.median_s:.4f} s and {record.decoder_latency.median_s:.4f} s in the decoder "
              f"(medians of {len(record.latency.repeats_s)}), memory {record.memory.peak_mib:.1f} MiB, "
              f"of it KV {record.memory.kv_cache_mib:.3f} MiB")
    else:
        print(f"{system}: out of memory ({record.reason})")
    wrote(output)


def _drift_writes(baseline: Path | None, output: Path | None, update: Path | None, **_: Any) -> list[Path | None]:
    if not update:
        return [output]
    names = ("config.json", "drift.json", *(path.name for path in update.glob("*.safetensors")))
    return [(baseline or shipped("baseline")) / name for name in names]


@verb(app, panel=ASK, writes=_drift_writes)
def drift(baseline: Annotated[Path | None, typer.Option(help="folder of the accepted state; default the shipped one")]
          = None,
          output: Annotated[Path | None, typer.Option("--output", "-o", help="table of what was compared")] = None,
          update: Annotated[Path | None, typer.Option(help="accept the networks of this run folder as the new "
                                                           "baseline")] = None,
          config: Config = DIGITS) -> None:
    """Whether the code still draws what it drew when the baseline was accepted; exit code 1 where it does not."""
    from varient.evaluation.drift import check_drift, report, update_baseline
    from varient.files import write_text

    if update and baseline is None and not in_project():
        raise ValueError("--update needs --baseline: the accepted state that came with the package is not written into")
    baseline = baseline or shipped("baseline")
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
        raise ValueError(f"{moved} of {len(findings)} quantities left the tolerance of {baseline}; if that is meant, "
                         "accept it with `varient drift --update runs/digits`")
