"""The chats of the chat view: listed, searched, opened, renamed, deleted, exported; what is typed is kept."""

from __future__ import annotations

import asyncio
from pathlib import Path

from textual import on
from textual.widgets import ContentSwitcher

from infraxa.app.tui.screens.chat_base import ChatBase, SearchBox
from infraxa.app.tui.widgets.chat_list import UNTITLED, ChatList
from infraxa.app.tui.widgets.text import one_line
from infraxa.store.records import Chat, ChatOptions

DRAFT_AFTER = 1.0
"""Seconds without typing after which what is typed is kept."""


class Library(ChatBase):
    """The list at the left, and what is done with whole chats."""

    async def _list_chats(self) -> None:
        self._chats = await self.node.list_chats()
        if self.chat is not None:
            # Another terminal may have renamed it, or chosen another driver: what is shown must be so.
            shown = self.chat
            if any(chat.id == shown.id for chat in self._chats):
                fresh = await self.node.get_chat(shown.id)
                if self._shows(fresh.id):
                    self.chat = fresh
                    if fresh.options != shown.options:
                        self._paint_model()
        self._paint_title()
        await self._search()
        self._situation_changed()

    async def _list_models(self) -> None:
        self._models = await self.node.list_models()
        self._paint_model()

    async def _search(self) -> None:
        words = self.query_one(SearchBox).value.strip()
        chats = self.chat_list
        if words:
            hits = await self.node.search(words)
            if words == self.query_one(SearchBox).value.strip():
                chats.show_hits(hits, words)
        else:
            chats.show_chats(self._chats, int(self.app.clock() * 1000))
        chats.show_busy(self.running.by_chat)
        chats.current = self.chat.id if self.chat is not None else None

    @on(SearchBox.Changed, "#search")
    def _search_changed(self, event: SearchBox.Changed) -> None:
        if self.app.opened:
            self.app.attempt(self._search(), group="search", exclusive=True, screen=self)

    @on(SearchBox.Submitted, "#search")
    def _search_submitted(self) -> None:
        self.chat_list.focus()
        self.chat_list.action_open()

    def action_search_chats(self, words: str = "") -> None:
        self._open_side()
        box = self.query_one(SearchBox)
        if words:
            box.value = words
        box.focus()

    def action_close_search(self) -> None:
        self.query_one(SearchBox).value = ""
        self.action_back()

    def action_focus_chats(self) -> None:
        self.chat_list.focus()

    def _open_side(self) -> None:
        self.remove_class("-list-closed")
        self.add_class("-drawer")

    def action_toggle_chats(self) -> None:
        """Show or hide the list: beside the conversation, or over it where there is no room."""
        if self.has_class("-narrow") or self.has_class("-too-narrow"):
            self.toggle_class("-drawer")
            shown = self.has_class("-drawer")
        else:
            self.toggle_class("-list-closed")
            shown = not self.has_class("-list-closed")
        if shown:
            self.chat_list.go_to_current()
            self.chat_list.focus()
        else:
            self.prompt.focus()

    def action_back(self) -> None:
        """Back to the prompt; the drawer closes."""
        self.remove_class("-drawer")
        self.prompt.focus()

    @on(ChatList.Opened)
    async def _row_opened(self, event: ChatList.Opened) -> None:
        self.app.attempt(self.open_chat(event.chat_id), group="open chat", exclusive=True)
        self.action_back()

    @on(ChatList.DeleteRequested)
    def _row_deleted(self, event: ChatList.DeleteRequested) -> None:
        self.app.attempt(self._delete(event.chat_id))

    def on_click(self, event: object) -> None:
        if getattr(getattr(event, "widget", None), "id", None) == "brand-new":
            self.action_new_chat()

    def _target(self) -> str | None:
        """The chat that rename and delete mean: the one under the cursor of the list, else the shown one."""
        row = self.chat_list.highlighted
        if self.chat_list.has_focus and row is not None:
            return row.chat_id
        return self.chat.id if self.chat is not None else None

    async def open_chat(self, chat_id: str) -> None:
        """Show this chat, with what was typed in it and not sent."""
        if self._shows(chat_id):
            return
        await self.keep_draft()
        chat = await self.node.get_chat(chat_id)
        self.prompt.cancel()
        if self.chat is None:
            async with self._showing:
                await self.conversation.show([])  # what came while no chat was shown is not in it
        self.chat = chat
        self.prompt.text = chat.draft
        self._painted()
        await self._show_branch()
        await self.node.remember_last_chat(chat_id)

    def action_new_chat(self) -> None:
        """An empty conversation; it is kept from its first message on."""
        self.app.attempt(self._new_chat(), group="open chat", exclusive=True)

    async def _new_chat(self) -> None:
        await self.keep_draft()
        self.prompt.cancel()
        if self.chat is not None:
            self.prompt.text = ""
        self._forget_chat()
        self.action_back()

    def _forget_chat(self) -> None:
        self.chat = None
        self.shown_turns = []
        self._options = ChatOptions()
        self.query_one(ContentSwitcher).current = "welcome"
        self._painted()

    async def keep_draft(self) -> None:
        """Keep what is typed and not sent, also when the conversation is new."""
        if self._draft_timer is not None:
            self._draft_timer.stop()
            self._draft_timer = None
        if not self.app.opened or self.prompt.editing is not None:
            return
        text = self.prompt.text
        if self.chat is None and not text.strip():
            return
        async with self._keeping:
            chat = self.chat
            if chat is None:
                chat = await self._create_chat()
                await self.node.remember_last_chat(chat.id)
            await self.node.save_draft(chat.id, text)

    async def keep_chat(self) -> Chat:
        """The shown conversation, which is kept from now on if it was not."""
        async with self._keeping:
            if self.chat is None:
                self.chat = await self._create_chat()
                await self.node.remember_last_chat(self.chat.id)
                self._painted()
            return self.chat

    async def _create_chat(self) -> Chat:
        """Keep the conversation that begins, with the options that were chosen for it."""
        chat = await self.node.create_chat()
        if self._options == ChatOptions():
            return chat
        await self.node.set_chat_options(chat.id, self._options)
        return await self.node.get_chat(chat.id)

    def _typed(self) -> None:
        if self._draft_timer is not None:
            self._draft_timer.reset()
        elif self.chat is not None:
            self._draft_timer = self.set_timer(DRAFT_AFTER, self._keep_draft_later)

    def _keep_draft_later(self) -> None:
        self._draft_timer = None
        if self.chat is not None:
            self.app.attempt(self.keep_draft(), group="draft")

    def action_next_chat(self) -> None:
        self._step(1)

    def action_previous_chat(self) -> None:
        self._step(-1)

    def _step(self, by: int) -> None:
        ids = [chat.id for chat in self._chats]
        if not ids:
            return
        index = ids.index(self.chat.id) + by if self.chat is not None and self.chat.id in ids else 0
        if 0 <= index < len(ids):
            self.app.attempt(self.open_chat(ids[index]), group="open chat", exclusive=True)

    def action_rename_chat(self, title: str = "") -> None:
        chat_id = self._target()
        if chat_id is None:
            return
        if title:
            self.app.attempt(self.node.rename_chat(chat_id, title))
            return
        from infraxa.app.tui.screens.dialogs import Ask

        old = next((chat.title for chat in self._chats if chat.id == chat_id), "")

        def named(title: str | None) -> None:
            if title:
                self.app.attempt(self.node.rename_chat(chat_id, title))

        self.app.push_screen(
            Ask("Rename the chat", one_line(old), placeholder="Title", accept="Rename"), named
        )

    def action_delete_chat(self) -> None:
        if (chat_id := self._target()) is not None:
            self.app.attempt(self._delete(chat_id))

    async def _delete(self, chat_id: str) -> None:
        title = next((chat.title for chat in self._chats if chat.id == chat_id), "")
        await self.node.delete_chat(chat_id)
        self._deleted.append(chat_id)
        if self._shows(chat_id):
            self.prompt.text = ""
            self._forget_chat()
        self.app.notify(
            f"“{one_line(title, 40) or UNTITLED}” is deleted · ctrl+z undoes", timeout=8, markup=False
        )
        self._text_at_delete = self.prompt.text

    def action_undo_delete(self) -> None:
        if self._deleted:
            self.app.attempt(self._undo(self._deleted.pop()))

    async def _undo(self, chat_id: str) -> None:
        await self.node.restore_chat(chat_id)
        self.app.clear_notifications()
        await self.open_chat(chat_id)
        self._text_at_delete = self.prompt.text  # for the one that was deleted before

    def action_chat_options(self) -> None:
        from infraxa.app.tui.screens.chat_options import ChatOptionsScreen

        options = self.chat.options if self.chat is not None else self._options

        def chosen(new: ChatOptions | None) -> None:
            if new is not None and new != options:
                self.app.attempt(self._set_options(new))

        self.app.push_screen(ChatOptionsScreen(options, self._models, self.app.settings), chosen)

    async def _set_options(self, options: ChatOptions) -> None:
        if self.chat is None:
            self._options = options
        else:
            chat_id = self.chat.id
            await self.node.set_chat_options(chat_id, options)
            chat = await self.node.get_chat(chat_id)
            if not self._shows(chat_id):
                return
            self.chat = chat
        self._paint_model()

    def action_export_chat(self, path: str = "") -> None:
        if self.chat is None:
            return
        from infraxa.app.tui.export import check_target, default_target, write

        chat = self.chat

        async def export(target: str) -> None:
            text = await self.node.export_markdown(chat.id)
            written = await asyncio.to_thread(write, Path(target), text)
            self.flash(f"written to {written}")

        def chosen(target: str | None) -> None:
            if target:
                self.app.attempt(export(target))

        if path and not check_target(path):
            self.app.attempt(export(path))
            return
        from infraxa.app.tui.screens.dialogs import Ask

        self.app.push_screen(
            Ask(
                "Export the chat to Markdown",
                path or str(default_target(one_line(chat.title))),
                placeholder="File",
                accept="Write",
                check=check_target,
            ),
            chosen,
        )
