rule opening:
    """The first page of the report, and its summary of the verdicts."""
    input:
        claims=f"{RESULTS}/claims.csv",
        table2=f"{RESULTS}/table2.csv",
        figure=f"{FIGURES}/quality-cost.png",
        sums=expand(
            f"{SUMS}/{{name}}.sha256", name=["claims", "table2", "quality-cost"]
        ),
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
        sums=f"{SUMS}/summary.sha256",
    log:
        f"runs/{EXPERIMENT.name}/logs/opening.log",
    conda:
        ENVIRONMENT
    shell:
        "sha256sum --check --quiet {input.sums:q} > {log:q} 2>&1"
        " || (echo 'changed since it was made: delete it, and it is made again' >> {log:q} && false)"
        " && python -m varient opening {input.claims:q} {input.table2:q} {input.figure:q} --output {output.page:q} --summary {output.summary:q}"
        " >> {log:q} 2>&1 && sha256sum {output.summary:q} > {output.sums:q}"


if IS_DEFAULT:

    rule demo_page:
        """Two plans side by side, as a page without a server: the shipped networks' pictures, caches and costs."""
        input:
            code=stage_sources("varient.demo.page"),
            templates=sorted(map(str, Path("varient/demo/templates").iterdir())),
        output:
            DEMO,
        log:
            f"runs/{EXPERIMENT.name}/logs/demo_page.log",
        conda:
            ENVIRONMENT
        shell:
            'python -m varient demo --static "$(dirname {output:q})" --device cpu > {log:q} 2>&1'


rule report_page:
    """Snakemake's own report over all results.  It runs inside this workflow, which holds the lock."""
    input:
        RESULT_FILES,
        sums=RESULT_SUMS,
        captions=sorted(map(str, Path("workflow/report").glob("*.rst"))),
        style="workflow/report/style.css",
        docutils="workflow/report/docutils.conf",
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
        "sha256sum --check --quiet {input.sums:q} > {log:q} 2>&1"
        " || (echo 'changed since it was made: delete it, and it is made again' >> {log:q} && false)"
        " && DOCUTILSCONFIG={input.docutils:q} python -m snakemake --nolock --cores 1 --report {output:q} --report-stylesheet {input.style:q}"
        " --configfile {params.config:q} -- results >> {log:q} 2>&1"
