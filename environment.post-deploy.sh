# Snakemake runs this once in the environment that it builds from environment.yml (`--sdm conda`): the project itself, whose
# families of systems are found by the entry points of an installed package.
python -m pip install --quiet --no-deps --editable .
