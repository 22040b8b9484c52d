"""index and model → proposals: what a change is called, how its message goes on, which files come next.

What is evaluated is made here, and so is what answers a user: the figures are of the answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from treering.lm.completion import END, Chances, Completer, Draft, Weights, joined, mixed
from treering.lm.scorer import Scorer
from treering.search.benchmark import cleaned
from treering.search.commits import Finder
from treering.search.fusion import z_scores
from treering.search.history import Mask, Scores
from treering.search.upcoming import plain
from treering.text.document import best_names
from treering.text.words import identifiers, plain_words
from treering.types import Features

NEAR = 8
"""How many of the nearest commits are asked for their words."""
SHOWN, SHOWN_PATHS = 4, 4
"""How many of them are shown to a model, and how many paths of each."""
SUBJECT = 120
"""Characters of a subject that count."""
LONGEST = 16
"""Words of a subject that are written."""
READ = 10_000
"""How many of the newest messages are counted."""
TOKENS = 20
"""How many tokens a model writes."""
OTHERS = 60
"""How many more names that it adds a message may hold."""
RANKED = 15
"""How many files a model is asked about."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """How what finishes a message is weighed: ``without`` a model, and ``beside`` one (empty: none is asked)."""

    without: Weights
    beside: Weights


USUAL = Mixture({"first": (0.45, 0.2, 0.25, 0.1), "other": (0.5, 0.15, 0.15, 0.2)}, {})
"""Where nothing was evaluated: about what was fitted on three repositories."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is known of a commit before it has a message. ``others`` are names and words of what it adds."""

    paths: tuple[str, ...]
    functions: tuple[str, ...]
    names: tuple[str, ...]
    others: tuple[str, ...] = ()

    @property
    def query(self) -> str:
        return " ".join((*self.paths[:NEAR], *self.names, *self.functions[:SHOWN_PATHS]))

    @property
    def words(self) -> list[str]:
        """The names in it that a message may hold: of files, folders, functions, and those that it adds."""
        found: list[str] = []
        for path in self.paths[: NEAR * SHOWN_PATHS]:
            *folders, name = path.split("/")
            found += [name, _stem(path), *folders, *plain_words(_stem(path))]
        inside = (name for function in self.functions for name in identifiers(function))
        return [name for name in (*found, *self.names, *inside, *self.others) if name]


def change_of(said: Features) -> Change:
    often = sorted(said.identifiers, key=lambda name: -said.identifiers[name])[:OTHERS]
    prose = (word.strip(".,:;()") for word in said.prose[: OTHERS * NEAR].split())
    return Change(said.paths, said.functions, tuple(best_names(said)), (*often, *prose))


class Proposer:
    """An open index that proposes, and a model that may have a say. ``subject`` is asked by the number of a commit."""

    def __init__(self, finder: Finder, scorer: Scorer | None = None) -> None:
        self.finder = finder
        self.history = finder.history
        self.scorer = scorer
        self._completer = Completer()
        self._read = max(0, len(self.history) - READ)
        self._begins: dict[str, int] = {}

    def subject(self, number: int) -> str:
        message = self.history.store.message(int(self.history.ids[number]))
        return " ".join(message.partition("\n")[0].split())[:SUBJECT]

    def paths(self, number: int) -> tuple[str, ...]:
        ((_, said),) = self.history.store.features([int(self.history.ids[number])])
        return said.paths

    def read_to(self, number: int) -> None:
        """Count the messages of all commits before one; later ones are not known."""
        for known in range(self._read, number):
            if not self.history.merges[known] and (subject := self.subject(known)):
                self._completer.read(subject)
        self._read = max(self._read, number)

    def nearest(self, change: Change, mask: Mask) -> list[int]:
        """The commits of ``mask`` that did most nearly the same and whose message says something, nearest first."""
        if not change.query.strip() or not mask.any():
            return []
        through = ~self.history.merges & ~self.history.empty(mask)
        found: list[int] = self.finder.ask(change.query, mask=mask, through=through).numbers[:NEAR].tolist()
        return found

    # messages ----------------------------------------------------------------------------------------------------

    def prompt(self, change: Change, near: Sequence[int]) -> str:
        """The nearest commits, the nearest last, and the change up to its message."""
        told = [_told(self.paths(number), self.subject(number)) for number in near[:SHOWN][::-1]]
        return "".join(told) + _told(change.paths, None)

    def draft(self, change: Change, near: Sequence[int]) -> Draft:
        return self._completer.draft([self.subject(number) for number in near], change.words)

    def first_tokens(
        self, scorer: Scorer, draft: Draft, prompt: str, words: Sequence[str]
    ) -> tuple[Chances, npt.NDArray[np.int64]]:
        """A model's chances of the first tokens of a draft's words behind the first 0, 1, … of ``words``, and for each
        word of the draft where its first token is in them. All models that are asked have one vocabulary.
        """
        new = [word for word in draft.words if word not in self._begins]
        self._begins.update(zip(new, scorer.begins(new).tolist() if new else (), strict=True))
        tokens, begins = np.unique([self._begins[word] for word in draft.words], return_inverse=True)
        return scorer.first_tokens(prompt, words, tokens), begins

    def completed(self, change: Change, near: Sequence[int], begin: str, how: Mixture) -> tuple[str, list[str]]:
        """A message that begins so, finished word by word, and the likeliest five of the words that come next."""
        draft, prompt = self.draft(change, near), self.prompt(change, near)
        words, typed = begin.split(), ""
        if words and not begin[-1].isspace():
            typed = words.pop()
        likeliest: list[str] = []
        for _ in range(max(1, LONGEST - len(words))):
            chances = self._next(draft, prompt, words, how)
            fitting = [place for place, word in enumerate(draft.words) if word.startswith(typed)]
            best = [draft.words[place] for place in sorted(fitting, key=lambda place: -chances[place])[:6]]
            if not likeliest:  # who asks how it goes on wants a word
                best = likeliest = [word for word in best if word != END][:5]
            if not best or best[0] == END:
                break
            words.append(best[0])
            typed = ""
        return " ".join((*words, typed)).strip(), likeliest

    def _next(self, draft: Draft, prompt: str, words: Sequence[str], how: Mixture) -> Chances:
        sources, first = draft.chances(words), not words
        without = mixed(sources, how.without, first=first)
        if self.scorer is None or not how.beside:
            return without
        model, begins = self.first_tokens(self.scorer, draft, prompt, words)
        return mixed(np.vstack([sources, joined(model[-1], begins, without)]), how.beside, first=first)

    def adapted(self, change: Change, near: Sequence[int]) -> str:
        """The message of the nearest commit, without its numbers, and about the file that this change is of."""
        if not near:
            return ""
        said = cleaned(self.subject(near[0])) or self.subject(near[0])
        ours = [_stem(path) for path in change.paths]
        theirs = dict.fromkeys(_stem(path) for path in self.paths(near[0]))
        named = [word for word in theirs if len(word) > 3 and word in said and word not in ours]
        return said.replace(named[0], ours[0]) if len(named) == 1 and ours else said

    def written(self, prompts: Sequence[str]) -> list[str]:
        """What a model writes for each change."""
        return self.scorer.written(prompts, TOKENS) if self.scorer else []

    # files -------------------------------------------------------------------------------------------------------

    def of_message(self, message: str, mask: Mask) -> str:
        """What stands before the paths of a commit with this message: the commits whose words are nearest, and it."""
        through = ~self.history.merges & ~self.history.empty(mask)
        near = self.finder.ask(message, mask=mask, through=through).numbers[:SHOWN].tolist()
        return "".join(map(self._said, near[::-1])) + f"<MESSAGE> {message[:SUBJECT]}\n<PATH>"

    def of_last(self, mask: Mask) -> str:
        """What stands before the paths of the next commit: the last ones."""
        return "".join(map(self._said, plain(self.history, mask)[-SHOWN:])) + "<PATH>"

    def _said(self, number: int) -> str:
        """A commit with its message first, as models learn it."""
        lines = [f"<PATH> {path}\n" for path in self.paths(number)[:SHOWN_PATHS]]
        return f"<MESSAGE> {self.subject(number)}\n" + "".join(lines)

    def opinion(self, context: str, files: Mapping[str, float]) -> "Opinion":
        """What a model that is there says of the first :data:`RANKED` files behind a context."""
        order = sorted(files, key=lambda path: -files[path])
        head = order[:RANKED]
        given = z_scores(np.log(np.maximum([files[path] for path in head], 1e-9)))
        likely = np.zeros(len(head))
        if self.scorer and len(head) > 1:
            likely = z_scores(self.scorer.chances(context, [f" {path}\n" for path in head]))
        return Opinion(order, given, likely)


@dataclass(frozen=True, slots=True)
class Opinion:
    """Files by what needs no model, best first, and of the first of them two z-scores: of the logarithm of what they
    were given, and of how likely a model takes them.
    """

    order: list[str]
    given: Scores
    likely: Scores

    def ranked(self, weight: float) -> list[str]:
        """The files by the sum of both, the model's times ``weight``. Those without an opinion stay behind."""
        places = np.argsort(-(self.given + weight * self.likely), kind="stable").tolist()
        return [self.order[place] for place in places] + self.order[len(places) :]


def _told(paths: Sequence[str], subject: str | None) -> str:
    """A commit as a model is shown it: paths, then the message; without one, up to where it begins."""
    lines = [f"<PATH> {path}\n" for path in paths[:SHOWN_PATHS]]
    return "".join(lines) + ("<MESSAGE>" if subject is None else f"<MESSAGE> {subject}\n\n")


def _stem(path: str) -> str:
    name = path.rpartition("/")[2]
    return name.rpartition(".")[0] or name
