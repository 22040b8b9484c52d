"""Documents to token ids, and token ids to files. Knows nothing of training."""
