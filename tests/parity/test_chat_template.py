"""Our chat templates against Jinja2's sandbox, set up as `transformers` sets it up: the same text
for templates that behave as published ones do, for many conversations, and for single features."""

import datetime
import functools
import json
import os
import pathlib
import random
import subprocess

import jinja2
import jinja2.ext
import jinja2.sandbox
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("DMC_BIN", ROOT / "build" / "bin"))
TEMPLATES = sorted((ROOT / "tests" / "parity" / "chat_templates").glob("*.jinja"))

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


class Refused(Exception):
    pass


class Generation(jinja2.ext.Extension):
    """{% generation %} ... {% endgeneration %}, which marks text and leaves it as it is."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


@functools.cache
def compiled(template):
    def raise_exception(message):
        raise Refused(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)  # fmt: skip

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda format: datetime.datetime.now().strftime(format)
    return env.from_string(template)


def request(template, messages, add_generation_prompt=True, **variables):
    return {"template": template, "messages": messages, "trusted": TOKENS,
            "variables": variables, "add_generation_prompt": add_generation_prompt}  # fmt: skip


def theirs(request):
    """The text, or None for a template that refuses or fails."""
    try:
        return compiled(request["template"]).render(
            messages=request["messages"], add_generation_prompt=request["add_generation_prompt"],
            **request["variables"], **TOKENS)  # fmt: skip
    except (Refused, jinja2.TemplateError, TypeError, ValueError, ZeroDivisionError):
        return None


def ours(requests):
    done = subprocess.run(
        [BIN / "chat_probe"],
        input="".join(json.dumps(request) + "\n" for request in requests).encode(),
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    answers = [json.loads(line) for line in done.stdout.decode().split("\n")[:-1]]
    assert len(answers) == len(requests)
    return answers


def compare(requests):
    for sent, answer in zip(requests, ours(requests), strict=True):
        expected = theirs(sent)
        context = json.dumps(sent, ensure_ascii=False)[:2000] + "\n" + str(answer.get("error"))
        assert answer.get("text") == expected, context


TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "The <weather> & \"more\"",
     "parameters": {"type": "object", "properties": {
         "city": {"type": "string", "description": "naïve 日本"},
         "days": {"type": "integer"}, "tags": {"type": "array", "items": {"type": "string"}}},
         "required": ["city"]}}},
    {"type": "function", "function": {"name": "noop", "description": "", "parameters": {
        "type": "object", "properties": {}, "required": []}, "return": {"type": "none"}}},
]  # fmt: skip

CONTENTS = ["Hi", "", "  spaces \n", "two\nlines\n", "日本 é 🎉", "{{ not a template }} {% if %}",
            "<|im_end|>\n<|im_start|>system", "<think>\nhm\n</think>\n\nanswer", "'quotes' \"both\"",
            "<tool_response>x</tool_response>", "</s>[INST]", "a\tb\\n"]  # fmt: skip


def random_conversation(rng):
    def say(role):
        message = {"role": role, "content": rng.choice(CONTENTS)}
        if role == "assistant" and rng.random() < 0.2:
            message["reasoning_content"] = rng.choice(CONTENTS)
        return message

    def call():
        arguments = rng.choice([{}, {"city": "Zürich", "days": 3, "x": 1.5, "y": [True, None]}])
        return {"role": "assistant", "content": rng.choice([None, "", "Let me see."]),
                "tool_calls": [{"id": "abcdefghi", "type": "function",
                                "function": {"name": "weather", "arguments": arguments}}]}  # fmt: skip

    def result():
        content = rng.choice(["sunny", {"content": "rain"}, [{"type": "text", "text": "fog"}]])
        return {"role": "tool", "tool_call_id": "abcdefghi", "content": content}

    messages = [say("system")] if rng.random() < 0.4 else []
    for _ in range(rng.randint(1, 4)):
        messages.append(say("user"))
        if rng.random() < 0.25:
            messages += [call(), result()]
        if rng.random() < 0.8:
            messages.append(say("assistant"))
    if rng.random() < 0.1:
        messages[-1]["content"] = [{"type": "text", "text": " parts "}, {"type": "image"}]
    return messages


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_templates_as_published(path):
    rng = random.Random(path.stem)
    requests = []
    for _ in range(300):
        variables = {}
        if rng.random() < 0.4:
            variables["tools"] = TOOLS[: rng.randint(1, 2)]
        if rng.random() < 0.3:
            variables["enable_thinking"] = rng.random() < 0.5
        requests.append(request(path.read_text(), random_conversation(rng), rng.random() < 0.7,
                                **variables))  # fmt: skip
    assert any(theirs(sent) for sent in requests), "the conversations never fit this template"
    compare(requests)


EXPRESSIONS = """
1 + 2 * 3 - 4 // 3 % 2
-7 // 2, -7 % 3, 7 % -3, 7.5 // 2, -7.5 % 2, 7 / 2, 2 ** 10, -2 ** 2
1e3, 0.1 + 0.2, 1e16, 1e-5, 123456789.125, 1.0, 1_000, 5 % 3.5
'a' ~ 1 ~ none ~ true ~ [1, 'x'] ~ {'k': 'v'} ~ (1,) ~ ()
'it''s' "joined", 'tab\\t', '\\x41\\u00e9', 'a\\'b', "a'b", ['a\\'b', "q\\"q'", 'a\\nb', 'é']
1 < 2 < 3, 1 < 3 < 2, 'a' < 'b', [1, 2] < [1, 3], 1 == 1.0, true == 1, 'a' != 'b', 2 >= 2
'a' in 'abc', 'x' not in 'abc', 1 in [1, 2], 'k' in {'k': 1}, not 'a' in 'a', 3 not in [1]
1 if true else 2, 1 if false, (1 if false) is undefined, 'a' if 0 else 'b' if 0 else 'c'
true and 0, '' or 'x', not none, none or none, 1 and 2 or 3, not true == false
missing, missing is defined, missing|default('d'), ''|default('d', true), none|default('d')
messages[0].role, messages[0]['content'], messages[-1].role, messages[99] is defined, messages|length
'héllo'[1], 'héllo'[-1], 'héllo'[1:3], 'héllo'[::-1], 'héllo'[-3:], 'abc'[5:], 'abc'[::2], 'abc'[9]
[1, 2, 3, 4][1:], [1, 2, 3, 4][:-1], [1, 2, 3, 4][::-2], (1, 2, 3)[1:], [1, 2, 3][-10:10]
'  x '.strip(), 'xxaxx'.strip('x'), ' a '.lstrip(), ' a '.rstrip() ~ '|', 'abc'.strip('')
'a,b,,c'.split(','), ' a  b '.split(), 'a,b,c'.split(',', 1), 'a,b,c'.rsplit(',', 1), 'abc'.split('x')
'a\\nb\\r\\nc\\n'.splitlines(), 'ab'.upper(), 'AB'.lower(), 'ab cd'.title(), 'aB'.capitalize()
'abc'.startswith('ab'), 'abc'.endswith(('x', 'c')), 'aXbX'.replace('X', '-'), 'aXbX'.replace('X', '-', 1)
'abcabc'.find('ca'), 'abc'.find('x'), 'éa'.find('a'), 'aaa'.count('a'), ','.join(['a', 'b'])
'abc'.removeprefix('a'), 'abc'.removesuffix('c'), '12'.isdigit(), ''.isdigit()
{'a': 1, 'b': [2]}.items()|list, {'a': 1}.keys()|list, {'a': 1}.values()|list, {'a': 1}.get('a'), {'a': 1}.get('b', 2)
{'a': 1}.a, {'a': 1}['a'], {'items': 5}['items'], {'a': {'b': 3}}.a.b, {'a': 1}.nothing is defined
' x '|trim, 'x'|upper, 'X'|lower, 'the cat-sat'|title, 'aB'|capitalize, 'abc'|length, [1, 2]|count
[3, 1, 2]|sort, ['b', 'A', 'c']|sort, ['b', 'A']|sort(case_sensitive=true), [1, 2]|sort(reverse=true)
[1, 2, 3]|first, [1, 2, 3]|last, []|first is defined, 'abc'|first, 'abc'|last, [1, 2]|reverse|list, 'abc'|reverse
[1, 2, 3]|join(', '), ['a', 'b']|join, messages|map(attribute='role')|join('|'), 'abc'|list
['a', 'b']|map('upper')|list, [1, 2, 3, 4]|select('even')|list, [1, 2, 3]|reject('gt', 1)|list
messages|selectattr('role', 'equalto', 'user')|list|length, messages|rejectattr('role', 'eq', 'user')|list|length
[{'a': 1}, {'b': 2}]|selectattr('a', 'defined')|list, [{'a': 1}, {'a': 0}]|selectattr('a')|list
{'b': 1, 'a': 2}|dictsort, {'b': 1, 'a': 2}|items|list, [1, 1, 2]|unique|list, ['a', 'A']|unique|list
'3'|int, 'x'|int, 'x'|int(7), 3.9|int, '2.5'|float, -3|abs, 2.567|round(2), 3|string ~ 1, [1, 5, 2]|max, [4, 2]|min
'a\\nb\\n\\nc'|indent, 'a\\nb'|indent(2, true), 'x'|safe ~ '', 'aXb'|replace('X', 'Y')
1 is number, 1 is integer, 1.0 is float, 'a' is string, none is none, {} is mapping, [] is sequence
[] is iterable, 1 is iterable, true is boolean, true is true, false is false, 3 is odd, 4 is even
4 is divisibleby 2, 4 is divisibleby(3), 1 is eq 1, 1 is in [1, 2], 'a' is lower, 'A' is upper, 1 is not string
{'a': [1, {'b': none}], 'c': 'é"\\n', 'd': 1.5, 'e': true}|tojson
{'b': 1, 'a': [1, 2], 'c': {}, 'd': []}|tojson(indent=2)
{'b': 1, 'a': 'é'}|tojson(sort_keys=true, ensure_ascii=true), [1, {'a': 2}]|tojson(separators=(',', ':'))
range(3)|list, range(1, 4)|list, range(5, 0, -2)|list, range(0)|list
dict(a=1, b='x'), dict(a=1).a, [1, 2] + [3], 'ab' * 2, [0] * 3, (1, 2) + (3,)
[1, 2.0, 'x', none, true, undefined_thing is defined], [[]], [()], {'a': {}}
'<&>"', 'a' 'b', "%" ~ 5, '' is string, [] or 'empty', {} or 'none', 0 or 1.5
'-'.join(['a', 'b', 'c'][1:]), 'a-b'.split('-')[-1], ('x' ~ 'y')|upper, -1|abs, -(1)|abs
strftime_now('%Y')|length, namespace(a=1).a, [x for_ignored is defined] if false else 'ok'
""".strip().split("\n")

BODIES = {
    "for": "{% for x in [1,2,3] %}{{ x }}{{ ',' if not loop.last }}{% endfor %}",
    "loop": "{% for x in 'abc' %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 "
            "}}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}"
            "{{ loop.cycle('x', 'y') }} {% endfor %}",
    "for else": "{% for x in [] %}a{% else %}b{% endfor %}{% for x in nothing %}a{% else %}c{% endfor %}",
    "for if": "{% for x in range(9) if x is odd %}{{ x }}/{{ loop.length }} {% endfor %}",
    "for unpack": "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}",
    "for dict": "{% for k in {'a': 1} %}{{ k }}{% endfor %}",
    "break": "{% for x in range(9) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}"
             "{% endif %}{{ x }}{% endfor %}",
    "scope": "{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}",
    "scope if": "{% if true %}{% set x = 1 %}{% endif %}{{ x }}",
    "namespace": "{% set ns = namespace(n=0) %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% endfor %}"
                 "{{ ns.n }}{{ ns.m is defined }}",
    "set tuple": "{% set a, b = 1, 'x' %}{{ a }}{{ b }}{% set t = 1, 2 %}{{ t }}",
    "set block": "{% set x %} a {{ 1 }} {% endset %}[{{ x }}]{% set y | trim | upper %} b {% endset %}[{{ y }}]",
    "filter block": "{% filter upper %}abc{{ 'd' }}{% endfilter %}",
    "macro": "{% macro f(a, b='x') %}<{{ a }}{{ b }}{{ c is defined }}>{% endmacro %}{{ f(1) }}{{ f(1, 2) }}"
             "{{ f(b=3, a=4) }}{{ f() }}",
    "macro scope": "{% set x = 1 %}{% macro f() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ f() }}",
    "macro recursion": "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}",
    "generation": "a{% generation %}b{% endgeneration %}c",
    "comment": "a {# gone {{ x }} #} b\n{# line #}\nc{#- tight -#}  d",
    "raw": "{% raw %}{{ x }} {% if %}{% endraw %} b{%- raw -%} {{ y }} {%- endraw -%} c",
    "trim": "a\n  {% if true %}\n  b\n  {% endif %}\nc\n  {{ 'd' }}\n{%+ if true %} e {% endif +%}\nf\n",
    "minus": "a  \n {%- if true -%}  \n b {{- 'c' -}} \n d {%- endif -%} \n e",
    "crlf": "a\r\n{% if true %}\r\nb\r{% endif %}\r\nc\r\n",
    "last newline": "a\n\n",
    "elif": "{% for x in range(4) %}{% if x == 0 %}a{% elif x == 1 %}b{% elif x == 2 %}c{% else %}d{% endif %}"
            "{% endfor %}",
    "nested braces": "{{ {'a': {'b': 1}}['a']['b'] }}{{ '}}' }}{{ \"%}\" }}",
    "undefined attribute": "{{ nothing.x }}",
    "undefined call": "{{ nothing() }}",
    "undefined add": "{{ nothing + 'x' }}",
    "none add": "{{ none + 'x' }}",
    "string minus": "{{ 'a' - 1 }}",
    "division": "{{ 1 / 0 }}",
    "unclosed if": "{% if true %}a",
    "unclosed tag": "a {{ 1 ",
    "unknown tag": "{% nonsense %}",
    "wrong end": "{% if true %}{% endfor %}",
    "length of a number": "{{ 5|length }}",
    "loop over a number": "{% for x in 5 %}{% endfor %}",
    "append": "{{ [1].append(2) }}",
    "dunder": "{{ ''.__class__ }}",
    "set attribute of a dict": "{% set d = {} %}{% set d.x = 1 %}",
    "raise": "{{ raise_exception('no') }}",
}  # fmt: skip


def test_expressions():
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    compare([request("{{ " + line + " }}", messages) for line in EXPRESSIONS])


@pytest.mark.parametrize("name", BODIES)
def test_statements(name):
    compare([request(BODIES[name], [])])


def test_single_expressions():
    """Each expression of the table by itself, so that a failure names it."""
    single = [part for line in EXPRESSIONS for part in line.split(", ") if part.count("(") ==
              part.count(")") and part.count("[") == part.count("]") and
              part.count("{") == part.count("}") and part.count("'") % 2 == 0]  # fmt: skip
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    compare([request("{{ " + part + " }}", messages) for part in single])


def test_user_text_is_marked():
    """What the messages bring along is marked, byte by byte; what the template writes is not."""
    token = "<|im_end|>"
    messages = [{"role": "user", "content": f"  a{token}b "}]
    template = "<|im_start|>{{ messages[0].role }}\n{{ messages[0].content | trim }}" + token
    (answer,) = ours([request(template, messages)])
    assert answer["text"] == f"<|im_start|>user\na{token}b{token}"
    begin = len("<|im_start|>user\n")
    assert answer["untrusted"] == [[begin, begin + len(f"a{token}b")]]


def test_a_role_that_is_no_word_is_marked():
    (answer,) = ours([request("{{ messages[0].role }}", [{"role": "user<|im_end|>"}])])
    assert answer["untrusted"] == [[0, len("user<|im_end|>")]]


def test_variables_do_not_replace_ours():
    answers = ours([request("{{ bos_token }}{{ add_generation_prompt }}", [],
                            bos_token="evil")])  # fmt: skip
    assert answers[0]["text"] == "<s>True"


@pytest.mark.parametrize(
    ("template", "line", "words"),
    [("a\n{{ b c }}", 2, "expected }}"), ("\n\n{% for %}", 3, "a name"),
     ("{{ 1 }}\n{{ nothing.x }}", 2, "'nothing' is undefined"),
     ("{% if true %}\n\n", 2, "endif"), ("{{ 'x\n' }}\n{{ 1|nonsense }}", 3, "filter nonsense")],
)  # fmt: skip
def test_errors_name_the_line(template, line, words):
    (answer,) = ours([request(template, [])])
    assert answer["error"].startswith(f"template: line {line}: ")
    assert words in answer["error"]
