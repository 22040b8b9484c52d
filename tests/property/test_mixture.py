"""A mixture says what its parts say: every document as its shard has it, in its order, as often as it weighs."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from treering.errors import DataError
from treering.lm.data import HOLD_OUT_DOCUMENTS, Stream, split
from treering.pipeline.mixture import Said, Shard, mixed, said_of
from treering.types import Corpus, FilePatch, Span

EOS = 9


def shard(name: str, sizes: list[int], patches: list[int], weight: float = 1.0, *, eos: int = EOS) -> Shard:
    """A stream whose tokens tell which document of which repository they are of."""
    first = sum(map(ord, name)) % 50
    rows = [[1000 * first + number] * size + [eos] for number, size in enumerate(sizes)]
    ids = np.array([token for row in rows for token in row], np.uint32)
    spans = tuple(Span(f"{name}{number}", size, size) for number, size in enumerate(sizes))
    corpus = Corpus(1 << 20, 1, len(ids), 8, name, "semantic", "t", "f", (), eos, spans, sha256=name)
    said = {f"{name}{one}": Said(f"p{patch}" if patch else "") for one, patch in enumerate(patches)}
    return Shard(name, corpus, ids, said, weight)


SIZES = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 12)), min_size=1, max_size=30)


@given(st.lists(SIZES, min_size=1, max_size=4), st.integers(0, 99))
def test_every_document_is_read_as_its_shard_has_it(histories: list[list[tuple[int, int]]], seed: int) -> None:
    shards = [
        shard(chr(97 + one), [size for size, _ in told], [patch for _, patch in told])
        for one, told in enumerate(histories)
    ]
    corpus, ids, shares = mixed(shards, "all", seed)
    of = {span.commit_hash: (one, number) for one in shards for number, span in enumerate(one.corpus.documents)}
    assert Counter(span.commit_hash for span in corpus.documents) == Counter(of.keys())
    start = 0
    for span in corpus.documents:
        one, number = of[span.commit_hash]
        place = sum(before.tokens + 1 for before in one.corpus.documents[:number])
        assert ids[start : start + span.tokens + 1].tolist() == one.ids[place : place + span.tokens + 1].tolist()
        start += span.tokens + 1
    assert len(ids) == start == corpus.total_tokens
    for one in shards:
        mine = [of[span.commit_hash][1] for span in corpus.documents if of[span.commit_hash][0] is one]
        assert mine == sorted(mine), "a history keeps its order"
    told = [span.commit_hash for span in corpus.documents if not span.duplicate_of]
    patches = [of[name][0].said[name].patch for name in told]
    assert max(Counter(filter(None, patches)).values(), default=1) == 1, "what repeats is told once"
    assert sum(one.documents + one.repeats for one in shares) == len(corpus.documents)


@given(st.lists(SIZES, min_size=2, max_size=4), st.integers(0, 99))
def test_the_parts_in_another_order_are_the_same_mixture(histories: list[list[tuple[int, int]]], seed: int) -> None:
    shards = [shard(chr(97 + one), [size for size, _ in told], [0] * len(told)) for one, told in enumerate(histories)]
    corpus, ids, _ = mixed(shards, "all", seed)
    again = mixed(shards, "all", seed)
    assert (corpus, ids[: corpus.documents[0].tokens].tolist()) == (
        again[0], again[1][: corpus.documents[0].tokens].tolist(),
    )  # fmt: skip


def test_a_weight_says_how_often_a_document_comes_but_not_of_the_newest() -> None:
    light, heavy = shard("a", [3] * 200, [0] * 200, 0.5), shard("b", [3] * 200, [0] * 200, 2.0)
    corpus, _, shares = mixed([light, heavy], "all", 7)
    often = Counter(span.commit_hash for span in corpus.documents)
    older = range(200 - HOLD_OUT_DOCUMENTS // 2)
    assert {often[f"b{number}"] for number in older} == {2}
    assert 0.35 < sum(often[f"a{number}"] for number in older) / len(older) < 0.65
    newest = range(200 - HOLD_OUT_DOCUMENTS // 2, 200)
    assert {often[f"{name}{number}"] for name in "ab" for number in newest} == {1}
    assert shares[0].tokens < shares[1].tokens


HISTORIES = st.lists(
    st.tuples(st.sampled_from([0.05, 0.5, 1.0, 1.5, 2.0]), st.integers(1, 150)), min_size=2, max_size=4
)


@settings(deadline=None)
@given(HISTORIES, st.integers(1, 300), st.integers(0, 99))
def test_with_any_weights_what_all_have_is_told_and_the_newest_leak_nothing(
    histories: list[tuple[float, int]], patches: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    shards = [
        shard(chr(97 + one), [1] * size, random.integers(1, patches + 1, size).tolist(), weight)
        for one, (weight, size) in enumerate(histories)
    ]
    corpus, _, _ = mixed(shards, "all", seed)
    weights = {name: one.weight for one in shards for name in one.said}
    patch = {name: said.patch for one in shards for name, said in one.said.items()}
    often = Counter(span.commit_hash for span in corpus.documents if not span.duplicate_of)
    told = [patch[name] for name in often]
    assert len(told) == len(set(told)), "what repeats is told by one, and so never in the training and in the hold-out"
    assert {patch[name] for name, weight in weights.items() if weight >= 1} <= set(told)
    for place, (name, times) in enumerate(often.items()):
        newest = place >= len(often) - HOLD_OUT_DOCUMENTS
        assert times in ({1} if newest else {int(weights[name]), int(np.ceil(weights[name]))}), name


@pytest.mark.parametrize("names", ["ab", "ba"])
@pytest.mark.parametrize(("light", "heavy", "times"), [(0.05, 1.0, 1), (0.05, 2.0, 2), (1.0, 2.0, 2)])
def test_of_two_forks_each_patch_comes_as_often_as_the_heavier_one_says(
    names: str, light: float, heavy: float, times: int
) -> None:
    patches = list(range(1, 201))
    corpus, _, _ = mixed(
        [shard(name, [3] * 200, patches, weight) for name, weight in sorted(zip(names, (light, heavy), strict=True))],
        "all", 7,
    )  # fmt: skip
    often = Counter(int(span.commit_hash[1:]) for span in corpus.documents if not span.duplicate_of)
    assert often == {number: times if number < 200 - HOLD_OUT_DOCUMENTS else 1 for number in range(200)}


def test_a_file_is_told_by_who_comes_and_the_newest_say_nothing_that_was_told() -> None:
    random = np.random.default_rng(7)
    shards = []
    for name, weight in (("a", 0.3), ("b", 1.0), ("c", 2.0)):
        one = shard(name, [1] * 150, [0] * 150, weight)
        said = {commit: Said("", tuple(random.integers(1, 400, random.integers(1, 4)).tolist())) for commit in one.said}
        shards.append(dataclasses.replace(one, said=said))
    corpus, _, _ = mixed(shards, "all", 7)
    said = {commit: told for one in shards for commit, told in one.said.items()}
    learned = list(dict.fromkeys(span.commit_hash for span in corpus.documents if not span.duplicate_of))
    seen = {file for commit in learned[:-HOLD_OUT_DOCUMENTS] for file in said[commit].files}
    for commit in learned[-HOLD_OUT_DOCUMENTS:]:
        assert not said[commit].is_told(commit, seen)
        seen |= set(said[commit].files)
    assert {file for commit, told in said.items() if commit[0] != "a" for file in told.files} <= seen


def test_the_same_streams_that_say_other_things_are_another_mixture() -> None:
    one = shard("a", [3, 3], [1, 2])
    mixtures = [mixed([one, shard("b", [3, 3], patches)], "all", 7)[0] for patches in ([3, 4], [3, 4], [3, 2])]
    assert mixtures[0].sha256 == mixtures[1].sha256
    assert mixtures[0].sha256 != mixtures[2].sha256


def test_the_newest_of_every_repository_is_held_out_and_a_fork_leaks_nothing() -> None:
    one = shard("a", [4] * 100, list(range(1, 101)))
    fork = shard("b", [4] * 100, [*range(1, 91), *range(301, 311)])
    corpus, ids, shares = mixed([one, fork], "all", 7)
    data = split(corpus, ids)
    held = {*data.held_out.commits, *data.validation.commits}
    assert {name[0] for name in held} == {"a", "b"}
    learned = Stream(data.train.ids, data.train.starts, data.train.stops)
    assert len(learned) == 5 * data.train_documents
    assert shares[0].repeats + shares[1].repeats == 90
    patches = {name: said.patch for shard in (one, fork) for name, said in shard.said.items()}
    names = {span.commit_hash for span in corpus.documents if not span.duplicate_of}
    assert not {patches[name] for name in names - held} & {patches[name] for name in held}


def test_a_slice_over_two_documents_is_none() -> None:
    _, ids, _ = mixed([shard("a", [3, 3], [0, 0])], "all", 7)
    with pytest.raises(IndexError, match="more than one document"):
        ids[2:6]
    assert ids[4:4].tolist() == []


def test_streams_that_do_not_fit_are_named() -> None:
    with pytest.raises(DataError, match="the tokens of b were made otherwise than those of a"):
        mixed([shard("a", [3], [0]), shard("b", [3], [0], eos=8)], "all", 7)


def test_what_is_not_told_at_home_takes_nothing_from_others() -> None:
    one, other = shard("a", [3, 3], [1, 2]), shard("b", [3, 3], [0, 2])
    spans = (one.corpus.documents[0], replace(one.corpus.documents[1], duplicate_of="a0"))
    corpus, _, _ = mixed([dataclasses.replace(one, corpus=replace(one.corpus, documents=spans)), other], "all", 7)
    assert {span.commit_hash for span in corpus.documents if not span.duplicate_of} == {"a0", "b0", "b1"}


def test_what_was_told_elsewhere_is_not_told_again() -> None:
    corpus, _, (share,) = mixed([shard("a", [3, 3, 3], [1, 2, 0])], "all", 7, told=["p2", "a2"])
    assert [span.commit_hash for span in corpus.documents if not span.duplicate_of] == ["a0"]
    assert share.repeats == 2


def test_a_commit_whose_files_were_all_told_is_told_once() -> None:
    def files(*texts: str) -> Said:
        return said_of(None, [FilePatch(f"{number}/{text[-1]}", text) for number, text in enumerate(texts)])

    one, other = shard("a", [3] * 4, [0] * 4), shard("b", [3] * 4, [0] * 4)
    mine = [files("@@ -0,0 +1 @@\n+x"), files("@@ -0,0 +1 @@\n+y", "+z"), files(), files("+w")]
    theirs = [files("+v"), files(), files("@@ -7,0 +8 @@ def x\n+x", "+z"), files("+x", "+u")]
    one = dataclasses.replace(one, said=dict(zip(one.said, mine, strict=True)))
    other = dataclasses.replace(other, said=dict(zip(other.said, theirs, strict=True)))
    corpus, _, shares = mixed([one, other], "all", 7)
    told = {span.commit_hash for span in corpus.documents if not span.duplicate_of}
    assert told == {"a0", "a1", "a2", "a3", "b0", "b1", "b3"}, "b2 says nothing that a did not, b3 does"
    assert sum(share.repeats for share in shares) == 1


def test_a_file_that_is_known_in_part_is_another_one() -> None:
    whole, cut = said_of(None, [FilePatch("a", "+x")]), said_of(None, [FilePatch("a", "+x", 9)])
    assert whole != cut
