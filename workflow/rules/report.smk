rule opening:
    """What holds, what does not, what is open: the first page of the report and the five minutes behind it."""
    input:
        config=ancient(f"runs/{EXPERIMENT.name}/config.json"),
        claims=f"{RESULTS}/claims.csv",
        table2=f"{RESULTS}/table2.csv",
        code=stage_sources("varient.report.opening"),
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
        "../../environment.yml"
    shell:
        "python -m varient opening {input.claims} {input.table2} --output {output.page} --summary {output.summary}"
        " > {log} 2>&1"


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
    localrule: True  # it reads what Snakemake knows of the jobs, which belongs to the machine that runs the workflow
    conda:
        "../../environment.yml"
    params:
        config=CONFIG,
    shell:
        "snakemake --nolock --cores 1 --report {output} --report-stylesheet {input.style}"
        " --configfile {params.config} -- results > {log} 2>&1"
