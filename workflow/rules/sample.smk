rule generate_shard:
    """One shard of a system's images; each image is a function of (seed, index), so shards only divide the work."""
    input:
        config=ancient("runs/{experiment}/config.json"),
        tokenizer="runs/{experiment}/tokenizer.safetensors",
        weights=weights_of,
        code=stage_sources("varient.generation"),
    output:
        "runs/{experiment}/samples/{system}/shard-{shard}.npz",
    log:
        "runs/{experiment}/logs/generate-{system}-{shard}.log",
    conda:
        "../../environment.yml"
    params:
        settings=EXPERIMENT.digest("sampling", "supernet"),
    shell:
        "python -m varient generate --config {input.config} --system {wildcards.system} --shard {wildcards.shard}"
        " --run-dir runs/{wildcards.experiment} --output {output} > {log} 2>&1"
