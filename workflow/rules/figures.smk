rule figure:
    input:
        scores=lambda wildcards: records(
            "score", figure_needs(wildcards.figure, EXPERIMENT).score
        ),
        profiles=lambda wildcards: records(
            "profile", figure_needs(wildcards.figure, EXPERIMENT).profile
        ),
        fidelity=lambda wildcards: fidelity_records(
            figure_needs(wildcards.figure, EXPERIMENT).fidelity
        ),
        sweeps=lambda wildcards: sweep_answers(
            figure_needs(wildcards.figure, EXPERIMENT).sweep
        ),
        samples=figure_samples,
        trained=lambda wildcards: weight_files(
            figure_needs(wildcards.figure, EXPERIMENT).curves
        ),
        data=sorted(map(str, Path("varient/paper").glob("*.csv"))),
        code=lambda wildcards: stage_sources(
            "varient.report.figures", FIGURE_SOURCES[wildcards.figure].module
        ),
    output:
        png=report(
            f"{FIGURES}/{{figure}}.png",
            caption="../report/figure.rst",
            category="3. Figures",
            labels={"figure": "{figure}"},
        ),
        pdf=f"{FIGURES}/{{figure}}.pdf",
        sums=f"{SUMS}/{{figure}}.sha256",
    log:
        f"runs/{EXPERIMENT.name}/logs/{{figure}}.log",
    conda:
        ENVIRONMENT
    params:
        config=config_file,
        settings=EXPERIMENT.digest(),
        scores=lambda wildcards, input: repeated("--score", input.scores),
        profiles=lambda wildcards, input: repeated("--profile", input.profiles),
        fidelity=lambda wildcards, input: repeated("--fidelity", input.fidelity),
        sweeps=lambda wildcards, input: repeated(
            "--sweep", [answer.removesuffix(".json") for answer in input.sweeps]
        ),
        stem=lambda wildcards, output: output.png.removesuffix(".png"),
    shell:
        "python -m varient figure --config {params.config:q} {wildcards.figure:q} {params.scores:q} {params.profiles:q}"
        " {params.fidelity:q} {params.sweeps:q} --output {params.stem:q} > {log:q} 2>&1"
        " && sha256sum {output.png:q} {output.pdf:q} > {output.sums:q}"
