rule profile:
    """Latency and memory, in a process of its own.  Takes all cores so that nothing runs beside it."""
    input:
        config=ancient("runs/{experiment}/config.json"),
        tokenizer="runs/{experiment}/tokenizer.safetensors",
        weights=weights_of,
        code=stage_sources("varient.profiling.profiler"),
    output:
        "runs/{experiment}/records/profile-{system}.json",
    log:
        "runs/{experiment}/logs/profile-{system}.log",
    conda:
        "../../environment.yml"
    threads: workflow.cores
    params:
        settings=EXPERIMENT.digest("sampling", "supernet", "profiling"),
    shell:
        "python -m varient profile --config {input.config} --system {wildcards.system}"
        " --run-dir runs/{wildcards.experiment} --output {output} > {log} 2>&1"
