"""Chat templates: the dialect of published models, continuing an answer, and templates that mean harm."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import pytest

from infraxa.engine import template as template_module
from infraxa.engine.llama import Model
from infraxa.engine.template import ChatTemplate, varies
from infraxa.engine.types import ChatMessage, EngineError

HI = (ChatMessage("user", "hi"),)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_2 = (
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{% if m['role'] == 'user' %}[INST] {{ m['content'] | trim }} [/INST]{% else %}"
    "{{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)


def render(source: str | None, messages: Sequence[ChatMessage] = HI, **names: str) -> str:
    return ChatTemplate(source, **names).render(messages)  # type: ignore[arg-type] # bos and eos are text


def test_a_turn_is_opened_for_the_assistant() -> None:
    assert render(CHATML) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_blocks_are_trimmed_as_models_expect() -> None:
    source = "{% for m in messages %}\n    {% if true %}\n{{ m.content }}\n    {% endif %}\n{% endfor %}\nend"
    assert render(source) == "hi\nend"


def test_the_names_templates_use() -> None:
    source = (
        "{{ bos_token }}{{ strftime_now('%Y') }}{{ messages | tojson }}{{ tools is none }}{{ eos_token }}"
    )
    expected = f'<s>{datetime.now():%Y}[{{"role": "user", "content": "<ö>"}}]True</s>'
    assert render(source, (ChatMessage("user", "<ö>"),), bos="<s>", eos="</s>") == expected


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (None, False),
        (CHATML, False),
        ("{{ strftime_now('%Y') }}", True),
        ("{% set today = strftime_now %}", True),
        ("{{ [1, 2] | random }}", True),
        ("{{ messages | map('random') }}", True),
        ("{{ lipsum() }}", True),
        ("Say something random of {{ messages[0].content }}", False),
    ],
)
def test_what_gives_another_prompt_at_another_time_is_known(source: str | None, found: bool) -> None:
    assert varies(source) == found


def test_loops_can_be_left() -> None:
    assert render("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "01"


def test_an_answer_is_continued_where_it_was_cut() -> None:
    question = ChatMessage("user", "count")
    prompt = render(CHATML, (question,))
    assert render(CHATML, (question, ChatMessage("assistant", "1, 2, "))) == prompt + "1, 2, "
    assert render(LLAMA_2, (question, ChatMessage("assistant", "1, 2, ")), eos="</s>").endswith(
        "[/INST]1, 2, "
    )


def test_a_system_message_that_a_template_refuses_goes_into_the_first_question() -> None:
    messages = (ChatMessage("system", "Be brief."), ChatMessage("user", "hi"))
    assert render(LLAMA_2, messages, bos="<s>") == "<s>[INST] Be brief.\n\nhi [/INST]"


def test_a_template_that_refuses_says_why() -> None:
    with pytest.raises(EngineError, match="roles must alternate") as caught:
        render(LLAMA_2, (HI[0], HI[0]))
    assert caught.value.code == "no_template"
    assert caught.value.remedy


@pytest.mark.parametrize(
    "source",
    [
        "{% for %}",
        "{{ 1 + 'a' }}",
        "{{ nothing.at.all }}",
        "{{ [][3].x }}",
        # What Python says to the program that Jinja makes of it.
        "{{ dict(a=1,a=2) }}",
        pytest.param("{% for a in [1] %}" * 25 + "{% endfor %}" * 25, id="25 loops"),
        pytest.param("{{ 1" + "0" * 5000 + " }}", id="5000 digits"),
        "{{ messages[0].content.encode('ascii', 'nothing') + '\u00e9'.encode('ascii') }}",
    ],
)
def test_a_broken_template_is_one_clear_error(source: str) -> None:
    with pytest.raises(EngineError, match="chat template cannot format") as caught:
        render(source)
    assert caught.value.code == "no_template"
    assert "\n" not in caught.value.message
    with pytest.raises(EngineError, match="chat template cannot format"):
        ChatTemplate(source).prepare()


def test_a_template_is_ready_when_some_way_to_format_is(guide: Model) -> None:
    ChatTemplate(CHATML).prepare()
    ChatTemplate(LLAMA_2).prepare()
    ChatTemplate(None, builtin=guide.apply_builtin_template).prepare()
    ChatTemplate(CHATML + "{{ dict(a=1,a=2) }}", builtin=guide.apply_builtin_template).prepare()


def test_a_nul_does_not_cut_what_llama_cpp_formats(guide: Model) -> None:
    rendered = ChatTemplate(None, builtin=guide.apply_builtin_template).render((ChatMessage("user", "a\0b"),))
    assert rendered == "<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\n"


def test_llama_cpp_helps_where_jinja_cannot(guide: Model) -> None:
    broken = CHATML + "{{ undefined_function() }}"
    rendered = ChatTemplate(broken, builtin=guide.apply_builtin_template).render(HI)
    assert rendered == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_a_model_without_a_template_gets_chatml(guide: Model) -> None:
    rendered = ChatTemplate(None, builtin=guide.apply_builtin_template).render(HI)
    assert rendered == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    with pytest.raises(EngineError, match="no chat template"):
        ChatTemplate(None).render(HI)


def test_the_guides_own_template_agrees_with_llama_cpp(guide: Model) -> None:
    messages = (
        ChatMessage("system", "Be brief."),
        ChatMessage("user", "hi – naïve 🦜"),
        ChatMessage("assistant", "Hello!"),
        ChatMessage("user", "again " * 500),
    )
    ours = ChatTemplate(guide.chat_template).render(messages)
    trimmed = [ChatMessage(m.role, m.content.strip()) for m in messages]
    assert ours == guide.apply_builtin_template(guide.chat_template, trimmed)


FOREVER = "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = b %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    "source",
    [
        FOREVER,
        "{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
        "{{ 'x' * 999999999 }}",
        "{{ 10 ** 999999999 }}",
        "{{ '%999999999d' % 1 }}",
        "{{ range(999999999) | list }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% set x = messages.append(1) %}",
        "{{ lipsum.__globals__['os'].popen('id').read() }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ],
)
# At the bottom of an endless recursion Python has no room for the finalizers of what happens to be collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_hostile_template_ends_in_an_error(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_module, "TIME_LIMIT", 0.3)
    with pytest.raises(EngineError) as caught:
        render(source)
    assert caught.value.code == "no_template"
    # The clock that ended it does not ring later.
    template = ChatTemplate(CHATML)
    assert template.render(HI)
