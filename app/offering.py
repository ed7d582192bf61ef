"""What this provider tells the network: what it offers, and how busy it is; each only when it is news."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from infraxa.app.admission import Admission
from infraxa.app.choices import ModelEntry
from infraxa.app.errors import NodeError
from infraxa.app.models import Models
from infraxa.app.terms import Terms
from infraxa.net.credits import micro
from infraxa.net.market import FREE, Rates
from infraxa.net.orders import MAX_OUT
from infraxa.net.records import DOES_ANSWERS, DOES_SCORES, DOES_VECTORS, ModelOffer, PriceNow
from infraxa.net.status import Load, Offer

SPEED_STEP: Final = 1.25
"""The speed is another one when what was measured differs by this factor: a card changes seldom."""

PRICE_STEP: Final = 50
"""The price is another one when it moved by this part of it; others are told of larger steps still."""


class Offering:
    """Of one node."""

    def __init__(self, on_offer: Callable[[Offer | None], None], on_load: Callable[[Load], None]) -> None:
        self._on_offer = on_offer
        self._on_load = on_load
        self._offer: Offer | None = None
        self._load = Load()
        self._speed = 0.0
        self._base = FREE
        """What the card asks for."""

    def offer(self, terms: Terms, capacity: int, tokens_per_second: float, base: Rates) -> None:
        """This is offered, at these prices when nobody is served; `tokens_per_second` of one answer, as
        measured, 0 = not yet."""
        if tokens_per_second and not (
            self._speed / SPEED_STEP < tokens_per_second < self._speed * SPEED_STEP
        ):
            self._speed = tokens_per_second
        info = terms.entry.info
        model = ModelOffer(
            # The guide is called so everywhere; a model of the person's own as its maker calls it.
            name=(terms.entry.name if terms.entry.builtin else info.name)[:96],
            arch=info.architecture[:32],
            quantization=info.quantization[:16],
            model_id=terms.model_id,
            context=terms.context,
            max_out=min(terms.context, MAX_OUT),
            price_in=base.price_in,
            price_out=base.price_out,
            modes=terms.modes,
            backend="llama.cpp",
            speed=min(round(self._speed * 1000), 2**31 - 1),
            vocab=terms.entry.vocab,
            does=_does(terms),
        )
        settings = terms.settings
        self._base = base
        self._tell(Offer((model,), capacity, micro(settings.stranger_limit), settings.free_daily))

    def withdraw(self, *, model: bool = False) -> None:
        """Nothing is offered; `model`: the next one will be another, of other speed."""
        if model:
            self._speed = 0.0
        self._tell(None)

    def load(self, admission: Admission, first_token_ms: int, now: Rates, *, shut: bool) -> None:
        """How busy it is, and what it asks for now; `shut`: nobody is served now."""
        load = Load(
            "busy" if shut or admission.full else "online",
            min(255, admission.running * 255 // admission.capacity),
            first_token_ms,
            self._prices(now),
        )
        if load != self._load:
            self._load = load
            self._on_load(load)

    def _prices(self, now: Rates) -> tuple[PriceNow, ...]:
        """What differs from the card."""
        if now == self._base or self._offer is None:
            return ()
        told = self._load.prices
        if told and abs(told[0].price_out - now.price_out) * PRICE_STEP < now.price_out:
            return told
        return (PriceNow(0, now.price_in, now.price_out),)

    def _tell(self, offer: Offer | None) -> None:
        if offer != self._offer:
            self._offer = offer
            self._on_offer(offer)


def _does(terms: Terms) -> int:
    """What it can be asked for, see records.DOES_*."""
    if terms.entry.info.embeds_only:
        return DOES_VECTORS
    return DOES_ANSWERS | DOES_VECTORS | (DOES_SCORES if terms.scores else 0)


async def servable(
    models: Models, name: str, known: tuple[ModelEntry, bytes] | None
) -> tuple[ModelEntry, bytes]:
    """The model of this name, and its id, which is taken from `known` if that is the same one.

    Raises NodeError and EngineError when there is no such model, or none that may be served: one whose file
    was not added can be another one at any time.
    """
    entry = await models.entry(name)
    if entry.problem:
        raise NodeError("no_model", entry.problem, "Choose another model, or add it again.")
    if not entry.builtin and not entry.sha256:
        raise NodeError(
            "no_model", "Only a model that was added can be served.", "infraxa models add FILE adds it."
        )
    if known is not None and known[0] == msgspec.structs.replace(entry, vocab=known[0].vocab):
        return known
    model_id = await models.model_id(entry)
    return msgspec.structs.replace(entry, vocab=await models.tell_vocab(entry)), model_id
