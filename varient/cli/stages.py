"""Commands that the rules of the workflow call, one for each stage."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from varient.cli.app import app, train
from varient.cli.guard import command, load_experiment
from varient.cli.options import (
    AsJson,
    Benchmarks,
    Config,
    DryRun,
    FidelityRecords,
    FoundIn,
    HeldOut,
    Output,
    Profiles,
    Reconstruction,
    RunDir,
    Scores,
    Sweeps,
    Tokens,
    run_folder,
    tell_fidelity,
    wrote,
)
from varient.devices import settle_device
from varient.spread import DECIMALS, with_spread
from varient.targets import ablation_files, figure_files, table_files
from varient.terminal import print_answer


@command(train, "tokenizer")
def train_tokenizer_command(config: Config, output: Output) -> None:
    """Train the multi-scale VQVAE, or import it if the config names a released file."""
    from varient.models.checkpoint import save_weights
    from varient.models.official import import_tokenizer
    from varient.training.tokenizer import train_tokenizer

    experiment = load_experiment(config)
    if experiment.tokenizer.weights:
        save_weights(output, *import_tokenizer(experiment, experiment.tokenizer.weights))
    else:
        train_tokenizer(experiment, output)
    wrote(output)


@command(train, "classifier")
def train_classifier_command(config: Config, role: Annotated[str, typer.Option(help="features or judge")],
                          output: Output) -> None:
    """Train the classifier that computes features, or the judge that measures class accuracy."""
    from varient.training.classifier import train_classifier

    train_classifier(load_experiment(config), role, output)
    wrote(output)


@command(app, "cache-tokens", device="cpu", writes=lambda **_: (), fills=lambda output, **_: [output])
def cache_tokens_command(config: Config, tokenizer: Path,
                      output: Annotated[Path, typer.Option("--output", "-o", help="folder to fill")],
                      workers: Annotated[int, typer.Option(help="processes that read images")] = 0) -> None:
    """Encode an ImageNet folder to tokens once for many trainings; an interrupted run is resumed."""
    from varient.training.tokens import cache_tokens

    cache_tokens(load_experiment(config), tokenizer, output, workers)
    wrote(output)


def _check_json(dry_run: str | None, as_json: bool) -> None:
    if as_json and not dry_run:
        raise ValueError("--json needs --dry-run")


@command(train, "base")
def train_base_command(config: Config, tokenizer: Path, output: Output,
                    seed: Annotated[int, typer.Option(help="added to the experiment's seed")] = 0,
                    tokens: Tokens = None,
                    dry_run: DryRun = None, as_json: AsJson = False) -> None:
    """Train the full network, or import it if the config names a released file."""
    from varient.models.checkpoint import save_weights
    from varient.models.official import import_transformer
    from varient.training.base import train_base
    from varient.training.distributed import is_main_process

    experiment = load_experiment(config)
    _check_json(dry_run, as_json)
    if dry_run:
        from varient.cost.printer import training_answer
        from varient.cost.training_plan import plan_base
        from varient.cost.training_setting import setting_of

        setting = setting_of(dry_run, experiment.base.training, token_cache=bool(tokens))
        print_answer(training_answer(plan_base(experiment, setting)), as_json=as_json)
        return
    if not experiment.base.weights:
        settle_device("cpu")
        train_base(experiment, tokenizer, output, tokens, seed)
    elif seed:
        raise ValueError(f"--seed {seed}: {experiment.name} reads its base network from {experiment.base.weights} and "
                         "trains none")
    elif is_main_process():
        save_weights(output, *import_transformer(experiment, experiment.base.weights))
    wrote(output)


@command(train, "supernet", device="cpu")
def train_supernet_command(config: Config, depth: Annotated[int, typer.Option(help="d of the subnet")], tokenizer: Path,
                        base: Path, output: Output,
                        recipe: Annotated[str | None, typer.Option(help="recipe; default: the paper's")] = None,
                        seed: Annotated[int, typer.Option(help="added to the experiment's seed")] = 0,
                        base_seed: Annotated[int, typer.Option(help="the --seed of the base network")] = 0,
                        tokens: Tokens = None, dry_run: DryRun = None, as_json: AsJson = False) -> None:
    """Train the full network together with its subnet, in three phases or by a recipe of the config."""
    from varient.training.recipes import Supernet
    from varient.training.supernet import train_supernet

    experiment, supernet = load_experiment(config), Supernet(depth, recipe, seed, base_seed)
    _check_json(dry_run, as_json)
    if dry_run:
        from varient.cost.printer import training_answer
        from varient.cost.training_plan import plan_supernet
        from varient.cost.training_setting import setting_of

        setting = setting_of(dry_run, experiment.supernet.training, token_cache=bool(tokens))
        print_answer(training_answer(plan_supernet(experiment, supernet, setting)), as_json=as_json)
        return
    train_supernet(experiment, supernet, tokenizer, base, output, tokens)
    wrote(output)


@command(app, "epoch-weights", reads=lambda supernet, **_: [supernet.parent / f"training-{supernet.stem}"])
def epoch_weights(supernet: Path, epoch: Annotated[int, typer.Option(help="end of phase 1 or 2")],
                  output: Output) -> None:
    """Copy the weights that the training of a supernet kept after an epoch."""
    from varient.training.supernet import copy_kept_weights

    copy_kept_weights(supernet, epoch, output)
    wrote(output)


def _needed_networks(config: Path, name: str, run_dir: Path | None, **_: Any) -> list[Path]:
    from varient.systems.registry import networks_of

    experiment = load_experiment(config)
    needs = networks_of(experiment)[name].needs if name in networks_of(experiment) else ()
    return [run_folder(experiment, run_dir) / f"{need}.safetensors" for need in needs]


@command(train, "network", reads=_needed_networks)
def train_network_command(config: Config, name: Annotated[str, typer.Argument(help="e.g. code-refiner-n6")],
                       output: Output, run_dir: RunDir = None) -> None:
    """Train a network of another system family, import it if the config names a released file, or calibrate one."""
    from varient.systems.registry import networks_of

    experiment = load_experiment(config)
    networks = networks_of(experiment)
    if name not in networks:
        raise ValueError(f"network {name!r} is not one of {experiment.name}'s: {', '.join(networks) or 'it has none'}")
    networks[name].make(run_folder(experiment, run_dir), output)
    wrote(output)


@command(app, device="auto")
def generate(config: Config, system: Annotated[str, typer.Option(help="e.g. variant-d16-n7")],
             shard: Annotated[int, typer.Option()], output: Output, run_dir: RunDir = None) -> None:
    """Generate one shard of a system's images, as a sample archive."""
    from varient.generation import generate_shard

    experiment = load_experiment(config)
    generate_shard(experiment, system, shard, run_folder(experiment, run_dir), output)
    wrote(output)


@command(app, "held-out", device="auto")
def held_out(config: Config, system: Annotated[list[str], typer.Option(help="e.g. variant-d16-full; repeat for more of "
                                                                           "the same network")],
             output: Output, run_dir: RunDir = None) -> None:
    """Compute the loss of a network on held-out images, under the layers that each system runs, as a record."""
    from varient.evaluation.held_out import measure_held_out

    experiment = load_experiment(config)
    record = measure_held_out(experiment, system, run_folder(experiment, run_dir), output)
    for loss in record.losses:
        print(f"{loss.system}: {loss.loss:.4f} nats per token on {record.num_images} held-out images")
    wrote(output)


def _compared(config: Path, run_dir: Path | None, **_: Any) -> list[Path]:
    folder = run_folder(load_experiment(config), run_dir)
    return [*folder.glob("*.safetensors"), *folder.glob("samples/*/shard-*.npz")]


@command(app, device="auto", reads=_compared)
def fidelity(config: Config, system: Annotated[list[str], typer.Option(help="e.g. variant-d16; repeat for several")],
             output: Output, run_dir: RunDir = None) -> None:
    """Compare systems' pictures with those that the full network draws from the same seeds, as a record."""
    from varient.evaluation.fidelity import compare_systems
    from varient.systems.pipeline import default_device

    experiment = load_experiment(config)
    record = compare_systems(experiment, system, run_folder(experiment, run_dir), output, str(default_device().type))
    tell_fidelity(record)
    wrote(output)


@command(app)
def real(config: Config, split: Annotated[str, typer.Option(help="train, holdout or test")], output: Output) -> None:
    """Write the real images of a split, as a sample archive."""
    from varient.evaluation.reference import archive_real_images

    archive_real_images(load_experiment(config), split, output)
    wrote(output)


@command(app, device="auto")
def reconstruct(config: Config, tokenizer: Path,
                samples: Annotated[list[Path], typer.Argument(help="real images: archives, or a folder of PNGs")],
                reference: Annotated[list[Path], typer.Option(help="real images, or ADM's reference batch")],
                output: Output, run_dir: RunDir = None,
                device: Annotated[str | None, typer.Option(help="auto, cpu or cuda; default: VARIENT_DEVICE")]
                = None) -> None:
    """Compute FID of real images reconstructed from their first k scales, for each k."""
    from varient.evaluation.reconstruction import score_reconstructions
    from varient.systems.pipeline import default_device

    experiment = load_experiment(config)
    record = score_reconstructions(experiment, tokenizer, samples, reference, run_folder(experiment, run_dir), output,
                                   str(default_device()))
    for warning in record.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for scale in record.scales:
        print(f"r1..r{scale.scale}: FID {with_spread(scale.fid, scale.fid_sd, DECIMALS['fid'])}")
    wrote(output)


@command(app, "profile-worker", hidden=True)
def profile_worker(config: Config, wanted: Annotated[str, typer.Argument(help="configuration, JSON")],
                   run_dir: Annotated[Path, typer.Option()], output: Output,
                   parent: Annotated[int, typer.Option(help="pid of the parent process; this process ends with it")]) \
        -> None:
    """Measure in the process that `profile` starts."""
    from varient.profiling.process import die_with

    die_with(parent)  # also while it waits for a GPU
    settle_device()
    from varient.profiling.profiler import Configuration, profile_here

    profile_here(load_experiment(config), Configuration(**json.loads(wanted)), run_dir, output)


@command(app, writes=lambda output, **_: table_files(output))
def table(config: Config, number: int, output: Output, scores: Scores = None, profiles: Profiles = None,
          reconstruction: Reconstruction = None, held_out: HeldOut = None, fidelity: FidelityRecords = None,
          benchmarks: Benchmarks = None, found_in: FoundIn = None) -> None:
    """Write one of the paper's tables from records, as csv, md and tex."""
    from varient.report.tables import render
    from varient.results import Results

    results = Results.read(scores or [], profiles or [], reconstruction, found_in, benchmarks or [], held_out or [],
                           fidelity or [])
    for path in render(number, load_experiment(config), results, output):
        wrote(path)


@command(app, writes=lambda output, **_: figure_files(output))
def figure(config: Config, name: Annotated[str, typer.Argument(help="fig1 .. fig7, quality-cost, kv-live, "
                                                                   "latency-by-scale, throughput, rivals or "
                                                                   "fidelity")],
           output: Annotated[Path, typer.Option("--output", "-o", help="stem of the .png and .pdf files")],
           scores: Scores = None, profiles: Profiles = None, fidelity: FidelityRecords = None, sweeps: Sweeps = None,
           found_in: FoundIn = None, run_dir: RunDir = None) -> None:
    """Draw one figure from records, training curves and samples, as png and pdf."""
    from varient.report.figures import render
    from varient.results import Results

    experiment = load_experiment(config)
    results = Results.read(scores or [], profiles or [], found_in=found_in, fidelity=fidelity or [],
                           sweeps=sweeps or [])
    for path in render(name, experiment, results, found_in or run_folder(experiment, run_dir), output):
        wrote(path)


@command(app)
def opening(claims: Annotated[Path, typer.Argument(help="claims.csv")],
            table2: Annotated[Path, typer.Argument(help="table2.csv")],
            figure: Annotated[Path, typer.Argument(help="figure at the head of the first page, PNG")], output: Output,
            summary: Annotated[Path, typer.Option(help="HTML page with the evidence")]) -> None:
    """Write the first page of the report (reStructuredText) and its summary, from verdicts, Table 2 and a figure."""
    from varient.report.opening import write_opening

    write_opening(claims, table2, figure, output, summary)
    wrote(output)
    wrote(summary)


@command(app, writes=lambda output, **_: table_files(output))
def rivals(config: Config, output: Output, scores: Scores = None, profiles: Profiles = None,
           fidelity: FidelityRecords = None, found_in: FoundIn = None) -> None:
    """Write the table of methods that save cache or layers beside VARiant, as csv, md and tex."""
    from varient.report.rivals import write_rivals
    from varient.results import Results

    results = Results.read(scores or [], profiles or [], found_in=found_in, fidelity=fidelity or [])
    for path in write_rivals(load_experiment(config), results, output):
        wrote(path)


@command(app, writes=lambda output, **_: ablation_files(output))
def ablations(config: Config, output: Output, scores: Scores = None, held_out: HeldOut = None) -> None:
    """Write the arms of the ablations with their scores and losses, as CSV, and their means and differences, as md."""
    from varient.report.ablations import write_ablations
    from varient.results import Results

    results = Results.read(scores or [], held_out=held_out or [])
    for path in write_ablations(load_experiment(config), results, output):
        wrote(path)
