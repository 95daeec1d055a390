rule write_config:
    """The config with all defaults, as every stage reads it.

    Stages take it as ancient: which of them run again is decided by the digest of their own sections in `params`.
    """
    output:
        "runs/{experiment}/config.json",
    log:
        "runs/{experiment}/logs/write_config.log",
    params:
        settings=EXPERIMENT.model_dump_json(indent=2),
    run:
        with open(output[0], "w") as file:
            file.write(params.settings)


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
