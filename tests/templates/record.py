"""Small chat templates, and what Transformers makes of them.

`python -m tests.templates.record` needs transformers and jinja2, which nothing else here does: install them into an
environment of their own. Each template is written for what it is named after.
Recorded with transformers 5.24.0.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from transformers.utils import chat_template_utils

HERE = Path(__file__).parent
DATE = datetime.date(2024, 7, 26)
TOKENS = {
    "bos_token": {"content": "<s>", "lstrip": False},
    "eos_token": "</s>",
    "unk_token": None,
    "image_token": "<image>",
    "extra_special_tokens": {"step_token": "<step>"},
}
TURNS: dict[str, list[tuple[str, str]]] = {
    "single": [("user", "Hi"), ("assistant", "Hello!")],
    "system": [("system", "Be brief & kind."), ("user", "Why?"), ("assistant", "So.")],
    "multi": [
        ("user", "Name a prime above 10."),
        ("assistant", "11"),
        ("user", "And above 100?"),
        ("assistant", "101 is prime: none of 2, 3, 5 and 7 divides it."),
    ],
    "odd": [
        ("user", ' it\'s a < b & "c" \\ {{ x }} é 価格 😀\n'),
        ("assistant", "\n  <think>why\n not</think>\n\nso…\t’\x1f \n"),
    ],
    "empty": [("user", "Say nothing."), ("assistant", "")],
    "tool": [("user", "What is 2+2?"), ("assistant", "Let me see."), ("tool", "4"), ("assistant", "Four.")],
    "thoughts": [
        ("system", "S"),
        ("user", "a"),
        ("assistant", "<think>x</think>b"),
        ("user", "c"),
        ("assistant", "<think>\ny\n</think>\n\nd"),
    ],
    "two of the user": [("user", "a"), ("user", "b"), ("assistant", "c")],
    "response alone": [("assistant", "c")],
    "opening": [("user", "Hi")],
    "opening later": [("system", "s"), ("user", "Hi"), ("assistant", "a"), ("user", "b")],
}
OPENINGS = {"opening", "opening later"}
TEMPLATES = {
    "tojson": """{%- for m in messages %}
{{ m | tojson }}|{{ m.content | tojson(ensure_ascii=True) }}|{{ m | tojson(indent=2) }}
{{ m | tojson(separators=(',', ':'), sort_keys=true) }}|{{ [m.role, 1, 2.5, none, true, {}, []] | tojson(indent=1) }}
{{ {'b': 1, 'a': {'d': [], 'c': m.role}} | tojson(sort_keys=True) }}|{{ ["\\x7f\\b"] | tojson(true, 0) }}
{%- endfor %}""",
    "none": """{% if tools is not none %}TOOLS{% endif %}{% if documents is defined and documents == none %}no documents{% endif %}
{{ tools }}{% if tools is iterable or tools %}iterable{% endif %}{% if not xml_tools is defined %}undefined{% endif %}
{%- for m in messages %}{{ m.content }}{% for call in m.tool_calls %}{{ call }}{% endfor %}{% endfor %}""",
    "none-iterated": "{% for tool in tools %}{{ tool }}{% endfor %}{{ messages[-1].content }}",
    "generation": """{# {% generation %} is {{ a }} comment #}
{%- for m in messages %}
    {%- if m.role == 'assistant' %}
        {%- generation -%}
        {% set seen = m.content ~ loop.index %}
        {{ seen }}{{ eos_token }}
        {%- endgeneration %}
    {%- else %}
        {{ seen }}{{ '{% generation %}' + m.content }}
    {%- endif %}
{% endfor %}
{% raw %}{% generation %}{{ raw }}{% endraw %}
{% generation %}
body
{% endgeneration %}
end
""",
    "tokens": """{{ bos_token }}{{ image_token }}{{ step_token }}{{ unk_token }}{{ pad_token }}{% if cls_token is defined %}cls{% endif %}
{%- for m in messages %}{{ m.content + eos_token }}{% endfor %}""",
    "date": """{{ strftime_now("%d %b %Y") }} {{ strftime_now('%Y-%m-%d') }} {{ strftime_now("%A, %B %-d, %H:%M") }}
{{- messages[-1].content }}""",
    "refusal": """{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for m in messages %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate: ' ~ m.role) }}{% endif %}
{{- m.content | trim }}{% endfor %}""",
    "loops": """{% for m in messages %}
{% if loop.first %}first of {{ loop.length }} {% endif %}{% if loop.last %}last{% endif %}
{% if m.role == 'tool' %}{% continue %}{% endif %}
{{ loop.index }}/{{ loop.revindex }} {{ loop.previtem.role if loop.previtem is defined }}<{{ m.role }}>{{ loop.nextitem.role if not loop.last else 'none' }}
{% if loop.index > 2 %}{% break %}{% endif %}
{% endfor %}
{% for m in messages[::-1] if m.role != 'user' %}{{ loop.cycle('a', 'b') }}{{ m.content }}{% else %}nothing{% endfor %}""",
    "slices": """{{ messages[1:] | length }}{{ messages[:-1] | map(attribute='role') | join(',') }}
{{ messages[::-1][0].content[::-1] }}|{{ messages[-1].content[1:4] }}|{{ messages[-1]['content'][-3:] }}|{{ (messages | last).content[::2] }}""",
    "scopes": """{%- set ns = namespace(count=0, last=none) %}{% set outer = 'before' %}
{%- for m in messages %}
    {%- set ns.count = ns.count + 1 %}{%- set ns.last = m.role %}{% set outer = m.role %}
{%- endfor %}
{{ ns.count }} {{ ns.last }} {{ outer }}
{%- macro say(m, mark='!') %}{{ m.content }}{{ mark }}{{ ns.count }}{% endmacro %}
{{ say(messages[0]) }}{{ say(m=messages[-1], mark='?') }}
{% set block %}  {{ messages | length }} {% endset %}[{{ block }}]
{% macro wrap() %}<{{ caller() }}>{% endmacro %}{% call wrap() %}{{ messages[0].content }}{% endcall %}{% filter upper %}{{ messages[0].content }}{% endfilter %}
{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}""",
    "strings": """{%- for m in messages %}{% set c = m.content %}
[{{ c.strip() }}|{{ c.lstrip('\\n') }}|{{ c.rstrip() }}|{{ c.strip(' H!') }}|{{ c | trim }}]
{{ c.split('</think>')[-1] }}|{{ c.split() }}|{{ c.split(' ', 1) }}|{{ c.rsplit(' ', 1) }}|{{ c.split('\\n')[0] }}
{{ c.startswith('H') }}{{ c.endswith(('!', '.')) }}{{ 'think' in c }}{{ c.upper() }}{{ c.lower() }}{{ c.title() }}{{ c.capitalize() }}{{ c | title }}{{ c | capitalize }}
{{ c.replace('<', '&lt;') }}|{{ c.replace('e', 'E', 1) }}|{{ c.find('e') }}|{{ c.rfind('e') }}|{{ c.count('e') }}|{{ ','.join(['a', c]) }}
{{ c.removeprefix('H') }}|{{ c.removesuffix('!') }}|{{ c.partition(' ') }}|{{ c.rpartition(' ')[2] }}|{{ c.isdigit() }}{{ c.isalpha() }}
{{ c | length }}{{ c ~ 1 ~ none ~ true }}{{ '%s: %d' | format(m.role, 3) }}{{ '{}-{}'.format(m.role, c) }}
{% endfor %}""",
    "mappings": """{%- for m in messages %}
{% for key, value in m.items() %}{{ key }}={{ value }};{% endfor %}{{ m.get('content') }}{{ m.get('name') }}{{ m.get('name', 'nobody') }}
{{ m.keys() | list }}{{ m.values() | list }}{{ 'role' in m }}{{ m is mapping }}{{ m.content is string }}{{ m.name is defined }}
{{ m.content is sequence }}{{ m is sequence }}{{ messages is sequence }}{{ m.name is sequence }}{{ tools is sequence }}{{ 3 is sequence }}
{{ m.content is iterable }}{{ m is iterable }}{{ m.name is iterable }}{{ tools is iterable }}{{ m }}
{%- for key, value in m | dictsort %}{{ key }}{% endfor %}{{ dict(a=1, b=m.role) }}{{ {'a': 1}['a'] }}
{% endfor %}""",
    "values": """{{ [1, 2.0, 1e3, none, true, 'a', "it's", ('x', 1)] }}{{ 7 // 2 }}{{ 7 / 2 }}{{ -7 % 3 }}{{ 2 ** 3 }}{{ 1 < 2 < 3 }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ messages | map(attribute='content') | join('|') }}
{{ messages | rejectattr('role', 'in', ['user', 'system']) | map(attribute='content') | first }}{{ range(3) | list }}
{{ none or 'else' }}{{ '' and 1 }}{{ missing | default('default') }}{{ '' | default('empty', true) }}{{ 3 | string + 'a' }}
{{ ['b', 'A', 'c'] | sort }}{{ [3, 1] | max }}{{ 'a' * 3 }}{{ [1] + [2] }}{{ messages[0].content if messages else 'none' }}{{ 3.7 | int }}
{{ messages | length % 2 == 0 }}{{ not missing }}{{ 'x' if missing }}{{ messages[-1].content | replace('e', 'é') }}{{ 2.50 | round(1) }}""",
    "undefined-attribute": "{{ missing.attribute }}",
    "undefined-sum": "{{ missing + messages[0].content }}",
    "white-space": "\n  {% if true %}  \n  a\n  {%- if true %}\n b {% endif -%}\n  \n c{{ messages[0].content }}\n\n{# x #}\n {%+ if true %} d\n{% endif +%}\n e\r\nf\rg\n{% endif %}\n\n",
}


class FixedDate(datetime.datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> FixedDate:
        """The recorded day."""
        return cls(DATE.year, DATE.month, DATE.day, tzinfo=tz)


def names(tokens: dict[str, Any]) -> dict[str, str]:
    """The tokens that a tokenizer with such settings hands to its template."""
    flat = {**tokens, **tokens.get("extra_special_tokens", {})}
    texts = {name: token["content"] if isinstance(token, dict) and "content" in token else token for name, token in flat.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def record(template: str, tokens: dict[str, Any]) -> dict[str, Any]:
    """What Transformers makes of every conversation by a template."""
    chat_template_utils.datetime = FixedDate
    cases = []
    for name, turns in TURNS.items():
        messages = [{"role": role, "content": content} for role, content in turns]
        case: dict[str, Any] = {"name": name, "messages": messages}
        if name in OPENINGS:
            case["opening"] = True
        try:
            rendered, _ = chat_template_utils.render_jinja_template(
                [messages],
                chat_template=template,
                add_generation_prompt=name in OPENINGS,
                **names(tokens),
            )
            case["text"] = rendered[0]
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what a user of Transformers gets
            case["refused"] = f"{type(error).__name__}: {error}"
        cases.append(case)
    return {"template": template, "tokens": tokens, "date": DATE.isoformat(), "cases": cases}


def write(folder: Path, name: str, recorded: dict[str, Any]) -> None:
    """Writes what was recorded of a template."""
    (folder / f"{name}.json").write_text(json.dumps(recorded, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Records every template beside this file."""
    for name, template in TEMPLATES.items():
        recorded = record(template, TOKENS)
        write(HERE, name, recorded)
        print(name, sum("text" in case for case in recorded["cases"]), "of", len(TURNS), "rendered")


if __name__ == "__main__":
    main()
