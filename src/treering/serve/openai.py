"""The paths of OpenAI's API that a local model and an embedder can serve, in its shapes, for its clients.

A model's id is a repository's name (its current model) or ``NAME:FINGERPRINT``. One extension: ``retrieval`` puts what
the history knows of the last question before it.
"""

import asyncio
import base64
import secrets
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from treering import learning
from treering.errors import NoStore, TreeringError, UsageError
from treering.offered import OFFERS
from treering.serve.answers import Refused, answered, body, converted, decoded, event, streamed, while_there
from treering.serve.house import House
from treering.serve.metrics import Metrics
from treering.serve.writers import Messages, Writers
from treering.types import Generated, Sampling

T = TypeVar("T")
Body = Annotated[str, Meta(max_length=1_000_000)]
Text = Annotated[str, Meta(min_length=1, max_length=1_000_000)]
Stop = Annotated[str, Meta(max_length=1000)]


class TextPart(Struct, tag_field="type", tag="text"):
    text: Body


class Message(Struct):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Body | list[TextPart] | None = None

    @property
    def text(self) -> str:
        parts = self.content or ""
        return parts if isinstance(parts, str) else "".join(part.text for part in parts)


class StreamOptions(Struct):
    include_usage: bool = False


class Retrieval(Struct, forbid_unknown_fields=True):
    budget: Annotated[int, Meta(ge=100, le=100_000, description="Tokens of the context at most.")] = 1000
    repository: str = ""


class Sampled(Struct, kw_only=True):
    """What both ways to write have in common. What would change the answer and cannot be done is refused."""

    model: Annotated[str, Meta(max_length=1000)]
    max_tokens: Annotated[int, Meta(ge=1, le=8192)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    n: Annotated[int, Meta(ge=1, le=8)] | None = None
    stop: Stop | Annotated[list[Stop], Meta(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | int | None = None

    def samplings(self, most: int, count: int = 1) -> list[Sampling]:
        for name in ("presence_penalty", "frequency_penalty", "logit_bias", "logprobs"):
            if getattr(self, name):
                raise UsageError(f"`{name}`: the local model cannot do that", "leave it out")
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        seed = secrets.randbelow(2**32) if self.seed is None else self.seed % 2**32
        return [
            Sampling(
                max_tokens=most,
                temperature=0.7 if self.temperature is None else self.temperature,
                top_p=0.95 if self.top_p is None else self.top_p,
                stop=tuple(one for one in stop if one),
                seed=(seed + number) % 2**32,
            )
            for number in range((self.n or 1) * count)
        ]

    @property
    def with_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatAsked(Sampled, kw_only=True):
    messages: Annotated[list[Message], Meta(min_length=1, max_length=1000)]
    max_completion_tokens: Annotated[int, Meta(ge=1, le=8192)] | None = None
    retrieval: Annotated[
        bool | Retrieval | None, Meta(description="Put what the history knows before the question.")
    ] = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    response_format: dict[str, Any] | None = None

    def check(self) -> None:
        if self.tools or self.functions:
            raise UsageError("`tools`: the local model calls no tools", "leave them out, or use MCP")
        if self.response_format and self.response_format.get("type") != "text":
            raise UsageError("`response_format`: the local model writes text", "leave it out")


class CompletionAsked(Sampled, kw_only=True):
    prompt: Body | Annotated[list[Body | int | list[int]], Meta(min_length=1, max_length=16)]
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None


class EmbeddingsAsked(Struct, kw_only=True):
    model: Annotated[str, Meta(max_length=1000)]
    input: Text | Annotated[list[Text | int | list[int]], Meta(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


class ModelCard(Struct):
    id: str
    created: int
    object: Literal["model"] = "model"
    owned_by: str = "treering"


class ModelList(Struct):
    data: list[ModelCard]
    object: Literal["list"] = "list"


class Usage(Struct):
    prompt_tokens: int
    total_tokens: int
    completion_tokens: int | UnsetType = UNSET


class Said(Struct):
    role: Literal["assistant"]
    content: str
    refusal: None = None


class Choice(Struct):
    index: int
    message: Said
    finish_reason: str
    logprobs: None = None


class TextChoice(Struct):
    index: int
    text: str
    finish_reason: str | None
    logprobs: None = None


class Sources(Struct):
    commits: list[str]


class Chat(Struct):
    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    object: Literal["chat.completion"] = "chat.completion"
    retrieval: Sources | UnsetType = UNSET


class Completion(Struct):
    id: str
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | UnsetType | None = UNSET
    object: Literal["text_completion"] = "text_completion"


class Embedding(Struct):
    index: int
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


class Embeddings(Struct):
    data: list[Embedding]
    model: str
    usage: Usage
    object: Literal["list"] = "list"


class OpenAI:
    """The handlers, over a house and its writers."""

    def __init__(self, house: House, writers: Writers, metrics: Metrics) -> None:
        self.house, self.writers, self.metrics = house, writers, metrics

    async def models(self, _: Request) -> Response:
        return answered(ModelList(await asyncio.to_thread(self._cards)))

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        cards = {card.id: card for card in await asyncio.to_thread(self._cards)}
        if name not in cards:
            raise _unknown(name, cards)
        return answered(cards[name])

    async def chat(self, request: Request) -> Response:
        asked = decoded(await body(request), ChatAsked)
        asked.check()
        samplings = asked.samplings(asked.max_completion_tokens or asked.max_tokens or 256)
        repository, model = await self._model(asked.model)
        messages: Messages = [(_role(one.role), one.text) for one in asked.messages]
        sources: Sources | UnsetType = UNSET
        if asked.retrieval:
            chosen = asked.retrieval if isinstance(asked.retrieval, Retrieval) else Retrieval()
            told = self._with_context(messages, chosen, repository, model, samplings[0].max_tokens)
            messages, sources = await while_there(request, told)
        name, created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())

        def run(tell: Callable[[int, str], None]) -> Awaitable[list[Generated]]:
            return self._write(repository, model, [messages] * len(samplings), samplings, tell)

        if not asked.stream:
            made = await while_there(request, run(lambda _, __: None))
            choices = [Choice(number, Said("assistant", one.text), _why(one)) for number, one in enumerate(made)]
            return answered(Chat(name, created, asked.model, choices, _usage(made), retrieval=sources))

        def chunk(choices: list[dict[str, Any]], usage: Usage | None = None) -> bytes:
            told = {"id": name, "object": "chat.completion.chunk", "created": created, "model": asked.model}
            return event(told | {"choices": choices} | ({"usage": usage} if asked.with_usage else {}))

        def delta(number: int, said: dict[str, str], why: str | None = None) -> dict[str, Any]:
            return {"index": number, "delta": said, "logprobs": None, "finish_reason": why}

        return await streamed(
            request, run,
            begun=[chunk([delta(number, {"role": "assistant", "content": ""})]) for number in range(len(samplings))],
            piece=lambda number, text: chunk([delta(number, {"content": text})]),
            ended=lambda made: [
                *(chunk([delta(number, {}, _why(one))]) for number, one in enumerate(made)),
                *([chunk([], _usage(made))] if asked.with_usage else ()),
            ],
        )  # fmt: skip

    async def completions(self, request: Request) -> Response:
        asked = decoded(await body(request), CompletionAsked)
        unable = {"echo": asked.echo, "suffix": asked.suffix, "best_of": (asked.best_of or 1) != 1}
        for field, wanted in unable.items():
            if wanted:
                raise UsageError(f"`{field}`: the local model cannot do that", "leave it out")
        given = [asked.prompt] if isinstance(asked.prompt, str) else asked.prompt
        if not all(isinstance(one, str) for one in given):
            raise UsageError("`prompt`: tokens of another tokenizer are no prompt here", "give text")
        repository, model = await self._model(asked.model)
        samplings = asked.samplings(asked.max_tokens or 16, len(given))
        prompts = [str(one) for one in given for _ in range(asked.n or 1)]
        name, created = f"cmpl-{secrets.token_hex(12)}", int(time.time())

        def run(tell: Callable[[int, str], None]) -> Awaitable[list[Generated]]:
            return self._write(repository, model, prompts, samplings, tell)

        def told(choices: list[TextChoice], usage: Usage | UnsetType | None = UNSET) -> Completion:
            return Completion(name, created, asked.model, choices, usage)

        if not asked.stream:
            made = await while_there(request, run(lambda _, __: None))
            choices = [TextChoice(number, one.text, _why(one)) for number, one in enumerate(made)]
            return answered(told(choices, _usage(made)))
        none = None if asked.with_usage else UNSET
        return await streamed(
            request, run, begun=[],
            piece=lambda number, text: event(told([TextChoice(number, text, None)], none)),
            ended=lambda made: [
                *(event(told([TextChoice(number, "", _why(one))], none)) for number, one in enumerate(made)),
                *([event(told([], _usage(made)))] if asked.with_usage else ()),
            ],
        )  # fmt: skip

    async def embeddings(self, request: Request) -> Response:
        asked = decoded(await body(request), EmbeddingsAsked)
        of_model = {place.settings.index.model: name for name, place in reversed(self.house.places.items())}
        if asked.model not in of_model:
            raise _unknown(asked.model, of_model)
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        if not all(isinstance(text, str) for text in texts):
            raise UsageError("`input`: tokens of another tokenizer mean nothing here", "give text")
        made = self.house.embed(of_model[asked.model], [str(text) for text in texts])
        vectors, counts = await while_there(request, made)
        if asked.dimensions not in (None, len(vectors[0])):
            raise UsageError(f"`dimensions`: the vectors of {asked.model} have {len(vectors[0])}", "leave it out")
        data = [
            Embedding(number, _packed(vector) if asked.encoding_format == "base64" else vector)
            for number, vector in enumerate(vectors)
        ]
        return answered(Embeddings(data, asked.model, Usage(sum(counts), sum(counts))))

    def _cards(self) -> list[ModelCard]:
        cards = []
        for repository in self.house.places:
            with suppress(TreeringError):  # the others have theirs
                cards += self._cards_of(repository)
        return cards + [ModelCard(name, 0) for name in {one.settings.index.model for one in self.house.places.values()}]

    def _cards_of(self, repository: str) -> list[ModelCard]:
        cards = []
        with suppress(NoStore):
            for one in learning.models(self.house.places[repository]):
                made = int(one.made)
                cards += [ModelCard(repository, made)] if one.current else []
                cards.append(ModelCard(f"{repository}:{one.name}", made))
        return cards

    async def _model(self, name: str) -> tuple[str, str]:
        """Repository and full name of the model that is asked for."""
        repository, _, model = name.rpartition(":") if name.rpartition(":")[0] in self.house.places else (name, "", "")
        known = await asyncio.to_thread(self._cards_of, repository) if repository in self.house.places else []
        if name not in {card.id for card in known}:
            raise _unknown(name, [card.id for card in await asyncio.to_thread(self._cards)])
        return repository, model or await asyncio.to_thread(learning.model_name, self.house.places[repository])

    async def _write(
        self,
        repository: str,
        model: str,
        prompts: Sequence[str | Messages],
        samplings: Sequence[Sampling],
        tell: Callable[[int, str], None],
    ) -> list[Generated]:
        made = await self.writers.write(repository, model, prompts, samplings, tell)
        self.metrics.wrote(prompt=sum(one.prompt_tokens for one in made), answer=sum(one.tokens for one in made))
        return made

    async def _with_context(
        self, messages: Messages, chosen: Retrieval, repository: str, model: str, most: int
    ) -> tuple[Messages, Sources]:
        """What the history knows of the last question, before it, as far as the model has room for it beside an answer
        of ``most`` tokens; and the commits that this is of.
        """
        place = max((number for number, (role, _) in enumerate(messages) if role == "user"), default=-1)
        if place < 0 or not messages[place][1].strip():
            raise UsageError("`retrieval`: there is no question to look up", "leave it out, or ask something")
        question, told = messages[place][1], [*messages]
        told[place] = ("user", f"\n\n{question}")
        room = await self.writers.room(repository, model, told, most)
        budget = chosen.budget if room is None else max(1, min(chosen.budget, room))
        looked_up = {"question": question, "budget": budget, "audience": "local"}
        asked = converted(looked_up, OFFERS["context"].asked)
        try:
            pack: Any = await self.house.answer(chosen.repository or repository, "context", asked)
        except UsageError as error:
            if budget == chosen.budget:
                raise
            problem = f"`retrieval`: the model has no room for it: {error.message}"
            raise UsageError(problem, "leave it out, or train a model that reads more") from error
        told[place] = ("user", f"{pack.text}\n\n{question}")
        return told, Sources(list(dict.fromkeys(fact.commit_hash for fact in pack.facts)))


def _unknown(name: str, known: Any) -> Refused:
    hint = f"models: {', '.join(known)}" if known else "train one with `treering train`"
    return Refused(404, "model_not_found", f"there is no model {name[:200]!r} here", hint)


def _role(role: str) -> str:
    return "system" if role == "developer" else role


def _why(made: Generated) -> str:
    return "length" if made.ended_by == "length" else "stop"


def _usage(made: Sequence[Generated]) -> Usage:
    asked, answer = sum(one.prompt_tokens for one in made), sum(one.tokens for one in made)
    return Usage(asked, asked + answer, answer)


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
