"""From a data set to trained adapters: the closed-form start, the loop, its checkpoints."""
