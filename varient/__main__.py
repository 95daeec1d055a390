"""`python -m varient` is the `varient` command."""

from varient.cli import app

app()
