"""Scores of several legs made one. Not rank fusion: with equal weights it lost to plain BM25."""

import numpy as np

from treering.search.history import Scores


def z_scores(scores: Scores) -> Scores:
    """Distance from the mean in standard deviations; zero where all are equal."""
    deviation = scores.std() if len(scores) else 0.0
    if not len(scores) or deviation <= 1e-12 * np.abs(scores).max():
        return np.zeros_like(scores)
    return np.asarray((scores - scores.mean()) / deviation, dtype=np.float64)
