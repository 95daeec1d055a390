"""The `varient` command: one verb a stage, each prints what it wrote.

Verbs only parse, call one function of the library and report; heavy imports happen inside them, so that `--help` and
a wrong config answer at once.
"""

from __future__ import annotations

import functools
import io
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from varient.config import ExperimentConfig
from varient.devices import VARIABLE, Wanted, settle_device
from varient.experiment import load_experiment as read_experiment
from varient.experiment import named_files
from varient.files import check_outputs, shown
from varient.targets import claims_files, figure_files, table_files
from varient.yaml_file import shortened

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="Benchmark and reproduction harness for VARiant.")
train = typer.Typer(no_args_is_help=True, help="Train one of the networks of an experiment.")
app.add_typer(train, name="train")

DIGITS = Path("workflow/config/digits.yaml")
Config = Annotated[Path, typer.Option("--config", help="experiment config, YAML or JSON")]
RunDir = Annotated[Path | None, typer.Option("--run-dir", help="where the networks are; default runs/<experiment>")]
Output = Annotated[Path, typer.Option("--output", "-o", help="file to write")]
DryRun = Annotated[str | None, typer.Option("--dry-run", help="print steps, FLOPs, memory and hours on so many devices "
                                                              "and start nothing, e.g. h100:8")]
Tokens = Annotated[Path | None, typer.Option("--tokens", help="folder that cache-tokens filled; default: images are "
                                                              "encoded when they are visited")]

Scores = Annotated[list[Path] | None, typer.Option("--score", help="score record; repeat for several")]
Profiles = Annotated[list[Path] | None, typer.Option("--profile", help="profile record; repeat for several")]
Reconstruction = Annotated[Path | None, typer.Option("--reconstruction", help="record of `reconstruct`")]
FoundIn = Annotated[Path | None, typer.Option("--found-in", help="run folder: whatever records it holds, besides "
                                                                 "those named one by one")]


Paths = Callable[..., Iterable[Path | None]]
"""What a command reads or writes, from its arguments by name."""

_RESULTS = ("output", "summary")
_READ_IN = {"update": "*.safetensors", "found_in": "records/*.json"}
"""What is read of folders that results lie in too; of other folders it is everything."""

load_experiment = functools.cache(read_experiment)
"""Read once in a command: a pipe can give a config too."""


_LEAST = {"count": 1, "seed": 0, "shard": 0, "workers": 0, "runners_up": 0}
"""Of the numbers among arguments; the others are told by the library, which knows what they are of."""
_MOST = {"batch": 2 ** 20, "count": 10_000, "depth": 1000, "workers": 1024}
"""Of numbers that things are counted out by; the others are held to 31 bits."""


def _check_numbers(arguments: dict[str, Any]) -> None:
    for name, value in arguments.items():
        least, most = _LEAST.get(name, -2 ** 31), _MOST.get(name, 2 ** 31 - 1)
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int) and not least <= number <= most:
                bound = f"below {least}" if number < least else f"above {most}"
                raise ValueError(f"{name.replace('_', '-')} {shortened(number)} is {bound}")


def _run_weights(**arguments: Any) -> list[Path]:
    folder, config = arguments.get("run_dir"), arguments.get("config")
    if "run_dir" in arguments and config and config.exists():
        folder = _run_dir(load_experiment(config), folder)
    return list(folder.glob("*.safetensors")) if folder else []


def verb(group: typer.Typer, name: str | None = None, *, hidden: bool = False, device: Wanted | None = None,
         writes: Paths | None = None, fills: Paths | None = None,
         reads: Paths = _run_weights) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a command whose foreseeable errors end in one line on stderr and exit code 1, and whose results take the
    place of nothing that it reads (`varient.files.check_outputs`): every path among its arguments that is no result,
    and all that its config names.

    Args:
        device: what it computes on where neither its option `--device` nor VARIENT_DEVICE says; None: on nothing.
        writes: files; default its arguments `output` and `summary`.
        fills: folders; default none.
        reads: besides its arguments; default the weights in its run folder.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def guarded(**kwargs: Any) -> None:
            load_experiment.cache_clear()
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, io.TextIOWrapper):
                    stream.reconfigure(errors="replace")  # a terminal that has no ± is no reason to fail
            try:
                _check_numbers(kwargs)
                if not kwargs.get("dry_run"):
                    files = _given(writes(**kwargs) if writes else map(kwargs.get, _RESULTS))
                    folders = _given(fills(**kwargs) if fills else ())
                    if files or folders:
                        check_outputs(files, _inputs(kwargs, reads), folders)
                    if device:
                        if kwargs.get("device"):
                            os.environ[VARIABLE] = kwargs["device"]
                        settle_device(device)
                function(**kwargs)
            except (ValueError, OSError) as error:
                sys.exit(f"varient: {error}")
            except MemoryError as error:
                sys.exit(_out_of_memory(error))
            except RuntimeError as error:
                from varient.profiling.memory import is_out_of_memory

                if is_out_of_memory(error):
                    sys.exit(_out_of_memory(error))
                if type(error).__name__ != "DivergedError":
                    raise
                sys.exit(f"varient: {error}")

        return group.command(name, hidden=hidden)(guarded)

    return decorate


def _out_of_memory(error: BaseException) -> str:
    told = " ".join(str(error).split())[:200]
    return f"varient: memory ran out{f' ({told})' if told else ''}; a smaller batch needs less"


def _given(paths: Iterable[Path | None]) -> list[Path]:
    return [path for path in paths if path is not None]


def _inputs(arguments: dict[str, Any], reads: Paths) -> list[Path]:
    """All files and folders that a command with these arguments reads."""
    found = _given(reads(**arguments))
    for name in arguments.keys() - {*_RESULTS, "run_dir"}:
        value = arguments[name]
        paths = [path for path in (value if isinstance(value, list) else [value]) if isinstance(path, Path)]
        pattern = _READ_IN.get(name)
        found += [file for folder in paths for file in folder.glob(pattern)] if pattern else paths
    config = arguments.get("config")
    return [*found, *named_files(load_experiment(config))] if config and config.exists() else found


@verb(app)
def check(config: Config) -> None:
    """Validate a config and print it with all defaults filled in."""
    print(load_experiment(config).model_dump_json(indent=2))


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
    _wrote(output)


@verb(train, "classifier")
def train_classifier_verb(config: Config, role: Annotated[str, typer.Option(help="features or judge")],
                          output: Output) -> None:
    """The classifier that supplies features, or the one that judges."""
    from varient.training.classifier import train_classifier

    train_classifier(load_experiment(config), role, output)
    _wrote(output)


@verb(app, "cache-tokens", device="cpu", writes=lambda **_: (), fills=lambda output, **_: [output])
def cache_tokens_verb(config: Config, tokenizer: Path,
                      output: Annotated[Path, typer.Option("--output", "-o", help="folder to fill")],
                      workers: Annotated[int, typer.Option(help="processes that read images")] = 0) -> None:
    """Tokens of an ImageNet folder, made once for many trainings; started again, it goes on where it was."""
    from varient.training.tokens import cache_tokens

    cache_tokens(load_experiment(config), tokenizer, output, workers)
    _wrote(output)


@verb(train, "base")
def train_base_verb(config: Config, tokenizer: Path, output: Output, tokens: Tokens = None,
                    dry_run: DryRun = None) -> None:
    """The full network, or its import from a released file where the config names one."""
    from varient.models.checkpoint import save_weights
    from varient.models.official import import_transformer
    from varient.training.base import train_base
    from varient.training.distributed import is_main_process

    experiment = load_experiment(config)
    if dry_run:
        from varient.cost.training_plan import plan_base
        from varient.cost.training_report import show_training
        from varient.cost.training_setting import setting_of

        show_training(plan_base(experiment, setting_of(dry_run, experiment.base.training, token_cache=bool(tokens))))
        return
    if not experiment.base.weights:
        settle_device("cpu")
        train_base(experiment, tokenizer, output, tokens)
    elif is_main_process():
        save_weights(output, *import_transformer(experiment, experiment.base.weights))
    _wrote(output)


@verb(train, "supernet", device="cpu")
def train_supernet_verb(config: Config, depth: Annotated[int, typer.Option(help="d of the subnet")], tokenizer: Path,
                        base: Path, output: Output,
                        recipe: Annotated[str | None, typer.Option(help="of the config; default the paper's")] = None,
                        seed: Annotated[int, typer.Option(help="added to the experiment's")] = 0,
                        tokens: Tokens = None, dry_run: DryRun = None) -> None:
    """The full network together with one subnet, in three phases; or with several, or as a recipe says."""
    from varient.training.recipes import Supernet
    from varient.training.supernet import train_supernet

    experiment, supernet = load_experiment(config), Supernet(depth, recipe, seed)
    if dry_run:
        from varient.cost.training_plan import plan_supernet
        from varient.cost.training_report import show_training
        from varient.cost.training_setting import setting_of

        setting = setting_of(dry_run, experiment.supernet.training, token_cache=bool(tokens))
        show_training(plan_supernet(experiment, supernet, setting))
        return
    train_supernet(experiment, supernet, tokenizer, base, output, tokens)
    _wrote(output)


@verb(app, "epoch-weights", reads=lambda supernet, **_: [supernet.parent / f"training-{supernet.stem}"])
def epoch_weights(supernet: Path, epoch: Annotated[int, typer.Option(help="end of phase 1 or 2")],
                  output: Output) -> None:
    """The weights of a supernet as they were after an epoch; its training kept them."""
    from varient.training.supernet import copy_kept_weights

    copy_kept_weights(supernet, epoch, output)
    _wrote(output)


def _needed_networks(config: Path, name: str, run_dir: Path | None, **_: Any) -> list[Path]:
    from varient.systems.registry import networks_of

    experiment = load_experiment(config)
    needs = networks_of(experiment)[name].needs if name in networks_of(experiment) else ()
    return [_run_dir(experiment, run_dir) / f"{need}.safetensors" for need in needs]


@verb(train, "network", reads=_needed_networks)
def train_network_verb(config: Config, name: Annotated[str, typer.Argument(help="e.g. code-refiner-n6")],
                       output: Output, run_dir: RunDir = None) -> None:
    """A network of another system family, from scratch or imported where the config names a released file."""
    from varient.systems.registry import networks_of

    experiment = load_experiment(config)
    networks = networks_of(experiment)
    if name not in networks:
        raise ValueError(f"network {name!r} is not one of {experiment.name}'s: {', '.join(networks) or 'it has none'}")
    networks[name].make(_run_dir(experiment, run_dir), output)
    _wrote(output)


@verb(app, device="auto")
def generate(config: Config, system: Annotated[str, typer.Option(help="e.g. variant-d16-n7")],
             shard: Annotated[int, typer.Option()], output: Output, run_dir: RunDir = None) -> None:
    """One shard of a system's images, as a sample archive."""
    from varient.generation import generate_shard

    experiment = load_experiment(config)
    generate_shard(experiment, system, shard, _run_dir(experiment, run_dir), output)
    _wrote(output)


@verb(app)
def real(config: Config, split: Annotated[str, typer.Option(help="train, holdout or test")], output: Output) -> None:
    """The real images of a split, as a sample archive."""
    from varient.evaluation.reference import archive_real_images

    archive_real_images(load_experiment(config), split, output)
    _wrote(output)


@verb(app, device="auto")
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
        record = score_experiment(experiment, samples, reference, _run_dir(experiment, run_dir), output, device,
                                  test or ())
    else:
        record = score_files(protocol, samples, reference, output, weights=weights, sha256=sha256, device=device,
                             extrapolate=fid_infinity)
    for warning in record.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{record.system} ({record.protocol}): {record.summary()}")
    _wrote(output)


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
    record = score_reconstructions(experiment, tokenizer, samples, reference, _run_dir(experiment, run_dir), output,
                                   str(default_device()))
    for warning in record.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for scale in record.scales:
        print(f"r1..r{scale.scale}: FID {scale.fid:.4g} ± {2 * scale.fid_sd:.2g}")
    _wrote(output)


def _exported(output: Path, form: str, **_: Any) -> list[Path]:
    from varient.evaluation.inputs import manifest_path

    return [output, manifest_path(output)] if form == "adm" else []


@verb(app, writes=_exported, fills=lambda output, form, **_: [output] if form == "png" else [])
def export(shards: Annotated[list[Path], typer.Argument(help="all shards of a system")], output: Output,
           form: Annotated[str, typer.Option("--format", help="adm (.npz) or png (a folder)")] = "adm") -> None:
    """Samples for other people's tools: ADM's .npz on a fixed permutation, or PNGs, with a manifest."""
    from varient.export import export_adm, export_png

    exports = {"adm": export_adm, "png": export_png}
    if form not in exports:
        raise ValueError(f"format {form!r} is unknown; known: {', '.join(exports)}")
    exports[form](shards, output)
    _wrote(output)


def _drift_writes(baseline: Path, output: Path | None, update: Path | None, **_: Any) -> list[Path | None]:
    if not update:
        return [output]
    return [baseline / name for name in ("config.json", "drift.json", *(p.name for p in update.glob("*.safetensors")))]


@verb(app, writes=_drift_writes)
def drift(baseline: Annotated[Path, typer.Option(help="folder of the accepted state")] = Path("results/baseline"),
          output: Annotated[Path | None, typer.Option("--output", "-o", help="table of what was compared")] = None,
          update: Annotated[Path | None, typer.Option(help="accept the networks of this run folder as the new "
                                                           "baseline")] = None,
          config: Annotated[Path, typer.Option("--config", help="of that run")] = DIGITS) -> None:
    """Whether the code still draws what it drew when the baseline was accepted; exit code 1 where it does not."""
    from varient.evaluation.drift import check_drift, report, update_baseline
    from varient.files import write_text

    if update:
        update_baseline(load_experiment(config), update, baseline)
        _wrote(baseline)
        return
    findings = check_drift(baseline)
    print(report(findings), end="")
    if output:
        write_text(output, report(findings))
        _wrote(output)
    if moved := sum(finding.moved for finding in findings):
        raise ValueError(f"{moved} of {len(findings)} quantities left the tolerance of {baseline}; if that is meant, "
                         "accept it with `varient drift --update runs/digits`")


@verb(app)
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
    record = profile_in_fresh_process(config, experiment, wanted, _run_dir(experiment, run_dir), output)
    if record.latency:
        print(f"{system}: {record.latency.median_s:.4f} s and {record.decoder_latency.median_s:.4f} s in the decoder "
              f"(medians of {len(record.latency.repeats_s)}), memory {record.memory.peak_mib:.1f} MiB, "
              f"of it KV {record.memory.kv_cache_mib:.3f} MiB")
    else:
        print(f"{system}: out of memory ({record.reason})")
    _wrote(output)


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
        _wrote(path)


@verb(app, writes=lambda output, **_: figure_files(output))
def figure(config: Config, name: Annotated[str, typer.Argument(help="fig1 .. fig7, quality-cost or kv-live")],
           output: Annotated[Path, typer.Option("--output", "-o", help="stem of the .png and the .pdf")],
           scores: Scores = None, profiles: Profiles = None, found_in: FoundIn = None, run_dir: RunDir = None) -> None:
    """One figure from records, training curves and samples: png and pdf beside each other."""
    from varient.report.figures import render
    from varient.results import Results

    experiment = load_experiment(config)
    results = Results.read(scores or [], profiles or [], found_in=found_in)
    for path in render(name, experiment, results, found_in or _run_dir(experiment, run_dir), output):
        _wrote(path)


@verb(app, writes=lambda output, **_: claims_files(output))
def claims(output: Annotated[Path, typer.Option("--output", "-o", help="stem of the .csv and the .md")],
           config: Annotated[Path, typer.Option("--config", help="of the records")] = DIGITS,
           scores: Scores = None, profiles: Profiles = None, reconstruction: Reconstruction = None,
           found_in: FoundIn = None,
           run_dir: Annotated[Path | None, typer.Option("--run-dir", help="where the curves of the trainings are")]
           = None) -> None:
    """A verdict on each claim of the paper's text and each cell of its tables; arithmetic alone without records."""
    from varient.claims import write_claims
    from varient.results import Results

    results = Results.read(scores or [], profiles or [], reconstruction, found_in)
    for path in write_claims(load_experiment(config), results, output, run_dir or found_in):
        _wrote(path)


@verb(app)
def opening(claims: Annotated[Path, typer.Argument(help="claims.csv")],
            table2: Annotated[Path, typer.Argument(help="table2.csv")], output: Output,
            summary: Annotated[Path, typer.Option(help="HTML page with the evidence")]) -> None:
    """The first page of the report (reStructuredText) and its summary, from verdicts and Table 2."""
    from varient.report.opening import write_opening

    write_opening(claims, table2, output, summary)
    _wrote(output)
    _wrote(summary)


@verb(app)
def ablations(config: Config, output: Output, scores: Scores = None) -> None:
    """The arms of the ablations with their scores, as CSV."""
    from varient.results import Results, write_ablations

    write_ablations(load_experiment(config), Results.read(scores or []), output)
    _wrote(output)


@verb(app, device="auto")
def sample(config: Config, output: Output,
           label: Annotated[list[int], typer.Option("--class", help="class to draw; repeat for several")],
           depth: Annotated[list[int], typer.Option(help="subnet depth d; repeat for several rows")],
           bridge: Annotated[int | None, typer.Option(help="N; default the config's")] = None,
           checkpoint: Annotated[Path | None, typer.Option(help="weights for all rows; default: of each depth")] = None,
           count: Annotated[int, typer.Option(help="images a class")] = 8,
           seed: Annotated[int | None, typer.Option(help="default the config's")] = None,
           run_dir: RunDir = None) -> None:
    """A picture grid: the same seeds, one row for each depth."""
    from varient.report.samples import sample_grid

    experiment = load_experiment(config)
    sample_grid(experiment, _run_dir(experiment, run_dir), output, labels=label, depths=depth, bridge=bridge,
                checkpoint=checkpoint, count=count, seed=experiment.seed if seed is None else seed)
    _wrote(output)


@verb(app)
def cost(system: Annotated[str | None, typer.Option(help="e.g. variant-d16-n7, code-n6, var-d30")] = None,
         batch: Annotated[int, typer.Option(help="images")] = 64,
         cache: Annotated[str, typer.Option(help="lean or reference; DiT has none, LlamaGen's is static")] = "lean",
         precision: Annotated[str, typer.Option(help="fp16-autocast, bf16-autocast, fp32, fp16 or bf16")]
         = "fp16-autocast",
         device: Annotated[str, typer.Option(help="l20, a100, h100, h200 or rtx4090")] = "l20",
         as_json: Annotated[bool, typer.Option("--json", help="one JSON document, units in the keys")] = False,
         compare: Annotated[bool, typer.Option("--compare", help="in place of --system: the rows of the paper's "
                                                                 "Table 2, at its setting")] = False) -> None:
    """What a system of Table 2 costs at its authors' size: counted and predicted, nothing is run."""
    from varient.cost.cost_report import show_comparison, show_cost
    from varient.cost.roofline import compare_with_paper, system_cost

    if compare == (system is not None):
        raise ValueError("cost needs either --system or --compare")
    if compare:
        show_comparison(compare_with_paper(), as_json=as_json)
    else:
        show_cost(system_cost(system, batch_size=batch, policy=cache, precision=precision, device_key=device),
                  as_json=as_json)


@verb(app)
def plan(memory: Annotated[str, typer.Option(help="what may be used, e.g. 12GiB")],
         batch: Annotated[int, typer.Option(help="images")] = 64,
         latency: Annotated[str | None, typer.Option(help="longest time of a batch, e.g. 1.5s")] = None,
         device: Annotated[str, typer.Option(help="l20, a100, h100, h200 or rtx4090")] = "l20",
         records: Annotated[Path | None, typer.Option(help="score records; default the paper's Table 8")] = None,
         runners_up: Annotated[int, typer.Option(help="how many to show after the best")] = 4) -> None:
    """The (d, N, precision, cache) of best quality that fits a budget at the paper's size, with the runners-up."""
    from varient.cost.plan_report import show_plan
    from varient.cost.planner import measured_quality, paper_quality, parse_seconds
    from varient.cost.sizes import MIB, parse_size

    quality = measured_quality(records) if records else paper_quality()
    show_plan(quality, batch_size=batch, device=device, memory_mib=parse_size(memory) / MIB,
              latency_s=parse_seconds(latency) if latency else None, runners_up=runners_up)


def _run_dir(experiment: ExperimentConfig, run_dir: Path | None) -> Path:
    return run_dir or Path("runs") / experiment.name


def _wrote(path: Path) -> None:
    print(f"wrote {shown(path)}")


