"""What the gateway counts of itself, for Prometheus: numbers and states, nothing of any prompt or answer."""

from __future__ import annotations

import datetime
from typing import Final, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from infraxa.app.days import start_ms
from infraxa.app.facade import NodeFacade
from infraxa.app.gateway.answering import Answers
from infraxa.engine.host import EngineState

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_FIRST_TOKEN_S: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_STATES: Final = get_args(EngineState)


class Metrics:
    """Of one open gateway."""

    def __init__(self, node: NodeFacade) -> None:
        self._node = node
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "infraxa_gateway_requests",
            "Requests that were answered, by endpoint and HTTP status; 499: the client went away.",
            ("endpoint", "status"),
            registry=self._registry,
        )
        self._tokens = Counter(
            "infraxa_gateway_tokens",
            "Tokens of prompts (in) and of answers (out).",
            ("direction",),
            registry=self._registry,
        )
        self._first_token = Histogram(
            "infraxa_gateway_first_token_seconds",
            "From the request to the first of its answer.",
            buckets=_FIRST_TOKEN_S,
            registry=self._registry,
        )
        self._bought = Counter(
            "infraxa_gateway_bought_microcredits", "What answers were charged.", registry=self._registry
        )
        self.running = self._gauge("infraxa_gateway_running", "Requests that are being answered.")
        self.connections = self._gauge("infraxa_gateway_connections", "Open connections.")
        self._engine_running = self._gauge("infraxa_engine_running", "Answers that this machine generates.")
        self._engine_waiting = self._gauge("infraxa_engine_waiting", "Answers that wait for it.")
        self._spent = self._gauge(
            "infraxa_spent_today_microcredits", "What this node has spent since midnight, in all."
        )
        self._spent_by_programs = self._gauge(
            "infraxa_gateway_spent_today_microcredits", "What programs have spent since midnight, of the cap."
        )
        self._held_for_programs = self._gauge(
            "infraxa_gateway_held_microcredits", "What their requests that run, or are not settled, may cost."
        )
        self._cap = self._gauge(
            "infraxa_gateway_cap_microcredits", "What programs may spend in a day: the setting cap_api."
        )
        self._state = Gauge(
            "infraxa_engine_state", "1 for the state that it is in.", ("state",), registry=self._registry
        )

    def _gauge(self, name: str, what: str) -> Gauge:
        return Gauge(name, what, registry=self._registry)

    def answered(self, endpoint: str, status: int) -> None:
        """A request is over."""
        self._requests.labels(endpoint, str(status)).inc()

    def first_token(self, seconds: float) -> None:
        """The first of an answer has come."""
        self._first_token.observe(seconds)

    def used(self, n_in: int, n_out: int, charge: int) -> None:
        """So many tokens, for so many µcr."""
        self._tokens.labels("in").inc(n_in)
        self._tokens.labels("out").inc(n_out)
        self._bought.inc(charge)

    def used_by(self, answers: Answers) -> None:
        """What an answer used, as far as it is known."""
        n_in = sum(told.usage.n_prompt for told in answers.told)
        n_out = sum(told.usage.n_out for told in answers.told)
        self.used(n_in, n_out, answers.cost)

    async def text(self) -> bytes:
        """All of it now. Raises StoreError, NodeError."""
        engine = self._node.engine
        self._engine_running.set(engine.running)
        self._engine_waiting.set(engine.waiting)
        for state in _STATES:
            self._state.labels(state).set(state == engine.state)
        earnings = await self._node.earnings(start_ms(datetime.date.today()))
        self._spent.set(earnings.today.spent)
        programs = await self._node.call_spending()
        self._spent_by_programs.set(programs.spent)
        self._held_for_programs.set(programs.held)
        self._cap.set(programs.cap)
        return generate_latest(self._registry)
