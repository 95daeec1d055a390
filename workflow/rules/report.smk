rule opening:
    """The first page of the report, and its summary of the verdicts."""
    input:
        claims=f"{RESULTS}/claims.csv",
        table2=f"{RESULTS}/table2.csv",
        code=stage_sources("varient.report.opening"),
        templates=sorted(map(str, Path("varient/report/templates").iterdir())),
    output:
        page=OPENING,
        summary=report(
            SUMMARY,
            caption="../report/summary.rst",
            category="1. Claims and verdicts",
            labels={"file": "summary"},
        ),
    log:
        f"runs/{EXPERIMENT.name}/logs/opening.log",
    conda:
        ENVIRONMENT
    shell:
        "python -m varient opening {input.claims:q} {input.table2:q} --output {output.page:q} --summary {output.summary:q}"
        " > {log:q} 2>&1"


rule report_page:
    """Snakemake's own report over all results.  It runs inside this workflow, which holds the lock."""
    input:
        RESULT_FILES,
        captions=sorted(map(str, Path("workflow/report").glob("*.rst"))),
        style="workflow/report/style.css",
    output:
        REPORT,
    log:
        f"runs/{EXPERIMENT.name}/logs/report_page.log",
    localrule: True  # it reads Snakemake's metadata, which is on the machine that runs the workflow
    conda:
        ENVIRONMENT
    params:
        config=config_file,
    shell:
        "python -m snakemake --nolock --cores 1 --report {output:q} --report-stylesheet {input.style:q}"
        " --configfile {params.config:q} -- results > {log:q} 2>&1"
