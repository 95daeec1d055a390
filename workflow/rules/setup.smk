rule real_images:
    """The real images of a split as an archive: `train` is the reference of all scores, `holdout` gives their floor."""
    input:
        config=ancient("runs/{experiment}/config.json"),
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
