rule generate_shard:
    """One shard of a system's images; each image is a function of (seed, index), so shards only divide the work."""
    input:
        weights=weights_of,
        files=user_files_of("runs/{experiment}/samples/{system}/shard-{shard}.npz"),
        code=code_of("varient.generation"),
    output:
        "runs/{experiment}/samples/{system}/shard-{shard}.npz",
    log:
        "runs/{experiment}/logs/generate-{system}-{shard}.log",
    conda:
        ENVIRONMENT
    resources:
        gpu=GPU,
    params:
        config=config_file,
        # The number of shards decides which images lie in which file: with another one each file has to be made again.
        settings=settings_of(*EXPERIMENT.sampling.image_sections, "sampling.shards"),
    shell:
        "python -m varient generate --config {params.config:q} --system {wildcards.system:q} --shard {wildcards.shard:q}"
        " --run-dir runs/{wildcards.experiment:q} --output {output:q} > {log:q} 2>&1"
