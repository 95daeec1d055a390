"""The live page: controls on a page of Gradio's, and what they show drawn at every change.

It answers on this machine alone.  One request is worked on at a time; others wait.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from varient.cost.gpus import known_devices
from varient.cost.kv_accounting import POLICIES
from varient.demo.live import Live, draw_caches
from varient.demo.state import SELECTIONS, SIDES, WrongValues, begin, read, stored_bits
from varient.markdown import table
from varient.report.style import styled

HOST = "127.0.0.1"
_COMMON = ("class", "seed", "images", "temperature", "top-k", "top-p", "guidance")
_NAMES = ("first plan", "second plan")
_STYLE = "#numbers td + td { white-space: nowrap }  #numbers td, #numbers th { padding: 4px 8px }"


def build(live: Live) -> gr.Blocks:
    """The page, with a control for each value that `varient.demo.state.read` wants."""
    engine, start = live.engine, begin(live.engine.config, live.engine.trained_depth or 2)
    controls: dict[str, gr.components.Component] = {}
    problems: dict[str, gr.Markdown] = {}

    def control(name: str, label: str, choices: list[Any] | None = None) -> None:
        with gr.Column(min_width=120):
            known = {"value": start[name], "label": label, "elem_id": name.replace(" ", "-")}
            controls[name] = gr.Number(**known) if choices is None else gr.Dropdown(choices, **known)
            problems[name] = gr.Markdown(visible=False, elem_id=f"{name.replace(' ', '-')}-problem")

    with gr.Blocks(title="One network, two plans", analytics_enabled=False) as page:
        gr.Markdown(f"# One network, two plans\n`{engine.name}` of {engine.config.name}, loaded once: a plan switches "
                    "neither weights nor files.")
        with gr.Row():
            for name in _COMMON:
                control(name, name)
        grids, grown = [], []
        with gr.Row():
            for side, title in zip(SIDES, _NAMES, strict=True):
                with gr.Column():
                    gr.Markdown(f"## {title.capitalize()}")
                    with gr.Row():
                        control(f"{side} d", "d")
                        control(f"{side} N", "N")
                    with gr.Row():
                        control(f"{side} layers", "layers", list(SELECTIONS))
                        control(f"{side} window", "scales seen before (0: all)")
                    with gr.Row():
                        control(f"{side} bits", "bits (0: as computed)", stored_bits(engine.config))
                        control(f"{side} cache", "cache", list(POLICIES))
                    grids.append(_picture(f"{side}-grid"))
                    gr.Markdown("The first one after each scale; frames mark scales with all layers:")
                    grown.append(_picture(f"{side}-grown"))
        said = gr.Markdown(elem_id="differ")
        gpu = gr.Dropdown([(device.name, key) for key, device in known_devices().items()], value="l20",
                          label="GPU of the predictions", elem_id="gpu")
        gr.Markdown("KV cache within each scale:")
        curve = gr.Plot(show_label=False, buttons=[], elem_id="curve")
        numbers = gr.Markdown(elem_id="numbers")

        def show(*values: Any) -> list[Any]:
            """New contents of all problems, and of what is shown; where a value is wrong that stays as it is."""
            shown_outputs = len(grids) + len(grown) + 3
            try:
                state = read(dict(zip(controls, values[:-1], strict=True)), engine.config)
            except WrongValues as error:
                told = [gr.update(value=f"**{error.problems[name]}**" if name in error.problems else "",
                                  visible=name in error.problems) for name in controls]
                return [*told, *(gr.skip() for _ in range(shown_outputs))]
            shown = live.show(state, values[-1])
            with styled():
                figure = draw_caches(shown.caches, _NAMES)
            return [*(gr.update(value="", visible=False) for _ in controls), *shown.grids, *shown.grown,
                    f"{shown.differing} of {state.count} images differ (framed).", figure,
                    table(("", *_NAMES), shown.rows)]

        inputs = [*controls.values(), gpu]
        gr.on([page.load, *(component.change for component in inputs)], show, inputs,
              [*problems.values(), *grids, *grown, said, curve, numbers], trigger_mode="always_last")
    return page


def _picture(name: str) -> gr.Image:
    return gr.Image(show_label=False, buttons=[], interactive=False, format="png", elem_id=name)


def launch(live: Live, port: int | None = None, *, wait: bool = True) -> gr.Blocks:
    """Show the page on this machine.

    Args:
        port: None: the first free one of Gradio's.
        wait: until it is interrupted; else it is answered by a thread.

    Raises:
        OSError: the port is taken.
    """
    page = build(live).queue(default_concurrency_limit=1)
    page.launch(server_name=HOST, server_port=port, share=False, ssr_mode=False, footer_links=[], quiet=True,
                theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
                css=_STYLE, prevent_thread_lock=True)
    print(f"the page is at {page.local_url}; Ctrl-C ends it", flush=True)
    if wait:
        page.block_thread()
    return page
