import hashlib
import json
from functools import cache
from pathlib import Path

from varient.config import PROFILED
from varient.devices import wanted_device
from varient.experiment import keep_config, named_files
from varient.image_tree import ImageTreeError, check_class_folders
from varient.launch import launcher, training_gpus
from varient.report.figures import figure_needs
from varient.report.needs import needs_of_arms
from varient.report.rivals import needs_of_rivals
from varient.report.tables import TABLES
from varient.systems.ids import base_system
from varient.systems.names import BaseId
from varient.systems.registry import (
    family_of,
    module_of,
    networks_of,
    resolve_system,
    user_files,
)
from varient.targets import DEFAULT_EXPERIMENT, PAPER_EXPERIMENT, folder_of
from varient.training.fashion_mnist import SHA256 as FASHION_MNIST_FILES
from varient.training.fashion_mnist import FashionMnistError, find_file
from varient.training.recipes import supernet_of

# Results of the default experiment are directly in results/ and figures/; others have subfolders.
IS_DEFAULT = EXPERIMENT.name == DEFAULT_EXPERIMENT
RESULTS = folder_of("results", EXPERIMENT.name)
FIGURES = folder_of("figures", EXPERIMENT.name)

REPORT = "report.html" if IS_DEFAULT else f"{RESULTS}/report.html"
DEMO = f"{RESULTS}/demo/index.html"
OPENING = f"{RESULTS}/opening.rst"
SUMMARY = f"{RESULTS}/summary.html"

# Figures of `all`; those that need sweeps over batch sizes are made by `sweeps` alone.
USUAL_FIGURES = [
    name for name in FIGURE_SOURCES if not figure_needs(name, EXPERIMENT).sweep
]

# The outputs of `all`, except the report.
RESULT_FILES = [
    *expand(
        f"{RESULTS}/table{{number}}.{{suffix}}",
        number=TABLES,
        suffix=["csv", "md", "tex"],
    ),
    *expand(
        f"{FIGURES}/{{figure}}.{{suffix}}", figure=USUAL_FIGURES, suffix=["png", "pdf"]
    ),
    *expand(f"{RESULTS}/claims.{{suffix}}", suffix=["csv", "md"]),
    SUMMARY,
    *expand(
        f"{RESULTS}/ablations.{{suffix}}",
        suffix=["csv", "md"] if EXPERIMENT.ablations else [],
    ),
    *expand(
        f"{RESULTS}/rivals.{{suffix}}",
        suffix=["csv", "md", "tex"] if EXPERIMENT.rivals else [],
    ),
]

# SHA-256 of the results as they were made; what reads them again checks that none was edited or cut off since.
SUMS = f"runs/{EXPERIMENT.name}/sums"
RESULT_SUMS = expand(
    f"{SUMS}/{{name}}.sha256",
    name=[
        *(f"table{number}" for number in TABLES),
        *USUAL_FIGURES,
        "claims",
        "summary",
        *(["ablations"] if EXPERIMENT.ablations else []),
        *(["rivals-table"] if EXPERIMENT.rivals else []),
    ],
)

# The tables of the paper's own experiment, filled by arithmetic and the cost model without records.
PAPER_SIZE = PAPER_EXPERIMENT
PAPER_SIZE_TABLES = expand(
    f"results/{PAPER_SIZE}/{{table}}.{{suffix}}",
    table=[*(f"table{number}" for number in TABLES), "rivals"],
    suffix=["csv", "md", "tex"],
)

# Snakemake formats the full path, which may contain braces.
ENVIRONMENT = (
    str(Path(workflow.basedir, "environment.yml")).replace("{", "{{").replace("}", "}}")
)

# Number of GPUs of a job.  It has no effect unless `--resources gpu=N` or a profile sets the total.  A launcher
# (VARIENT_LAUNCH) uses one GPU per process.
try:
    GPU = 0 if wanted_device() == "cpu" else 1
    TRAINING_GPUS = training_gpus()
    launcher()
except ValueError as error:
    raise WorkflowError(str(error)) from None

# Distances and covariances of Inception features benefit from several threads, those of a small classifier do not.
SCORING_THREADS = 1 if EXPERIMENT.evaluation.trains_its_network else 8

# Archives of the real images, and the reference of the scores, which is one of them by default.
REAL = f"runs/{EXPERIMENT.name}/real"
REFERENCE = (
    EXPERIMENT.evaluation.reference or f"{REAL}/{EXPERIMENT.data.reference_split}.npz"
)
TEST = [f"{REAL}/test.npz"] if "test" in EXPERIMENT.data.splits else []

# Networks that system families add, by name.
NETWORKS = networks_of(EXPERIMENT)

# The config with all defaults, which every stage reads; the only file that parsing the workflow writes.
CONFIG = keep_config(EXPERIMENT, Path("runs") / EXPERIMENT.name)

# Jobs in their own processes, as on Slurm, parse these files again.  They use the kept config, even if the YAML file
# has been edited since the workflow started.
if workflow.is_main_process:
    workflow.config_settings.configfiles = [CONFIG.absolute()]


def config_file(wildcards, input):
    """Params function: the file of the config.

    Its name changes with any setting, so it must not trigger reruns: it is not an input, and as a function of `input`
    it is a derived parameter, whose changes Snakemake ignores.  The digest of a stage's own sections triggers reruns.
    """
    return str(CONFIG)


def weight_files(names):
    """Files of the named networks."""
    return [f"runs/{EXPERIMENT.name}/{name}.safetensors" for name in names]


def learns_from_images(name):
    """Whether a family's network is trained on the experiment's images; not imported, or computed from others."""
    return not NETWORKS[name].released and "data" in NETWORKS[name].depends


def weights_of(wildcards):
    """Weight files of the system that the wildcards name."""
    return weight_files(resolve_system(wildcards.system, EXPERIMENT).weights)


def user_files_of(output):
    """Input function: files of the user's that the wildcards' system reads besides its weights."""

    def files(wildcards):
        system = resolve_system(wildcards.system, EXPERIMENT)
        return given(output.format(**wildcards), *user_files(system))

    return files


def code_of(stage):
    """Input function: sources of a stage and of the family whose system the wildcards name."""

    def sources(wildcards):
        return stage_sources(stage, module_of(family_of(wildcards.system, EXPERIMENT)))

    return sources


def settings_of(*sections):
    """Params function: digest of the given sections, the settings of the wildcards' system, and its sampling protocol
    (layers at each scale, guidance).  Training settings are not included: they change the weight files.
    """

    def digest(wildcards):
        family = family_of(wildcards.system, EXPERIMENT)
        protocol = resolve_system(wildcards.system, EXPERIMENT).protocol()
        sampled_by = hashlib.sha256(json.dumps(protocol, sort_keys=True).encode())
        return f"{EXPERIMENT.digest(*sections, f'systems.{family}')}:{sampled_by.hexdigest()}"

    return digest


def supernet(wildcards):
    """The supernet that the wildcards name."""
    return supernet_of(wildcards.supernet, EXPERIMENT)


def supernet_options(supernet):
    """Options of `varient train supernet`."""
    recipe = ["--recipe", supernet.recipe] if supernet.recipe else []
    base = ["--base-seed", supernet.base] if supernet.base else []
    return ["--depth", supernet.depth, *recipe, "--seed", supernet.seed, *base]


def repeated(option, paths):
    """Command-line arguments with the option before each path; shell commands quote each of them (`:q`)."""
    return [word for path in paths for word in (option, path)]


# Folder of images.  It has too many files for a rule's input, so its path is a parameter: another path reruns the rule.
# A resumed training checks names and sizes of the images instead of the path.  The parameter is a function, because
# Snakemake looks for wildcards in a plain string.  Fashion-MNIST is identified by its hashes.
IMAGES = "" if EXPERIMENT.data.in_memory else str(EXPERIMENT.data.root or "")

# Token cache of an image folder, for augmentation by flips at most; the copy of its manifest represents all its files.
TOKENS = f"runs/{EXPERIMENT.name}/tokens"
TOKEN_LIST = f"{TOKENS}.json" if EXPERIMENT.data.cacheable else []
TOKENS_OPTION = ["--tokens", TOKENS] if EXPERIMENT.data.cacheable else []


def base_options(name):
    """Options of `varient train base`."""
    seed = BaseId.parse(name).base
    tokens = TOKENS_OPTION if EXPERIMENT.base.training else []
    return [*(["--seed", seed] if seed else []), *tokens]


def given(output, *paths):
    """Files of the user's as inputs of what is to be made; where one is missing, all that the config names are told."""
    if not Path(output).exists() and not all(Path(path).exists() for path in paths):
        check_named_files()
    return list(paths)


@cache
def check_named_files():
    """Raise WorkflowError with all files and folders that the config names and that are not there."""
    missing = dict.fromkeys(
        str(path)
        for path in named_files(EXPERIMENT)
        if not path.exists() and path != EXPERIMENT.data.root
    )
    if missing:
        raise WorkflowError(
            f"no such file: {', '.join(missing)}; the config of {EXPERIMENT.name} names them (comments in "
            "workflow/config say where released ones come from), and what is to be made needs one or more"
        )


def reference_of(output):
    """Input function: what samples are compared with, for the record of scores of that pattern."""

    def reference(wildcards):
        is_given = EXPERIMENT.evaluation.reference is not None
        return given(output.format(**wildcards), REFERENCE) if is_given else REFERENCE

    return reference


def extractor_of(output):
    """Input function: the protocol's network, or the experiment's classifiers, for the record of that pattern."""

    def networks(wildcards):
        if weights := EXPERIMENT.evaluation.inception_weights:
            return given(output.format(**wildcards), weights)
        return weight_files(["classifier-features", "classifier-judge"])

    return networks


# Classifiers of FID against halves of the training images.
HALVES = weight_files(f"classifier-{role}" for role in EXPERIMENT.evaluation.half_roles)


def needs_images(output, *splits):
    """Input function without files: raises an error before the first job if images are missing for a missing output."""
    if not Path(output).exists():
        if EXPERIMENT.data.source == "imagenet":
            for split in splits:
                check_image_folder(split)
        if EXPERIMENT.data.source == "fashion-mnist":
            check_fashion_mnist()
    return []


@cache
def check_fashion_mnist():
    """Raise WorkflowError unless the four files exist; the training verifies their content."""
    try:
        for name in FASHION_MNIST_FILES:
            find_file(EXPERIMENT.data.root, name)
    except FashionMnistError as error:
        raise WorkflowError(str(error)) from None


@cache
def check_image_folder(split):
    """Raise WorkflowError unless a split has a folder with images for each class; the training checks the images."""
    if EXPERIMENT.data.root is None:
        raise WorkflowError("data.root is missing: the ImageNet folder to train on")
    folder = EXPERIMENT.data.root / split
    try:
        check_class_folders(folder, EXPERIMENT.data.num_classes)
    except ImageTreeError as error:
        raise WorkflowError(
            f"{error}; a training reads its images from {folder}/<class>/<image>"
        ) from None


def supernet_images(wildcards):
    """As `needs_images`; a recipe with validation also needs the split val."""
    recipe = EXPERIMENT.recipe(supernet(wildcards).recipe)
    splits = (
        ["train", "val"] if recipe.validate_every or recipe.automatic else ["train"]
    )
    return needs_images(
        f"runs/{EXPERIMENT.name}/{wildcards.supernet}.safetensors", *splits
    )


def records(kind, systems):
    """Record files of systems."""
    return [
        f"runs/{EXPERIMENT.name}/records/{kind}-{system}.json" for system in systems
    ]


def systems_by_network(systems):
    """VAR's systems by the network that they run."""
    found = {}
    for system in systems:
        network = resolve_system(system, EXPERIMENT).network
        found.setdefault(network, []).append(system)
    return found


# Systems whose losses on held-out images are shown, by network.
ARMS = needs_of_arms(EXPERIMENT)
LOSSES = systems_by_network(
    sorted(
        {
            *ARMS.loss,
            *(
                name
                for number in TABLES
                for name in TABLES[number].needs(EXPERIMENT).loss
            ),
        }
    )
)


def loss_records(systems):
    """Records with the losses of systems, one for each network."""
    return [
        f"runs/{EXPERIMENT.name}/records/heldout-{network}.json"
        for network in systems_by_network(systems)
    ]


# Systems whose pictures are compared with the full network's, by network.
FIDELITY = systems_by_network(
    sorted(
        {
            *needs_of_rivals(EXPERIMENT).fidelity,
            *(
                name
                for number in TABLES
                for name in TABLES[number].needs(EXPERIMENT).fidelity
            ),
        }
    )
)


def fidelity_records(systems):
    """Records of the comparisons of systems with the full network, one for each network."""
    return [
        f"runs/{EXPERIMENT.name}/records/fidelity-{network}.json"
        for network in systems_by_network(systems)
    ]


def samples_of(systems):
    """All shards of systems."""
    return [
        f"runs/{EXPERIMENT.name}/samples/{system}/shard-{shard}.npz"
        for system in systems
        for shard in range(EXPERIMENT.sampling.shards)
    ]


def table_fidelity(wildcards):
    """Records of the comparisons with the full network's pictures that a table shows."""
    return fidelity_records(TABLES[int(wildcards.table)].needs(EXPERIMENT).fidelity)


def table_losses(wildcards):
    """Records of the held-out losses that a table shows."""
    return loss_records(TABLES[int(wildcards.table)].needs(EXPERIMENT).loss)


def score_records(wildcards):
    """Score records that a table shows."""
    return records("score", TABLES[int(wildcards.table)].needs(EXPERIMENT).score)


def profile_records(wildcards):
    """Profile records that a table shows."""
    return records("profile", TABLES[int(wildcards.table)].needs(EXPERIMENT).profile)


def benchmark_records(wildcards):
    """Profiles of the paper's networks with random weights that a table of this experiment shows."""
    return BENCHMARKS if wildcards.table in BENCHMARKED else []


# Tables at the paper's size: Table 3 is in any experiment, Table 2 in the paper's own.
BENCHMARKED = ("2", "3") if EXPERIMENT.name == PAPER_SIZE else ("3",)

# What the table of rivals reads besides records.
RIVALS_DATA = [
    "varient/paper/table2.csv",
    "varient/cost/gpus.yaml",
    "varient/paper/published.yaml",
    "varient/paper/rivals.yaml",
]

# Profiles of the paper's networks with random weights.
BENCHMARKS = sorted(map(str, Path("benchmarks/records").glob("profile-*.json")))

# The record of the reconstructions from the first scales, if Table 1 shows it.
RECONSTRUCTION = (
    [f"runs/{EXPERIMENT.name}/records/reconstruction.json"]
    if TABLES[1].needs(EXPERIMENT).reconstruction
    else []
)


def reconstruction_record(wildcards):
    """The reconstruction record, for Table 1."""
    return RECONSTRUCTION if wildcards.table == "1" else []


def claim_records(wildcards):
    """Score records that the verdicts use: those of all tables and arms."""
    shown = [
        name for number in TABLES for name in TABLES[number].needs(EXPERIMENT).score
    ]
    return records("score", sorted({*shown, *ARMS.score}))


# Answers of `varient sweep`; the folder beside each, of the same name, has the record of each batch.
SWEEPS = f"runs/{EXPERIMENT.name}/sweeps"

# Largest batch of a sweep: with digits on a CPU, where all batches fit, a few minutes a system.
SWEPT_UP_TO = 256


def sweep_answers(systems):
    """Answers of the sweeps of systems."""
    return [f"{SWEEPS}/{system}.json" for system in systems]


def figure_samples(wildcards):
    """All shards of the systems whose pictures a figure shows."""
    return samples_of(figure_needs(wildcards.figure, EXPERIMENT).samples)
