rule train_tokenizer:
    input:
        weights=lambda wildcards: given(
            f"runs/{EXPERIMENT.name}/tokenizer.safetensors",
            *filter(None, [EXPERIMENT.tokenizer.weights]),
        ),
        images=lambda wildcards: (
            needs_images(f"runs/{EXPERIMENT.name}/tokenizer.safetensors", "train")
            if EXPERIMENT.tokenizer.training
            else []
        ),
        code=stage_sources("varient.training.tokenizer", "varient.models.official"),
    output:
        "runs/{experiment}/tokenizer.safetensors",
    log:
        "runs/{experiment}/logs/train_tokenizer.log",
    priority: 20  # tokenizer, base and supernets are the longest path through the DAG
    conda:
        ENVIRONMENT
    params:
        config=config_file,
        settings=EXPERIMENT.digest("data", "patch_nums", "tokenizer"),
    shell:
        "python -m varient train tokenizer --config {params.config:q} --output {output:q} > {log:q} 2>&1"


rule train_classifier:
    """`features` computes features for the scores, `judge` measures class accuracy."""
    input:
        images=lambda wildcards: needs_images(
            f"runs/{EXPERIMENT.name}/classifier-{wildcards.role}.safetensors"
        ),
        code=stage_sources("varient.training.classifier"),
    output:
        "runs/{experiment}/classifier-{role}.safetensors",
    log:
        "runs/{experiment}/logs/train_classifier-{role}.log",
    conda:
        ENVIRONMENT
    params:
        config=config_file,
        settings=EXPERIMENT.digest("data", "evaluation.classifier"),
    shell:
        "python -m varient train classifier --config {params.config:q} --role {wildcards.role:q} --output {output:q}"
        " > {log:q} 2>&1"


rule cache_tokens:
    """Tokens of a folder's images and of their mirror images.  The output is a copy of the manifest and not the folder,
    because Snakemake deletes outputs of an interrupted job, and the command could not be resumed.
    """
    input:
        tokenizer="runs/{experiment}/tokenizer.safetensors",
        images=lambda wildcards: needs_images(f"{TOKENS}.json", "train"),
        code=stage_sources("varient.training.tokens"),
    output:
        "runs/{experiment}/tokens.json",
    log:
        "runs/{experiment}/logs/cache_tokens.log",
    priority: 15
    conda:
        ENVIRONMENT
    threads: 4
    resources:
        gpu=min(TRAINING_GPUS, 1),
    params:
        config=config_file,
        settings=EXPERIMENT.digest("data", "patch_nums", "tokenizer"),
        images=lambda wildcards: IMAGES,
        folder=TOKENS,
    shell:
        "python -m varient cache-tokens --config {params.config:q} --workers {threads:q} {input.tokenizer:q}"
        " --output {params.folder:q} > {log:q} 2>&1 && cp {params.folder:q}/manifest.json {output:q}"


rule train_base:
    """The full network, from scratch or from a released file; from scratch also with other seeds."""
    input:
        tokenizer="runs/{experiment}/tokenizer.safetensors",
        weights=lambda wildcards: given(
            f"runs/{EXPERIMENT.name}/{wildcards.base}.safetensors",
            *filter(None, [EXPERIMENT.base.weights]),
        ),
        tokens=TOKEN_LIST if EXPERIMENT.base.training else [],
        images=lambda wildcards: (
            needs_images(
                f"runs/{EXPERIMENT.name}/{wildcards.base}.safetensors", "train"
            )
            if EXPERIMENT.base.training
            else []
        ),
        code=stage_sources("varient.training.base", "varient.models.official"),
    output:
        "runs/{experiment}/{base}.safetensors",
    log:
        "runs/{experiment}/logs/train_{base}.log",
    priority: 10
    conda:
        ENVIRONMENT
    resources:
        gpu=TRAINING_GPUS if EXPERIMENT.base.training else 0,
    params:
        config=config_file,
        settings=EXPERIMENT.digest(
            "data", "patch_nums", "tokenizer", "transformer", "base"
        ),
        images=lambda wildcards: IMAGES if EXPERIMENT.base.training else "",
        options=lambda wildcards: base_options(wildcards.base),
        module="varient.launch" if EXPERIMENT.base.training else "varient",
    shell:
        "python -m {params.module:q} train base --config {params.config:q} {params.options:q} {input.tokenizer:q}"
        " --output {output:q} > {log:q} 2>&1"


rule train_supernet:
    """The full network together with a subnet of depth d, in three phases (one supernet for each d, as in Table 4), or
    by a recipe of the config.  VARIENT_LAUNCH starts it on several processes."""
    input:
        tokenizer="runs/{experiment}/tokenizer.safetensors",
        base=lambda wildcards: weight_files([supernet(wildcards).starts_from]),
        tokens=TOKEN_LIST,
        images=supernet_images,
        code=stage_sources("varient.training.supernet"),
    output:
        "runs/{experiment}/{supernet}.safetensors",
    log:
        "runs/{experiment}/logs/train_{supernet}.log",
    priority: 10
    conda:
        ENVIRONMENT
    resources:
        gpu=TRAINING_GPUS,
    params:
        config=config_file,
        settings=lambda wildcards: EXPERIMENT.digest(
            *supernet(wildcards).depends(EXPERIMENT)
        ),
        images=lambda wildcards: IMAGES,
        options=lambda wildcards: supernet_options(supernet(wildcards)) + TOKENS_OPTION,
    shell:
        "python -m varient.launch train supernet --config {params.config:q} {params.options:q} {input.tokenizer:q} {input.base:q}"
        " --output {output:q} > {log:q} 2>&1"


rule epoch_weights:
    """A supernet's weights at the end of a phase.  Its training keeps them in its own folder, not as an output, because
    Snakemake deletes outputs of an interrupted job, and the training could not be resumed.
    """
    input:
        "runs/{experiment}/{supernet}.safetensors",
    output:
        "runs/{experiment}/{supernet}-e{epoch}.safetensors",
    log:
        "runs/{experiment}/logs/{supernet}-e{epoch}.log",
    conda:
        ENVIRONMENT
    shell:
        "python -m varient epoch-weights {input:q} --epoch {wildcards.epoch:q} --output {output:q} > {log:q} 2>&1"


rule train_network:
    """A network of another system family, such as CoDe, DiT or LlamaGen, or a calibration."""
    input:
        needs=lambda wildcards: weight_files(NETWORKS[wildcards.network].needs),
        released=lambda wildcards: given(
            f"runs/{EXPERIMENT.name}/{wildcards.network}.safetensors",
            *filter(None, [NETWORKS[wildcards.network].released]),
        ),
        images=lambda wildcards: (
            needs_images(
                f"runs/{EXPERIMENT.name}/{wildcards.network}.safetensors", "train"
            )
            if learns_from_images(wildcards.network)
            else []
        ),
        code=lambda wildcards: stage_sources(*NETWORKS[wildcards.network].code),
    output:
        "runs/{experiment}/{network}.safetensors",
    log:
        "runs/{experiment}/logs/train_network-{network}.log",
    wildcard_constraints:
        network="|".join(NETWORKS) or "none",
    priority: 5
    conda:
        ENVIRONMENT
    params:
        config=config_file,
        settings=lambda wildcards: EXPERIMENT.digest(
            *NETWORKS[wildcards.network].depends
        ),
        images=lambda wildcards: IMAGES if learns_from_images(wildcards.network) else "",
    shell:
        "python -m varient train network --config {params.config:q} {wildcards.network:q}"
        " --run-dir runs/{wildcards.experiment:q} --output {output:q} > {log:q} 2>&1"
