rule real_images:
    """The real images of a split as an archive, for the reference, the floor of the scores, or the test set."""
    input:
        images=lambda wildcards: needs_images(f"{REAL}/{wildcards.split}.npz"),
        code=stage_sources("varient.evaluation.reference"),
    output:
        "runs/{experiment}/real/{split}.npz",
    log:
        "runs/{experiment}/logs/real-{split}.log",
    conda:
        ENVIRONMENT
    params:
        config=config_file,
        settings=EXPERIMENT.digest("data"),
    shell:
        "python -m varient real --config {params.config:q} --split {wildcards.split:q} --output {output:q} > {log:q} 2>&1"
