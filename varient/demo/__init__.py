"""Two plans of one network side by side: what they draw, keep and cost.

`engine` draws, `costs` counts and predicts, and `page` writes both into a page that needs no server.
"""
