"""Auditing an answer in the chat view: by this machine at once, by a referee only after the person agreed."""

from __future__ import annotations

from textual import on

from infraxa.app.audit_values import AuditPlan
from infraxa.app.errors import NodeError
from infraxa.app.tui.screens.chat_talk import Talk
from infraxa.app.tui.widgets import requests
from infraxa.app.tui.widgets.facts import driver_name
from infraxa.app.tui.widgets.verdicts import can_audit
from infraxa.store.records import Message


class Auditing(Talk):
    """What became of answers that somebody else computed."""

    def action_audit(self) -> None:
        """Audit the answer that has the focus, or else the last one that can be."""
        if (answer := self._to_audit()) is None:
            self.flash("only a signed answer can be audited: within an hour of it, while infraxa stays open")
        else:
            self.app.attempt(self._audit(answer), group="audit")

    @on(requests.AuditRequested)
    def _audit_requested(self, event: requests.AuditRequested) -> None:
        for turn in self.shown_turns:
            if turn.message.id == event.message_id:
                self.app.attempt(self._audit(turn.message), group="audit")

    def _to_audit(self) -> Message | None:
        if self.query("Conversation"):
            view = self.conversation.last_answer()
            if view is not None and view.has_focus and can_audit(view.message):
                return view.message
        answers = (turn.message for turn in reversed(self.shown_turns) if can_audit(turn.message))
        return next(answers, None)

    async def _audit(self, answer: Message) -> None:
        plan = await self.node.audit_plan(answer.chat_id, answer.id)
        match plan.state:
            case "own":
                await self.node.audit_answer(answer.chat_id, answer.id)
                self.flash("this machine audits the answer: nothing of the chat is sent")
            case "referee":
                self._ask_for_referee(answer, plan)
            case "checking":
                self.flash("an audit of this answer is running")
            case "done":
                self.flash("this answer was audited: what came of it stands under it")
            case "none":
                raise NodeError("not_audited", plan.reason or "This answer cannot be audited.", plan.remedy)

    def _ask_for_referee(self, answer: Message, plan: AuditPlan) -> None:
        from infraxa.app.tui.screens.audit import AskReferee

        parts = answer.facts.drivers if answer.facts is not None else ()

        def chosen(agreed: bool | None) -> None:
            if agreed:
                self.app.attempt(self._by_referee(answer), group="audit")

        driver = driver_name(parts[-1]) if parts else "the driver"
        self.app.push_screen(AskReferee(plan, driver), chosen)

    async def _by_referee(self, answer: Message) -> None:
        await self.node.audit_answer(answer.chat_id, answer.id, referee=True)
        self.flash("a referee was asked to audit the answer")
