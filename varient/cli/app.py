"""The command groups, in the order in which `--help` shows them."""

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="Benchmark and reproduction harness for VARiant.")
train = typer.Typer(no_args_is_help=True, help="Train one of the networks of an experiment, or import it.")

ASK, MAKE = "Ask", "Stages of the workflow"
"""Panels of `--help`: commands for users, and commands that the rules of the workflow call."""

app.add_typer(train, name="train", rich_help_panel=MAKE)
