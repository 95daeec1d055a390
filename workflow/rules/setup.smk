rule real_images:
    """The real images of a split as an archive: the reference of all scores, their floor, a test set."""
    input:
        config=ancient("runs/{experiment}/config.json"),
        images=lambda wildcards: needs_images(f"{REAL}/{wildcards.split}.npz"),
        code=stage_sources("varient.evaluation.reference"),
    output:
        "runs/{experiment}/real/{split}.npz",
    log:
        "runs/{experiment}/logs/real-{split}.log",
    conda:
        "../../environment.yml"
    params:
        settings=EXPERIMENT.digest("data"),
    shell:
        "python -m varient real --config {input.config} --split {wildcards.split} --output {output} > {log} 2>&1"
