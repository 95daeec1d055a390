"""Commands that the rules of the workflow call, one a stage."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from varient.cli.app import app, train
from varient.cli.guard import load_experiment, verb
from varient.cli.options import (
    AsJson,
    Config,
    DryRun,
    FoundIn,
    Output,
    Profiles,
    Reconstruction,
    RunDir,
    Scores,
    Tokens,
    run_folder,
    wrote,
)
from varient.devices import settle_device
from varient.targets import figure_files, table_files
from varient.terminal import print_answer


@verb(train, "tokenizer")
def train_tokenizer_verb(config: Config, output: Output) -> None:
    """The multi-scale VQVAE, or its import from a released file where the config names one."""
    from varient.models.checkpoint import save_weights
    from varient.models.official import import_tokenizer
    from varient.training.tokenizer import train_tokenizer

    experiment = load_experiment(config)
    if experiment.tokenizer.weights:
        save_weights(output, *import_tokenizer(experiment, experiment.tokenizer.weights))
    else:
        train_tokenizer(experiment, output)
    wrote(output)


@verb(train, "classifier")
def train_classifier_verb(config: Config, role: Annotated[str, typer.Option(help="features or judge")],
                          output: Output) -> None:
    """The classifier that supplies features, or the one that judges."""
    from varient.training.classifier import train_classifier

    train_classifier(load_experiment(config), role, output)
    wrote(output)


@verb(app, "cache-tokens", device="cpu", writes=lambda **_: (), fills=lambda output, **_: [output])
def cache_tokens_verb(config: Config, tokenizer: Path,
                      output: Annotated[Path, typer.Option("--output", "-o", help="folder to fill")],
                      workers: Annotated[int, typer.Option(help="processes that read images")] = 0) -> None:
    """Tokens of an ImageNet folder, made once for many trainings; started again, it goes on where it was."""
    from varient.training.tokens import cache_tokens

    cache_tokens(load_experiment(config), tokenizer, output, workers)
    wrote(output)


def _check_json(dry_run: str | None, as_json: bool) -> None:
    if as_json and not dry_run:
        raise ValueError("--json goes with --dry-run: a training itself prints no document")


@verb(train, "base")
def train_base_verb(config: Config, tokenizer: Path, output: Output, tokens: Tokens = None,
                    dry_run: DryRun = None, as_json: AsJson = False) -> None:
    """The full network, or its import from a released file where the config names one."""
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
        train_base(experiment, tokenizer, output, tokens)
    elif is_main_process():
        save_weights(output, *import_transformer(experiment, experiment.base.weights))
    wrote(output)


@verb(train, "supernet", device="cpu")
def train_supernet_verb(config: Config, depth: Annotated[int, typer.Option(help="d of the subnet")], tokenizer: Path,
                        base: Path, output: Output,
                        recipe: Annotated[str | None, typer.Option(help="of the config; default the paper's")] = None,
                        seed: Annotated[int, typer.Option(help="added to the experiment's")] = 0,
                        tokens: Tokens = None, dry_run: DryRun = None, as_json: AsJson = False) -> None:
    """The full network together with one subnet, in three phases; or with several, or as a recipe says."""
    from varient.training.recipes import Supernet
    from varient.training.supernet import train_supernet

    experiment, supernet = load_experiment(config), Supernet(depth, recipe, seed)
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


@verb(app, "epoch-weights", reads=lambda supernet, **_: [supernet.parent / f"training-{supernet.stem}"])
def epoch_weights(supernet: Path, epoch: Annotated[int, typer.Option(help="end of phase 1 or 2")],
                  output: Output) -> None:
    """The weights of a supernet as they were after an epoch; its training kept them."""
    from varient.training.supernet import copy_kept_weights

    copy_kept_weights(supernet, epoch, output)
    wrote(output)


def _needed_networks(config: Path, name: str, run_dir: Path | None, **_: Any) -> list[Path]:
    from varient.systems.registry import networks_of

    experiment = load_experiment(config)
    needs = networks_of(experiment)[name].needs if name in networks_of(experiment) else ()
    return [run_folder(experiment, run_dir) / f"{need}.safetensors" for need in needs]


@verb(train, "network", reads=_needed_networks)
def train_network_verb(config: Config, name: Annotated[str, typer.Argument(help="e.g. code-refiner-n6")],
                       output: Output, run_dir: RunDir = None) -> None:
    """A network of another system family, from scratch or imported where the config names a released file."""
    from varient.systems.registry import networks_of

    experiment = load_experiment(config)
    networks = networks_of(experiment)
    if name not in networks:
        raise ValueError(f"network {name!r} is not one of {experiment.name}'s: {', '.join(networks) or 'it has none'}")
    networks[name].make(run_folder(experiment, run_dir), output)
    wrote(output)


@verb(app, device="auto")
def generate(config: Config, system: Annotated[str, typer.Option(help="e.g. variant-d16-n7")],
             shard: Annotated[int, typer.Option()], output: Output, run_dir: RunDir = None) -> None:
    """One shard of a system's images, as a sample archive."""
    from varient.generation import generate_shard

    experiment = load_experiment(config)
    generate_shard(experiment, system, shard, run_folder(experiment, run_dir), output)
    wrote(output)


@verb(app)
def real(config: Config, split: Annotated[str, typer.Option(help="train, holdout or test")], output: Output) -> None:
    """The real images of a split, as a sample archive."""
    from varient.evaluation.reference import archive_real_images

    archive_real_images(load_experiment(config), split, output)
    wrote(output)


@verb(app, device="auto")
def reconstruct(config: Config, tokenizer: Path,
                samples: Annotated[list[Path], typer.Argument(help="real images: archives, or a folder of PNGs")],
                reference: Annotated[list[Path], typer.Option(help="real images, or ADM's reference batch")],
                output: Output, run_dir: RunDir = None,
                device: Annotated[str | None, typer.Option(help="auto, cpu or cuda; default: VARIENT_DEVICE")]
                = None) -> None:
    """FID of real images rebuilt from their first k scales, for each k: where a layout puts the information."""
    from varient.evaluation.reconstruction import score_reconstructions
    from varient.systems.pipeline import default_device

    experiment = load_experiment(config)
    record = score_reconstructions(experiment, tokenizer, samples, reference, run_folder(experiment, run_dir), output,
                                   str(default_device()))
    for warning in record.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for scale in record.scales:
        print(f"r1..r{scale.scale}: FID {scale.fid:.4g} ± {2 * scale.fid_sd:.2g}")
    wrote(output)


@verb(app, "profile-worker", hidden=True)
def profile_worker(config: Config, wanted: Annotated[str, typer.Argument(help="configuration, JSON")],
                   run_dir: Annotated[Path, typer.Option()], output: Output,
                   parent: Annotated[int, typer.Option(help="the process that starts this one, which ends with it")]) \
        -> None:
    """The process that `profile` starts."""
    from varient.profiling.process import die_with

    die_with(parent)  # also while it waits for a GPU
    settle_device()
    from varient.profiling.profiler import Configuration, profile_here

    profile_here(load_experiment(config), Configuration(**json.loads(wanted)), run_dir, output)


@verb(app, writes=lambda output, **_: table_files(output))
def table(config: Config, number: int, output: Output, scores: Scores = None, profiles: Profiles = None,
          reconstruction: Reconstruction = None, found_in: FoundIn = None) -> None:
    """One of the paper's tables from records: csv, md and tex beside each other."""
    from varient.report.tables import render
    from varient.results import Results

    results = Results.read(scores or [], profiles or [], reconstruction, found_in)
    for path in render(number, load_experiment(config), results, output):
        wrote(path)


@verb(app, writes=lambda output, **_: figure_files(output))
def figure(config: Config, name: Annotated[str, typer.Argument(help="fig1 .. fig7, quality-cost or kv-live")],
           output: Annotated[Path, typer.Option("--output", "-o", help="stem of the .png and the .pdf")],
           scores: Scores = None, profiles: Profiles = None, found_in: FoundIn = None, run_dir: RunDir = None) -> None:
    """One figure from records, training curves and samples: png and pdf beside each other."""
    from varient.report.figures import render
    from varient.results import Results

    experiment = load_experiment(config)
    results = Results.read(scores or [], profiles or [], found_in=found_in)
    for path in render(name, experiment, results, found_in or run_folder(experiment, run_dir), output):
        wrote(path)


@verb(app)
def opening(claims: Annotated[Path, typer.Argument(help="claims.csv")],
            table2: Annotated[Path, typer.Argument(help="table2.csv")], output: Output,
            summary: Annotated[Path, typer.Option(help="HTML page with the evidence")]) -> None:
    """The first page of the report (reStructuredText) and its summary, from verdicts and Table 2."""
    from varient.report.opening import write_opening

    write_opening(claims, table2, output, summary)
    wrote(output)
    wrote(summary)


@verb(app)
def ablations(config: Config, output: Output, scores: Scores = None) -> None:
    """The arms of the ablations with their scores, as CSV."""
    from varient.results import Results, write_ablations

    write_ablations(load_experiment(config), Results.read(scores or []), output)
    wrote(output)
