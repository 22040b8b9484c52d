"""What the legs say of a query's candidates, made one score. Not rank fusion: with equal weights it lost to plain BM25.

The weights are learned by benchmarks/learn_weights.py; weights.json says from what.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from treering.search.history import Mask, Numbers, Scores


@dataclass(frozen=True, slots=True)
class Weights:
    """What each part counts beside the text's 1; ``code`` beside the message's vector, ``diff`` if no message of the
    history said anything.
    """

    own: float
    dense: float
    code: float
    coverage: float
    literal: float
    diff: float


MANY = 0.2
"""So large a part of the messages says nothing where the diffs of such commits speak for them in full."""

LEARNED = Weights(**json.loads(Path(__file__).with_name("weights.json").read_text("utf-8"))["weights"])


@dataclass(frozen=True, slots=True)
class Legs:
    """One query over its candidates: parallel arrays of z-scores over ``numbers``. Without vectors ``message`` and
    ``code`` are zero.

    ``text`` is BM25 of the commit read as one text, ``own`` of its message alone, ``coverage`` and ``literal`` how much
    of the query's words and of its code a commit holds, ``diff`` the sum of everything but the message.
    ``silent`` are the commits whose message says nothing, and ``share`` is how large a part of the history they are.
    ``meant`` is how well a commit's diff answers among those of its own ``repository``, and ``own_share`` how large a
    part of that such commits are.
    """

    numbers: Numbers
    text: Scores
    own: Scores
    message: Scores
    code: Scores
    coverage: Scores
    literal: Scores
    diff: Scores
    silent: Mask
    meant: Scores
    share: float
    repository: Numbers
    own_share: Scores


def fused(legs: Legs, weights: Weights) -> Scores:
    """One score for each candidate. What the diff says counts the more, the more messages there are that say nothing;
    and such a message does not speak against its commit, where they are many: the few of a tidy history are a robot's.
    Of several repositories it stands as high among its own candidates as its diff does: one that has many of them and
    no answer puts none before the answer of another.
    """
    scores = legs.text + weights.own * legs.own + weights.dense * (legs.message + weights.code * legs.code)
    scores += weights.coverage * legs.coverage + weights.literal * legs.literal
    scores += weights.diff * legs.share**2 * legs.diff
    meant = np.minimum(1.0, legs.own_share / MANY) * legs.meant
    for own in with_silent(legs.repository, legs.silent):
        raised = scores[own].mean() + scores[own].std() * meant[own]
        scores[own] = np.where(legs.silent[own], np.maximum(scores[own], raised), scores[own])
    return scores


def with_silent(repository: Numbers, silent: Mask) -> Iterator[Mask]:
    """The candidates of each repository that has some whose message says nothing."""
    for place in np.unique(repository[silent]):
        yield repository == place


def z_scores(scores: Scores) -> Scores:
    """Distance from the mean in standard deviations; zero where all are equal."""
    deviation = scores.std() if len(scores) else 0.0
    if not len(scores) or deviation <= 1e-12 * np.abs(scores).max():
        return np.zeros_like(scores)
    return np.asarray((scores - scores.mean()) / deviation, dtype=np.float64)
