rule table:
    input:
        scores=score_records,
        losses=table_losses,
        fidelity=table_fidelity,
        profiles=profile_records,
        reconstruction=reconstruction_record,
        benchmarks=benchmark_records,
        paper="varient/paper/table{table}.csv",
        data=[
            "varient/paper/table2.csv",
            "varient/cost/gpus.yaml",
            "varient/paper/published.yaml",
            "varient/paper/released.yaml",
        ],
        code=stage_sources("varient.report.tables"),
    output:
        csv=report(
            f"{RESULTS}/table{{table}}.csv",
            caption="../report/table.rst",
            category="2. Tables",
            labels={"table": "{table}"},
        ),
        md=f"{RESULTS}/table{{table}}.md",
        tex=f"{RESULTS}/table{{table}}.tex",
        sums=f"{SUMS}/table{{table}}.sha256",
    log:
        f"runs/{EXPERIMENT.name}/logs/table{{table}}.log",
    conda:
        ENVIRONMENT
    params:
        config=config_file,
        settings=EXPERIMENT.digest(),
        scores=lambda wildcards, input: repeated("--score", input.scores),
        losses=lambda wildcards, input: repeated("--held-out", input.losses),
        fidelity=lambda wildcards, input: repeated("--fidelity", input.fidelity),
        profiles=lambda wildcards, input: repeated("--profile", input.profiles),
        reconstruction=lambda wildcards, input: repeated(
            "--reconstruction", input.reconstruction
        ),
        benchmarks=lambda wildcards, input: repeated("--benchmark", input.benchmarks),
    shell:
        "python -m varient table --config {params.config:q} {wildcards.table:q} {params.scores:q} {params.losses:q}"
        " {params.fidelity:q} {params.profiles:q} {params.reconstruction:q} {params.benchmarks:q}"
        " --output {output.csv:q} > {log:q} 2>&1"
        " && sha256sum {output.csv:q} {output.md:q} {output.tex:q} > {output.sums:q}"


if EXPERIMENT.name != PAPER_SIZE:

    rule paper_size_table:
        """A table of the paper's own experiment from the existing records; missing ones are not produced."""
        input:
            config=f"workflow/config/{PAPER_SIZE}.yaml",
            records=sorted(map(str, Path(f"runs/{PAPER_SIZE}/records").glob("*.json"))),
            # A function: Snakemake forgets the name of an empty list.
            benchmarks=lambda wildcards: BENCHMARKS,
            data=[
                *sorted(map(str, Path("varient/paper").glob("*.csv"))),
                "varient/cost/gpus.yaml",
                "varient/paper/published.yaml",
                "varient/paper/released.yaml",
            ],
            code=stage_sources("varient.report.tables"),
        output:
            csv=f"results/{PAPER_SIZE}/table{{table}}.csv",
            md=f"results/{PAPER_SIZE}/table{{table}}.md",
            tex=f"results/{PAPER_SIZE}/table{{table}}.tex",
        log:
            f"runs/{EXPERIMENT.name}/logs/{PAPER_SIZE}-table{{table}}.log",
        conda:
            ENVIRONMENT
        params:
            found_in=lambda wildcards: f"runs/{PAPER_SIZE}",
            benchmarks=lambda wildcards, input: (
                repeated("--benchmark", input.benchmarks)
                if wildcards.table in ("2", "3")
                else []
            ),
        shell:
            "python -m varient table --config {input.config:q} {wildcards.table:q} {params.benchmarks:q}"
            " --found-in {params.found_in:q} --output {output.csv:q} > {log:q} 2>&1"


rule rivals:
    """Methods that save cache or layers, beside VARiant."""
    input:
        scores=records("score", needs_of_rivals(EXPERIMENT).score),
        profiles=records("profile", needs_of_rivals(EXPERIMENT).profile),
        # A function: Snakemake forgets the name of an empty list.
        fidelity=lambda wildcards: fidelity_records(
            needs_of_rivals(EXPERIMENT).fidelity
        ),
        data=RIVALS_DATA,
        code=stage_sources("varient.report.rivals"),
    output:
        csv=report(
            f"{RESULTS}/rivals.csv",
            caption="../report/rivals.rst",
            category="2. Tables",
            labels={"table": "rivals"},
        ),
        md=f"{RESULTS}/rivals.md",
        tex=f"{RESULTS}/rivals.tex",
        sums=f"{SUMS}/rivals-table.sha256",
    log:
        f"runs/{EXPERIMENT.name}/logs/rivals.log",
    conda:
        ENVIRONMENT
    params:
        config=config_file,
        settings=EXPERIMENT.digest(),
        scores=lambda wildcards, input: repeated("--score", input.scores),
        profiles=lambda wildcards, input: repeated("--profile", input.profiles),
        fidelity=lambda wildcards, input: repeated("--fidelity", input.fidelity),
    shell:
        "python -m varient rivals --config {params.config:q} {params.scores:q} {params.profiles:q} {params.fidelity:q}"
        " --output {output.csv:q} > {log:q} 2>&1"
        " && sha256sum {output.csv:q} {output.md:q} {output.tex:q} > {output.sums:q}"


if EXPERIMENT.name != PAPER_SIZE:

    rule paper_size_rivals:
        """The same table at the paper's size from the existing records; missing ones are not produced."""
        input:
            config=f"workflow/config/{PAPER_SIZE}.yaml",
            records=sorted(map(str, Path(f"runs/{PAPER_SIZE}/records").glob("*.json"))),
            data=RIVALS_DATA,
            code=stage_sources("varient.report.rivals"),
        output:
            csv=f"results/{PAPER_SIZE}/rivals.csv",
            md=f"results/{PAPER_SIZE}/rivals.md",
            tex=f"results/{PAPER_SIZE}/rivals.tex",
        log:
            f"runs/{EXPERIMENT.name}/logs/{PAPER_SIZE}-rivals.log",
        conda:
            ENVIRONMENT
        params:
            found_in=lambda wildcards: f"runs/{PAPER_SIZE}",
        shell:
            "python -m varient rivals --config {input.config:q} --found-in {params.found_in:q}"
            " --output {output.csv:q} > {log:q} 2>&1"


rule ablations:
    """All arms of the ablations with their scores and losses, and their means and differences."""
    input:
        scores=records("score", ARMS.score),
        # A function: Snakemake forgets the name of an empty list.
        losses=lambda wildcards: loss_records(ARMS.loss),
        code=stage_sources("varient.report.ablations"),
    output:
        csv=report(
            f"{RESULTS}/ablations.csv",
            caption="../report/ablations.rst",
            category="4. Ablations",
            labels={"file": "all arms"},
        ),
        md=f"{RESULTS}/ablations.md",
        sums=f"{SUMS}/ablations.sha256",
    log:
        f"runs/{EXPERIMENT.name}/logs/ablations.log",
    conda:
        ENVIRONMENT
    params:
        config=config_file,
        settings=EXPERIMENT.digest("ablations", "supernet"),
        scores=lambda wildcards, input: repeated("--score", input.scores),
        losses=lambda wildcards, input: repeated("--held-out", input.losses),
    shell:
        "python -m varient ablations --config {params.config:q} {params.scores:q} {params.losses:q}"
        " --output {output.csv:q} > {log:q} 2>&1"
        " && sha256sum {output.csv:q} {output.md:q} > {output.sums:q}"


rule claims:
    """A verdict on each claim of the paper's text and each cell of its tables."""
    input:
        scores=claim_records,
        losses=lambda wildcards: loss_records(
            system for systems in LOSSES.values() for system in systems
        ),
        profiles=records("profile", TABLES[2].needs(EXPERIMENT).profile),
        reconstruction=lambda wildcards: RECONSTRUCTION,
        benchmarks=lambda wildcards: BENCHMARKS,
        trained=weight_files(figure_needs("fig3", EXPERIMENT).curves),
        data=[
            *sorted(map(str, Path("varient/paper").glob("*.csv"))),
            "varient/cost/gpus.yaml",
            "varient/paper/published.yaml",
            "varient/paper/released.yaml",
        ],
        code=stage_sources("varient.claims"),
    output:
        csv=report(
            f"{RESULTS}/claims.csv",
            caption="../report/claims.rst",
            category="1. Claims and verdicts",
            labels={"file": "every claim and cell"},
        ),
        md=f"{RESULTS}/claims.md",
        sums=f"{SUMS}/claims.sha256",
    log:
        f"runs/{EXPERIMENT.name}/logs/claims.log",
    conda:
        ENVIRONMENT
    params:
        config=config_file,
        settings=EXPERIMENT.digest(),
        scores=lambda wildcards, input: repeated("--score", input.scores),
        losses=lambda wildcards, input: repeated("--held-out", input.losses),
        profiles=lambda wildcards, input: repeated("--profile", input.profiles),
        reconstruction=lambda wildcards, input: repeated(
            "--reconstruction", input.reconstruction
        ),
        benchmarks=lambda wildcards, input: repeated("--benchmark", input.benchmarks),
        run_dir=lambda wildcards: f"runs/{EXPERIMENT.name}",
        stem=lambda wildcards, output: output.csv.removesuffix(".csv"),
    shell:
        "python -m varient claims --config {params.config:q} {params.scores:q} {params.losses:q} {params.profiles:q}"
        " {params.reconstruction:q} {params.benchmarks:q} --run-dir {params.run_dir:q} --output {params.stem:q} > {log:q} 2>&1"
        " && sha256sum {output.csv:q} {output.md:q} > {output.sums:q}"
