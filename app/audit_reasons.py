"""Why an answer cannot be verified, was not, or failed: the codes of store.records.Verdict.why, in words.

How far an offer is verified is in audit_words.py.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Reason(NamedTuple):
    """One of them."""

    brief: str
    """In a few words, about the answer."""
    full: str
    """As a sentence without its dot."""
    done: str = ""
    """What its driver did, as the end of a sentence; empty: it is no fault of a driver's."""
    proven: str = ""
    """As a sentence about a proof, in which {token} is counted from 1; empty: it has none."""
    by_referee: str = ""
    """In place of `full` where a referee said so."""


REASONS: Final[dict[str, Reason]] = {
    "sampling": Reason(
        "its sampling cannot be checked",
        "An own seed, penalties, formats and forced calls of tools are not part of what is checked",
    ),
    "not_offered": Reason(
        "its driver commits to nothing",
        "The driver does not offer to commit to its steps: nothing can be checked afterwards",
    ),
    "own_setting": Reason(
        "turned off in Settings", "The setting verify is none: nothing was asked for that can be checked"
    ),
    "no_file": Reason(
        "no file", "Its steps were checked; its numbers were not: the model's file is not here"
    ),
    "not_loaded": Reason(
        "not loaded", "Its steps were checked; its numbers were not: the model is not loaded here"
    ),
    "no_calibration": Reason(
        "its model is measured first",
        "How much honest machines differ by with this model is being measured here: it is audited after that",
    ),
    "backend": Reason(
        "other hardware computed it",
        "Its numbers are farther off than honest ones of the same hardware; its driver names another kind, "
        "which may be why",
    ),
    "silent": Reason(
        "the driver did not show its steps", "The driver did not show the steps that it was asked for"
    ),
    "gone": Reason(
        "its steps are not kept any more",
        "The driver says that it does not keep the steps of this answer any more, as after a restart",
    ),
    "few": Reason("too few tokens", "The answer has too few tokens to tell noise from another model"),
    "near": Reason(
        "too close to call",
        "Its numbers are farther off than honest ones mostly are, and not as far as a lie's; another machine "
        "can look as well, if you let it read the chat",
        by_referee="Its numbers are farther off than honest ones mostly are, and not as far as a lie's",
    ),
    "varying": Reason(
        "its template varies",
        "The template of this model puts in the time or something random: its prompt cannot be put together "
        "again",
    ),
    "no_referee": Reason(
        "no referee computed it",
        "No referee computed it: those that were asked refused, failed or could not be reached",
    ),
    "no_noise": Reason(
        "its noise is not known here",
        "How much honest machines differ by with this model cannot be measured here",
        by_referee="Neither this machine nor the referee knows yet how much honest machines differ by with "
        "this model; ask again in a while",
    ),
    "one_referee": Reason(
        "nobody confirmed a referee",
        "One referee found something else than was sold, and no second one confirmed it: one alone condemns "
        "nobody",
    ),
    "disagree": Reason(
        "referees do not agree", "Some referees found something else than was sold, and others did not"
    ),
    "wrong_token": Reason(
        "wrong token",
        "A token is not the one that the driver's own numbers choose",
        "it drew a token otherwise than it had signed",
        "Token {token} of an answer is not the one that its own logits choose.",
    ),
    "wrong_leaf": Reason(
        "forged steps",
        "What the driver committed as a step of the answer is none",
        "it signed steps that are none",
        "What it committed as token {token} of an answer is none.",
    ),
    "two_receipts": Reason(
        "two receipts",
        "The driver signed two different receipts for one answer",
        "it signed two different receipts for one answer",
        "It signed two different receipts for one answer.",
    ),
    "other_model": Reason(
        "another model",
        "The numbers are not those of the model that was sold",
        "its numbers were not those of the model that it sold",
    ),
    "other_prompt": Reason(
        "another prompt",
        "The driver's model was not given the prompt that was sent",
        "its model was not given the prompt that was sent",
    ),
    "other_text": Reason(
        "another text",
        "The text is not that of the tokens that the driver signed",
        "its text was not that of the tokens that it had signed",
    ),
    "wrong_end": Reason(
        "a false end",
        "It ends where its tokens and what was asked for do not, or goes on after its end",
        "its answer ended where its model's had not, or went on after the end",
        "What it signed of the end of an answer does not fit token {token}.",
    ),
    "bad_opening": Reason(
        "its steps do not fit",
        "What the driver showed does not fit what it had signed and sent",
        "what it showed was not what it had signed",
    ),
}
"""By code: those for which nothing was committed to, for which nobody computed the answer again, for which
nothing was determined, and for which it failed."""
