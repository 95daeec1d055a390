"""Training: data, the one optimisation loop, and what is trained with it, from classifier to supernet."""
