"""Answers what is asked of each endpoint. How requests come in and who may ask is in server.py."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

import msgspec
from aiohttp import web

from infraxa.app.calls import AUTO, Call
from infraxa.app.choices import ModelEntry, resolve_sampling
from infraxa.app.events import Event, ModelsChanged
from infraxa.app.facade import NodeFacade
from infraxa.app.gateway import embeddings, metrics, models
from infraxa.app.gateway.answering import Answers, Choice
from infraxa.app.gateway.bodies import Asked, decode
from infraxa.app.gateway.chat import chat_decoder, chat_requests
from infraxa.app.gateway.chat_answer import ChatChoice
from infraxa.app.gateway.completions import CompletionChoice, completion_decoder, completion_requests
from infraxa.app.gateway.embeddings import embedding_decoder
from infraxa.app.gateway.exchange import ALIVE, DONE, Exchange, Json, event
from infraxa.app.gateway.metrics import Metrics
from infraxa.app.gateway.policy import read_policy
from infraxa.engine.types import Delta, Finished, Sampling
from infraxa.store.records import ChatOptions

QUIET_S: Final = 15.0
"""After so long without a word a stream is begun, or says that it waits: so a client that has gone is found,
and none takes a long prompt for a dead gateway."""


class Serving:
    """The endpoints of one node."""

    def __init__(self, node: NodeFacade, counted: Metrics) -> None:
        self._node = node
        self._metrics = counted
        self._entries: dict[str, ModelEntry] = {}
        """The models of this machine, by name; empty: they are to be looked at."""

    def hear(self, event: Event) -> None:
        """What the node tells."""
        if isinstance(event, ModelsChanged):
            self._entries = {}

    async def health(self, exchange: Exchange) -> web.StreamResponse:
        """Whether answers can be given here; a model that is not loaded is loaded when it is asked for."""
        match self._node.engine.state:
            case "failed":
                status = "failed"
            case "starting" | "loading" | "restarting":
                status = "loading"
            case _:
                status = "ok"
        body = msgspec.json.encode({"status": status})
        return await exchange.send(200 if status == "ok" else 503, body)

    async def metrics(self, exchange: Exchange) -> web.StreamResponse:
        return await exchange.send(200, await self._metrics.text(), content_type=metrics.CONTENT_TYPE)

    async def models(self, exchange: Exchange) -> web.StreamResponse:
        return await exchange.send_json(models.listed(await self._node.list_callable()))

    async def model(self, exchange: Exchange) -> web.StreamResponse:
        name = unquote(exchange.request.rel_url.raw_path.removeprefix("/v1/models/"), errors="replace")
        return await exchange.send_json(models.one(await self._node.list_callable(), name))

    async def embeddings(self, exchange: Exchange) -> web.StreamResponse:
        policy = read_policy(exchange.request.headers)
        body = decode(await exchange.read(), embedding_decoder)
        made = await self._node.embed(embeddings.embed_call(body, policy))
        answer = embeddings.embedded(body, made)
        self._metrics.used(sum(made.n_tokens), 0, made.charge or 0)
        facts = answer["infraxa"]
        headers = {"X-Infraxa-Driver": facts["driver"], "X-Infraxa-Cost": str(facts["cost"])}
        return await exchange.send_json(answer, headers)

    async def chat(self, exchange: Exchange) -> web.StreamResponse:
        policy = read_policy(exchange.request.headers)
        body = decode(await exchange.read(), chat_decoder)
        requests = chat_requests(body, await self._defaults(body.model))
        choices = [ChatChoice(place, body, request) for place, request in enumerate(requests)]
        calls = [Call(body.model, request, policy) for request in requests]
        frame = _Frame("chatcmpl-", "chat.completion", "chat.completion.chunk", body.model)
        return await self._answer(exchange, body, calls, choices, frame, prompts=1)

    async def completions(self, exchange: Exchange) -> web.StreamResponse:
        policy = read_policy(exchange.request.headers)
        body = decode(await exchange.read(), completion_decoder)
        requests = completion_requests(body, await self._defaults(body.model))
        choices = [CompletionChoice(place, body, request) for place, request in enumerate(requests)]
        calls = [Call(body.model, request, policy) for request in requests]
        frame = _Frame("cmpl-", "text_completion", "text_completion", body.model)
        return await self._answer(exchange, body, calls, choices, frame, prompts=len(body.prompts))

    async def _defaults(self, model: str) -> Sampling:
        """What is not said is as for the person's own chats: the settings, the model's own defaults."""
        if not self._entries:
            self._entries = {entry.name.casefold(): entry for entry in await self._node.list_models()}
        settings = self._node.settings
        entry = self._entries.get((settings.model if model == AUTO else model).casefold())
        return resolve_sampling(ChatOptions(), settings, entry)

    async def _answer(
        self,
        exchange: Exchange,
        body: Asked,
        calls: Sequence[Call],
        choices: Sequence[Choice],
        frame: _Frame,
        *,
        prompts: int,
    ) -> web.StreamResponse:
        answers = Answers(self._node, calls)
        telling = _Telling(answers, choices, self._metrics)
        try:
            async with answers:
                if body.stream:
                    return await self._stream(exchange, body, telling, frame, prompts)
                while not answers.over:
                    await telling.next()
        finally:
            self._metrics.used_by(answers)
        whole = {
            **frame.around([choice.whole() for choice in choices], answers.model, whole=True),
            "usage": answers.usage(prompts),
            "infraxa": answers.facts(),
        }
        return await exchange.send_json(whole, answers.headers())

    async def _stream(
        self, exchange: Exchange, body: Asked, telling: _Telling, frame: _Frame, prompts: int
    ) -> web.StreamResponse:
        """Failures before the first word have a status of their own."""
        answers = telling.answers
        extra: Json = {"usage": None} if body.wants_usage else {}
        chunks: list[dict[str, Any]] = []
        until = time.monotonic() + QUIET_S
        while not chunks and (left := until - time.monotonic()) > 0:
            chunks = await telling.next(timeout_s=left)
        await exchange.begin_stream(_driver_header(answers))
        while True:
            while answers.waiting and not answers.over:
                chunks += await telling.next()
            over = answers.over
            data = [event({**frame.around([chunk], answers.model), **extra}) for chunk in chunks]
            if over:
                last = {"infraxa": answers.facts()}
                if body.wants_usage:
                    last["usage"] = answers.usage(prompts)
                if body.wants_usage or not chunks:
                    data.append(event({**frame.around([], answers.model), **last}))
                else:
                    data[-1] = event({**frame.around(chunks[-1:], answers.model), **last})
                await exchange.write(b"".join((*data, DONE)))
                return await exchange.end_stream()
            await exchange.write(b"".join(data) or ALIVE)
            chunks = await telling.next(timeout_s=QUIET_S)


class _Telling:
    """Makes chunks of what comes of several answers."""

    def __init__(self, answers: Answers, choices: Sequence[Choice], counted: Metrics) -> None:
        self.answers = answers
        self._choices = choices
        self._metrics = counted
        self._began: float | None = time.monotonic()

    async def next(self, *, timeout_s: float | None = None) -> list[dict[str, Any]]:
        """Chunks of the next event, if there are any. Raises ApiError."""
        came = await self.answers.next(timeout_s=timeout_s)
        if came is None:
            return []
        place, what = came
        choice = self._choices[place]
        if isinstance(what, Finished):
            return choice.finish("stop" if choice.enough else what.reason)
        if not isinstance(what, Delta) or choice.enough:
            return []
        if self._began is not None:
            self._metrics.first_token(time.monotonic() - self._began)
            self._began = None
        chunks = choice.take(what)
        if choice.enough:
            self.answers.stop(place)
        return chunks


class _Frame:
    """What is around the choices."""

    def __init__(self, prefix: str, whole: str, chunk: str, asked: str) -> None:
        self._id = prefix + secrets.token_hex(12)
        self._created = int(time.time())
        self._whole, self._chunk = whole, chunk
        self._asked = asked

    def around(
        self, choices: Sequence[Mapping[str, Any]], model: str, *, whole: bool = False
    ) -> dict[str, Any]:
        """`model`: the name of the one that answers; while it is not known, that which was asked for."""
        return {
            "id": self._id,
            "object": self._whole if whole else self._chunk,
            "created": self._created,
            "model": model or self._asked,
            "choices": choices,
        }


def _driver_header(answers: Answers) -> dict[str, str]:
    """Who answers, if that is known when a stream begins."""
    return {"X-Infraxa-Driver": answers.facts()["driver"]} if answers.model else {}
