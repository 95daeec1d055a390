rule generate_shard:
    """One shard of a system's images; each image is a function of (seed, index), so shards only divide the work."""
    input:
        config=ancient("runs/{experiment}/config.json"),
        weights=weights_of,
        files=user_files_of,
        code=code_of("varient.generation"),
    output:
        "runs/{experiment}/samples/{system}/shard-{shard}.npz",
    log:
        "runs/{experiment}/logs/generate-{system}-{shard}.log",
    conda:
        "../../environment.yml"
    resources:
        gpu=GPU,
    params:
        # The number of shards decides which images lie in which file: with another one each file has to be made again.
        settings=settings_of(*EXPERIMENT.sampling.image_sections, "sampling.shards"),
    shell:
        "python -m varient generate --config {input.config} --system {wildcards.system} --shard {wildcards.shard}"
        " --run-dir runs/{wildcards.experiment} --output {output} > {log} 2>&1"
