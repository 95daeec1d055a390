rule score:
    input:
        config=ancient("runs/{experiment}/config.json"),
        samples=[
            f"runs/{{experiment}}/samples/{{system}}/shard-{shard}.npz"
            for shard in range(EXPERIMENT.sampling.shards)
        ],
        reference="runs/{experiment}/real/train.npz",
        classifiers=expand(
            "runs/{{experiment}}/classifier-{role}.safetensors",
            role=["features", "judge"],
        ),
        code=stage_sources("varient.evaluation.metrics"),
    output:
        "runs/{experiment}/records/score-{system}.json",
    log:
        "runs/{experiment}/logs/score-{system}.log",
    conda:
        "../../environment.yml"
    params:
        settings=EXPERIMENT.digest("evaluation"),
    shell:
        "python -m varient score --config {input.config} {input.samples} --reference {input.reference}"
        " --run-dir runs/{wildcards.experiment} --output {output} > {log} 2>&1"


use rule score as score_real with:
    input:
        config=ancient("runs/{experiment}/config.json"),
        samples="runs/{experiment}/real/{split}.npz",
        reference="runs/{experiment}/real/train.npz",
        classifiers=expand(
            "runs/{{experiment}}/classifier-{role}.safetensors",
            role=["features", "judge"],
        ),
        code=stage_sources("varient.evaluation.metrics"),
    output:
        "runs/{experiment}/records/score-real-{split}.json",
    log:
        "runs/{experiment}/logs/score-real-{split}.log",


ruleorder: score_real > score
