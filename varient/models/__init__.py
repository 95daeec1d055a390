"""The networks: image tokenizer, transformer, its KV cache, and the layouts of released checkpoints."""
