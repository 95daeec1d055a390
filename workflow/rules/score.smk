rule score:
    input:
        samples=[
            f"runs/{{experiment}}/samples/{{system}}/shard-{shard}.npz"
            for shard in range(EXPERIMENT.sampling.shards)
        ],
        reference=reference_of("runs/{experiment}/records/score-{system}.json"),
        test=TEST,
        networks=extractor_of("runs/{experiment}/records/score-{system}.json"),
        halves=HALVES,
        code=stage_sources("varient.evaluation.scoring"),
    output:
        "runs/{experiment}/records/score-{system}.json",
    log:
        "runs/{experiment}/logs/score-{system}.log",
    conda:
        ENVIRONMENT
    threads: SCORING_THREADS
    resources:
        gpu=GPU,
    params:
        config=config_file,
        settings=EXPERIMENT.digest("evaluation"),
        test=repeated("--test", TEST),
    shell:
        "python -m varient score --config {params.config:q} {input.samples:q} --reference {input.reference:q}"
        " {params.test:q} --run-dir runs/{wildcards.experiment:q} --output {output:q} > {log:q} 2>&1"


use rule score as score_real with:
    input:
        samples="runs/{experiment}/real/{split}.npz",
        reference=reference_of("runs/{experiment}/records/score-real-{split}.json"),
        networks=extractor_of("runs/{experiment}/records/score-real-{split}.json"),
        halves=HALVES,
        code=stage_sources("varient.evaluation.scoring"),
    output:
        "runs/{experiment}/records/score-real-{split}.json",
    log:
        "runs/{experiment}/logs/score-real-{split}.log",
    params:
        config=config_file,
        settings=EXPERIMENT.digest("evaluation"),
        test=[],


ruleorder: score_real > score


rule held_out_loss:
    """Loss of a network on held-out images under the layers of each of its systems, shown beside their scores."""
    input:
        networks=lambda wildcards: weight_files(["tokenizer", wildcards.network]),
        images=lambda wildcards: needs_images(
            f"runs/{EXPERIMENT.name}/records/heldout-{wildcards.network}.json", "val"
        ),
        code=stage_sources("varient.evaluation.held_out"),
    output:
        "runs/{experiment}/records/heldout-{network}.json",
    log:
        "runs/{experiment}/logs/heldout-{network}.log",
    wildcard_constraints:
        network="|".join(LOSSES) or "none",
    conda:
        ENVIRONMENT
    resources:
        gpu=GPU,
    params:
        config=config_file,
        settings=EXPERIMENT.digest("data", "patch_nums", "held_out_images"),
        systems=lambda wildcards: repeated("--system", LOSSES[wildcards.network]),
        images=lambda wildcards: IMAGES,
    shell:
        "python -m varient held-out --config {params.config:q} {params.systems:q} --run-dir runs/{wildcards.experiment:q}"
        " --output {output:q} > {log:q} 2>&1"


rule fidelity:
    """Pictures of the systems of a network, compared with the full network's of the same seeds."""
    input:
        networks=lambda wildcards: weight_files(
            dict.fromkeys(["tokenizer", "base", wildcards.network])
        ),
        samples=lambda wildcards: samples_of(
            dict.fromkeys([*FIDELITY[wildcards.network], base_system(EXPERIMENT)])
        ),
        extractor=extractor_of("runs/{experiment}/records/fidelity-{network}.json"),
        # Features of an Inception are kept by the scoring, and read again here.
        scores=lambda wildcards: (
            []
            if EXPERIMENT.evaluation.trains_its_network
            else records(
                "score",
                dict.fromkeys([*FIDELITY[wildcards.network], base_system(EXPERIMENT)]),
            )
        ),
        code=stage_sources("varient.evaluation.fidelity"),
    output:
        "runs/{experiment}/records/fidelity-{network}.json",
    log:
        "runs/{experiment}/logs/fidelity-{network}.log",
    wildcard_constraints:
        network="|".join(FIDELITY) or "none",
    conda:
        ENVIRONMENT
    threads: SCORING_THREADS
    resources:
        gpu=GPU,
    params:
        config=config_file,
        settings=EXPERIMENT.digest("evaluation"),
        systems=lambda wildcards: repeated("--system", FIDELITY[wildcards.network]),
    shell:
        "python -m varient fidelity --config {params.config:q} {params.systems:q} --run-dir runs/{wildcards.experiment:q}"
        " --output {output:q} > {log:q} 2>&1"


rule reconstruct:
    """FID of the real images reconstructed from their first scales, shown with Table 1."""
    input:
        tokenizer="runs/{experiment}/tokenizer.safetensors",
        images=f"{REAL}/{EXPERIMENT.data.reference_split}.npz",
        reference=reference_of("runs/{experiment}/records/reconstruction.json"),
        networks=extractor_of("runs/{experiment}/records/reconstruction.json"),
        code=stage_sources("varient.evaluation.reconstruction"),
    output:
        "runs/{experiment}/records/reconstruction.json",
    log:
        "runs/{experiment}/logs/reconstruct.log",
    conda:
        ENVIRONMENT
    threads: SCORING_THREADS
    resources:
        gpu=GPU,
    params:
        config=config_file,
        settings=EXPERIMENT.digest("evaluation"),
    shell:
        "python -m varient reconstruct --config {params.config:q} {input.tokenizer:q} {input.images:q}"
        " --reference {input.reference:q} --run-dir runs/{wildcards.experiment:q} --output {output:q} > {log:q} 2>&1"


rule drift:
    """Compare what the code generates with the accepted baseline in results/baseline."""
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
        code=stage_sources("varient.evaluation.drift", "varient.systems.var"),
    output:
        "results/drift.md",
    log:
        "runs/drift.log",
    conda:
        ENVIRONMENT
    shell:
        "python -m varient drift --output {output:q} > {log:q} 2>&1"
