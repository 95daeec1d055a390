rule score:
    input:
        config=ancient("runs/{experiment}/config.json"),
        samples=[
            f"runs/{{experiment}}/samples/{{system}}/shard-{shard}.npz"
            for shard in range(EXPERIMENT.sampling.shards)
        ],
        reference=REFERENCE,
        test=TEST,
        networks=EXPERIMENT.evaluation.inception_weights
        or expand(
            "runs/{{experiment}}/classifier-{role}.safetensors",
            role=["features", "judge"],
        ),
        code=stage_sources("varient.evaluation.scoring"),
    output:
        "runs/{experiment}/records/score-{system}.json",
    log:
        "runs/{experiment}/logs/score-{system}.log",
    conda:
        "../../environment.yml"
    threads: SCORING_THREADS
    resources:
        gpu=GPU,
    params:
        settings=EXPERIMENT.digest("evaluation"),
        test=TEST_OPTION,
    shell:
        "python -m varient score --config {input.config} {input.samples} --reference {input.reference}{params.test}"
        " --run-dir runs/{wildcards.experiment} --output {output} > {log} 2>&1"


use rule score as score_real with:
    input:
        config=ancient("runs/{experiment}/config.json"),
        samples="runs/{experiment}/real/{split}.npz",
        reference=REFERENCE,
        networks=EXPERIMENT.evaluation.inception_weights
        or expand(
            "runs/{{experiment}}/classifier-{role}.safetensors",
            role=["features", "judge"],
        ),
        code=stage_sources("varient.evaluation.scoring"),
    output:
        "runs/{experiment}/records/score-real-{split}.json",
    log:
        "runs/{experiment}/logs/score-real-{split}.log",
    params:
        settings=EXPERIMENT.digest("evaluation"),
        test="",


ruleorder: score_real > score


rule reconstruct:
    """FID of the real images rebuilt from their first scales: what Table 1 has to be read beside."""
    input:
        config=ancient("runs/{experiment}/config.json"),
        tokenizer="runs/{experiment}/tokenizer.safetensors",
        images=f"{REAL}/{EXPERIMENT.data.reference_split}.npz",
        reference=REFERENCE,
        networks=EXPERIMENT.evaluation.inception_weights
        or expand(
            "runs/{{experiment}}/classifier-{role}.safetensors",
            role=["features", "judge"],
        ),
        code=stage_sources("varient.evaluation.reconstruction"),
    output:
        "runs/{experiment}/records/reconstruction.json",
    log:
        "runs/{experiment}/logs/reconstruct.log",
    conda:
        "../../environment.yml"
    threads: SCORING_THREADS
    resources:
        gpu=GPU,
    params:
        settings=EXPERIMENT.digest("evaluation"),
    shell:
        "python -m varient reconstruct --config {input.config} {input.tokenizer} {input.images}"
        " --reference {input.reference} --run-dir runs/{wildcards.experiment} --output {output} > {log} 2>&1"


rule drift:
    """Does the code still draw what it drew when results/baseline was accepted?"""
    input:
        baseline=expand(
            "results/baseline/{name}",
            name=[
                "drift.json",
                "config.json",
                "tokenizer.safetensors",
                "supernet-d4.safetensors",
                "classifier-features.safetensors",
            ],
        ),
        code=stage_sources("varient.evaluation.drift", "varient.var_systems"),
    output:
        "results/drift.md",
    log:
        "runs/drift.log",
    conda:
        "../../environment.yml"
    shell:
        "python -m varient drift --output {output} > {log} 2>&1"
