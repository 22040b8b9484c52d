"""What a model says after a prompt: by real transformers, with models small enough to make in a moment."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bytewise import END_OF_TEXT, byte_tokenizer
from repositories import Repo
from treering import learning, opening, operations
from treering.cli.main import main
from treering.errors import ModelError, UsageError
from treering.lm.export import REPORT, write_model
from treering.lm.generate import generate, tellable
from treering.report import Reporter
from treering.types import Generated, Sampling

GREEDY = Sampling(max_tokens=12, temperature=0)


def make_model(folder: Path, says: str | None = None, *, chat: bool = False, reads: int = 64) -> Path:
    """A GPT-2 of bytes that reads 64 of them, or as many as are given. With ``says``, it goes on from each byte with
    the next one of that text, where each byte stands once, and after its last with an end-of-text, or a chat's end; a
    ``?`` is half as likely. Else it is random.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = byte_tokenizer(control=(END_OF_TEXT, "<|im_end|>"))
    torch.manual_seed(3)
    width = tokenizer.vocab_size if says else 16
    config = GPT2Config(
        vocab_size=tokenizer.vocab_size, n_positions=reads, n_embd=width, n_layer=1, n_head=1,
        tie_word_embeddings=False, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model: Any = GPT2LMHeadModel(config)
    if says:
        ids = [*tokenizer.encode([says])[0], tokenizer.eos_id + chat]
        assert len(set(ids)) == len(ids)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
            model.transformer.ln_f.weight.fill_(1)
            model.transformer.wte.weight.copy_(torch.eye(width))
            for one, following in pairwise(ids):
                model.lm_head.weight[following, one] = 1
                model.lm_head.weight[tokenizer.encode(["?"])[0][0], one] = 0.5
    folder.mkdir(parents=True)
    write_model(folder, model, tokenizer.eos_id, {"strategy": "semantic", "repo": "project"})
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def random(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "random")


@pytest.fixture(scope="module")
def parrot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "parrot", says="a grö\x1b[日x")


def said(folder: Path, prompt: str, sampling: Sampling = GREEDY, count: int = 1) -> list[Generated]:
    return list(generate(folder, prompt, sampling, count=count))


def test_a_seed_decides_the_text_and_each_of_several_has_its_own(random: Path) -> None:
    sampling = Sampling(max_tokens=8, temperature=1.5, seed=5)
    one, two, three = said(random, "<COMMIT>", sampling, count=3)
    assert said(random, "<COMMIT>", sampling) == [one]
    assert said(random, "<COMMIT>", Sampling(max_tokens=8, temperature=1.5, seed=6)) == [two]
    assert len({one.text, two.text, three.text}) == 3
    assert [text.seed for text in (one, two, three)] == [5, 6, 7]
    assert {text.ended_by for text in (one, two, three)} == {"length"}


def test_only_the_likeliest_is_taken_where_top_k_or_top_p_leaves_no_other(random: Path) -> None:
    greedy = said(random, "x")[0].text
    hot: dict[str, Any] = {"max_tokens": 12, "temperature": 5.0}
    assert said(random, "x", Sampling(**hot, top_k=1))[0].text == greedy
    assert said(random, "x", Sampling(**hot, top_p=1e-6))[0].text == greedy
    assert said(random, "x", Sampling(**hot, top_k=0, top_p=1.0))[0].text != greedy


def test_a_penalty_keeps_a_model_from_saying_again_what_was_said(parrot: Path) -> None:
    two = Sampling(max_tokens=2, temperature=0)
    assert said(parrot, "ga", two)[0].text == " g"
    assert said(parrot, "ga", Sampling(max_tokens=2, temperature=0, repetition_penalty=3.0))[0].text == " ?"


def test_an_end_of_text_ends_it_and_is_not_shown(parrot: Path) -> None:
    (one,) = said(parrot, "a", Sampling(max_tokens=40, temperature=0))
    assert one.text == " grö\x1b[日x"
    assert one.ended_by == "end"
    assert one.tokens == len(" grö\x1b[日x".encode()) + 1


def test_another_control_token_of_the_base_model_ends_it_too(tmp_path: Path) -> None:
    (one,) = said(make_model(tmp_path / "chat", says="abc", chat=True), "a")
    assert (one.text, one.ended_by, one.tokens) == ("bc", "end", 3)


def test_the_text_is_told_as_it_is_made_in_whole_characters(parrot: Path) -> None:
    pieces: list[str] = []
    (one,) = generate(parrot, "a", Sampling(max_tokens=40, temperature=0), tell=pieces.append)
    assert pieces == ["a", *one.text]


def test_a_character_that_the_end_cuts_is_told_as_such(parrot: Path) -> None:
    (one,) = said(parrot, "a", Sampling(max_tokens=4, temperature=0))
    assert (one.text, one.ended_by) == (" gr\ufffd", "length")


@pytest.mark.parametrize(
    ("stops", "text", "ended_by"),
    [
        (("ö",), " gr", "stop"),
        (("ö\x1b", "r"), " g", "stop"),
        (("öQ",), " grö\x1b[日x", "end"),
        ((" g",), "", "stop"),
    ],
)
def test_a_stop_text_ends_the_text_before_it(parrot: Path, stops: tuple[str, ...], text: str, ended_by: str) -> None:
    pieces: list[str] = []
    sampling = Sampling(max_tokens=40, temperature=0, stop=stops)
    (one,) = generate(parrot, "a", sampling, tell=pieces.append)
    assert (one.text, one.ended_by) == (text, ended_by)
    assert "".join(pieces) == "a" + text


def test_what_may_begin_a_stop_text_waits() -> None:
    assert tellable("abc", ("cd",)) == (2, False)
    assert tellable("abcd", ("cd", "bc")) == (1, True)
    assert tellable("abc", ("xabc",)) == (3, False)
    assert tellable("aba", ("abab",)) == (0, False)
    assert tellable("ab\ufffd", ()) == (2, False)
    assert tellable("", ("x",)) == (0, False)


def test_what_looks_like_an_end_of_text_in_a_prompt_is_text(random: Path) -> None:
    asked = "<|endoftext|>"
    longest = 64 - len(asked)
    (one,) = said(random, asked, Sampling(max_tokens=100, temperature=0))
    assert one.tokens == longest


def test_no_prompt_begins_a_document(random: Path) -> None:
    pieces: list[str] = []
    (one,) = generate(random, "", GREEDY, tell=pieces.append)
    assert pieces[0] == ""
    assert one.tokens == 12


def test_a_prompt_longer_than_the_model_reads_is_refused(random: Path) -> None:
    with pytest.raises(UsageError, match="the prompt has 64 tokens and the model reads 64"):
        said(random, "x" * 64)
    assert said(random, "x" * 63)[0].tokens == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0}, {"temperature": 1e-30}, {"temperature": float("nan")}, {"top_p": 0.0}, {"top_p": 1.5},
        {"top_k": -1}, {"repetition_penalty": 0.0}, {"repetition_penalty": float("nan")}, {"stop": ("",)},
        {"max_tokens": 0}, {"seed": -1}, {"seed": 2**32},
    ],
)  # fmt: skip
def test_an_option_that_cannot_be_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"^{next(iter(wrong))} cannot be"):
        Sampling(**wrong)


def test_a_prompt_that_is_no_text_is_refused(random: Path) -> None:
    with pytest.raises(UsageError, match="no UTF-8"):
        said(random, "\udce9")


def test_a_folder_without_a_model_or_with_a_torn_one_is_told(tmp_path: Path, random: Path) -> None:
    with pytest.raises(ModelError, match="there is no model"):
        said(tmp_path, "x")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((random / name).read_bytes())
    with pytest.raises(ModelError, match="cannot be loaded"):
        said(tmp_path, "x")
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match="cannot be loaded"):
        said(tmp_path, "x")


# of a repository -------------------------------------------------------------------------------------------------


@pytest.fixture
def learned(repo: Repo, parrot: Path, random: Path) -> Repo:
    """A repository whose store holds two models; the parrot is the current one."""
    repo.commit("one")
    operations.scrape(opening.place(repo.path), Reporter())
    models = repo.path / ".treering" / "models"
    for source, name in ((parrot, "ab12"), (random, "ab34")):
        folder = models / "project-git-model" / name
        folder.mkdir(parents=True)
        for file in source.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    (models / "current").write_text("project-git-model/ab12\n")
    return repo


def test_a_repository_without_a_model_cannot_generate(repo: Repo) -> None:
    repo.commit("one")
    operations.scrape(opening.place(repo.path), Reporter())
    with pytest.raises(ModelError, match="no trained model yet") as caught:
        learning.generate(opening.place(repo.path), "x", GREEDY, Reporter())
    assert "treering train" in caught.value.hint


def test_another_model_is_named_by_its_fingerprint_or_its_folder(learned: Repo, random: Path) -> None:
    where = opening.place(learned.path)

    def text(model: str | None) -> str:
        (one,) = learning.generate(where, "a", GREEDY, Reporter(), model=model)
        return one.text

    assert text(None) == text("ab12") != text("ab34") == text("ab3") == text(str(random))
    for name, problem in (("ab", "not one model"), ("ff", "no model")):
        with pytest.raises(UsageError, match=problem) as caught:
            text(name)
        assert {"ab12", "ab34"} <= set(caught.value.hint.replace(",", "").split())


def test_a_message_is_begun_as_the_model_was_told_messages(learned: Repo) -> None:
    where = opening.place(learned.path)
    pieces: list[str] = []
    list(learning.generate(where, "", GREEDY, Reporter(), message="Fix", tell=pieces.append))
    assert pieces[0] == "<MESSAGE> Fix"
    flat = learned.path / ".treering" / "models" / "project-git-model" / "ab12" / REPORT
    flat.write_text(json.dumps({"strategy": "flat"}))
    pieces.clear()
    list(learning.generate(where, "", GREEDY, Reporter(), message="Fix", tell=pieces.append))
    assert pieces[0] == "Fix"
    with pytest.raises(UsageError, match="two beginnings"):
        learning.generate(where, "x", GREEDY, Reporter(), message="Fix")
    flat.unlink()
    with pytest.raises(UsageError, match="does not say how"):
        learning.generate(where, "", GREEDY, Reporter(), message="Fix", model=str(flat.parent))


def treering(repo: Repo, *arguments: str) -> str:
    done = CliRunner().invoke(main, [*arguments, "--repo", str(repo.path)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_prints_the_texts_and_nothing_that_drives_a_terminal(learned: Repo) -> None:
    shown = treering(learned, "generate", "a", "--temperature", "0", "--count", "2", "--no-gpu")
    assert shown == "a grö\\x1b[日x\n---\na grö\\x1b[日x\n"
    made = json.loads(treering(learned, "generate", "a", "--temperature", "0", "--stop", "[", "--json"))
    assert made == {
        "prompt": "a",
        "text": "a grö\x1b",
        "completions": [{"text": " grö\x1b", "tokens": 7, "seed": 7, "ended_by": "stop", "prompt_tokens": 1}],
    }
