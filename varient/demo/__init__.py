"""Two plans of one network side by side: what they draw, keep and cost.

`engine` draws, and `costs` counts and predicts.  `page` writes both into a page that needs no server; on the live page
`state` says what is shown, `live` shows it, and `app` is the only module that knows Gradio.
"""
