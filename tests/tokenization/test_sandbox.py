"""Templates that reach for Python, or that do not end."""

from __future__ import annotations

import resource
import time

import pytest

from tfmodels.tokenization.sandbox import render
from tfmodels.tokenization.template_limits import ChatTemplateError, ChatTemplateRefused

MESSAGES = {"messages": [{"role": "user", "content": "hi"}]}
REACHING = [
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''|attr('__class__') }}",
    "{{ ['']|map(attribute='__class__')|list }}",
    "{{ messages.__class__ }}",
    "{{ messages[0]['content'].__class__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ joiner.__init__ }}",
    "{{ namespace.__init__ }}",
    "{{ self.__init__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ range.__class__ }}",
    "{{ dict.__base__ }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ '{x.__class__}'.format_map({'x': 1}) }}",
    "{{ '{0.__class__}'|format(1) }}{{ ''.format.__self__ }}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "{{ namespace(__class__=1) }}",
    "{% macro m() %}{% endmacro %}{{ m.__globals__ }}",
    "{% for x in messages %}{{ loop.__init__ }}{% endfor %}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'a': 1}) }}",
    "{{ messages[0].pop('role') }}",
    "{{ messages.clear() }}",
    "{{ messages[0].setdefault('a', 1) }}",
    "{% set add = messages.__iadd__ %}{{ add([1]) }}",
    "{% include 'other' %}",
    "{% extends 'other' %}",
    "{% import 'os' as os %}",
    "{{ open('/etc/passwd') }}",
    "{{ lipsum() }}",
    "{{ 'x'|urlize }}",
]
TWICE = "{% set ns = namespace(a='ab', b='ab') %}{% for i in range(100) %}@{% endfor %}{{ ns.a }}"
IN_MACRO = "{% macro m() %}{% for i in range(99999) %}{{ @ }}{% endfor %}{% endmacro %}{{ m() }}"
ENDLESS = {
    "nested ranges": "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
    "nested ranges, nothing in them": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loop with a condition": "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
    "large range": "{% for a in range(10 ** 12) %}{% endfor %}",
    "large list": "{{ range(1000000000)|list }}",
    "macro that calls itself": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "exponential macro": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "exponential caller": "{% macro m() %}{{ caller() }}{{ caller() }}{% endmacro %}"
    + "{% call m() %}" * 60
    + "{% endcall %}" * 60,
    "block that calls itself": "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "recursive loop": "{% set l = [1] * 9999 %}{% for x in l recursive %}{{ loop(l) if loop.depth < 9 }}{% endfor %}",
    "recursive loop over ranges": "{% for x in [1] recursive %}{{ loop(range(99999)) }}{% endfor %}",
    "text times": "{{ 'a' * 10000000000 }}",
    "times text": "{{ 10000000000 * 'a' }}",
    "list times": "{{ [1] * 10000000000 }}",
    "bytes times": "{{ 'a'.encode() * 10000000000 }}",
    "power": "{{ 10 ** 10 ** 10 }}",
    "power of a large number": "{{ 9999 ** 99999 }}",
    "squares": TWICE.replace(
        "@", "{% set ns.a = (ns.a if ns.a is number else 3) * (ns.a if ns.a is number else 3) %}"
    ),
    "doubled by +": TWICE.replace("@", "{% set ns.a = ns.a + ns.a %}"),
    "doubled by ~": TWICE.replace("@", "{% set ns.a = ns.a ~ ns.a %}"),
    "doubled by a block": TWICE.replace("@", "{% set ns.a %}{{ ns.a }}{{ ns.a }}{% endset %}"),
    "doubled by a filter block": TWICE.replace(
        "@", "{% set ns.a %}{% filter upper %}{{ ns.a * 2 }}{% endfilter %}{% endset %}"
    ),
    "doubled by join": TWICE.replace("@", "{% set ns.a = ns.a.join([ns.a, ns.a]) %}"),
    "doubled by %": TWICE.replace("@", "{% set ns.a = '%s%s' % (ns.a, ns.a) %}"),
    "doubled by format": TWICE.replace("@", "{% set ns.a = '{0}{0}'.format(ns.a) %}"),
    "tree of lists": TWICE.replace("@", "{% set ns.a = [ns.a, ns.a] %}"),
    "tree of tuples": TWICE.replace("@", "{% set ns.a = (ns.a, ns.a) %}"),
    "tree of dicts": TWICE.replace("@", "{% set ns.a = {'x': ns.a, 'y': ns.a} %}"),
    "tree by dict": TWICE.replace("@", "{% set ns.a = dict(x=ns.a, y=ns.a) %}"),
    "tree by a sum": TWICE.replace("@", "{% set ns.a = [ns.a]|list + [ns.a] %}"),
    "tree by batch": TWICE.replace("@", "{% set ns.a = [ns.a]|batch(2, ns.a)|list %}"),
    "trees compared": TWICE.replace("@", "{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}")
    + "{{ ns.a == ns.b }}",
    "deep list": TWICE.replace("100", "99999").replace("@", "{% set ns.a = [ns.a] %}"),
    "center": "{{ 'a'|center(1000000000) }}",
    "ljust": "{{ 'a'.ljust(1000000000) }}",
    "ljust often": "{% for i in range(99999) %}{% set x = 'a'.ljust(99999) %}{% endfor %}",
    "zfill": "{{ '1'.zfill(1000000000) }}",
    "expandtabs": "{{ ('\t' * 9999).expandtabs(99999) }}",
    "translate": "{{ ('a' * 99999).translate({97: 'b' * 99999}) }}",
    "width": "{{ '%1000000000d' % 1 }}",
    "width as argument": "{{ '%*d' % (1000000000, 1) }}",
    "widths": "{{ ('%99999d' * 999) % 1 }}",
    "width of format": "{{ '{:>1000000000}'.format(1) }}",
    "width of format as argument": "{{ '{:{w}}'.format(1, w=1000000000) }}",
    "width of the filter": "{{ '%1000000000d'|format(1) }}",
    "replace": "{{ ('a' * 99999).replace('a', 'b' * 99999) }}",
    "replace nothing": "{{ ('a' * 99999).replace('', 'b' * 99999) }}",
    "filter replace": "{{ ('a' * 99999)|replace('a', 'b' * 99999) }}",
    "join": "{{ ('b' * 99999).join(range(9999)|map('string')|list) }}",
    "filter join": "{{ range(99999)|join('b' * 99999) }}",
    "indent": "{{ ('a\n' * 99999)|indent(9999) }}",
    "indent of JSON": "{{ range(9999)|list|tojson(indent=99999) }}",
    "separators of JSON": "{{ range(9999)|list|tojson(separators=('a' * 99999, 'b')) }}",
    "map": "{{ range(99999)|map('center', 99999)|list|length }}",
    "slice": "{{ [1]|slice(1000000000)|list }}",
    "sum of lists": "{{ range(99999)|map('batch', 1)|map('list')|sum(start=[])|length }}",
    "round": "{{ 5|round(-1000000000) }}",
    "to_bytes": "{{ (5).to_bytes(1000000000, 'big') }}",
    "output": "{% set x = 'a' * 99999 %}{% for i in range(99999) %}{{ x }}{% endfor %}",
    "output in a macro": IN_MACRO.replace("@", "'a' * 9999"),
    "lists in texts": IN_MACRO.replace("@", "range(9999)|list"),
    "lists": "{% for i in range(99999) %}{% set b = range(99999)|list %}{% endfor %}",
    "comparing": "{% set a = 'a' * 199999 %}{% for i in range(9999) %}{{ a == a ~ '' }}{% endfor %}",
    "sorting": "{% set a = range(9999)|map('string')|list %}{% for i in range(999) %}{% set b = a|sort %}{% endfor %}",
    "counting words": "{% set a = 'a ' * 99999 %}{% for i in range(9999) %}{% set x = a|wordcount %}{% endfor %}",
    "many texts": "".join(f"{{% set a{index} = 'a' * 199999 %}}" for index in range(2000)),
    "long template": "a" * 1_000_000,
    "dense template": "{{ a }}" * 25_000,
    "deep blocks": "{% if a %}" * 3000 + "{% endif %}" * 3000,
    "deep brackets": "{{ " + "(" * 50_000 + "a" + ")" * 50_000 + " }}",
    "deep lists": "{{ " + "[" * 7000 + "]" * 7000 + " }}",
    "long sum": "{{ 1" + "+1" * 7000 + " }}",
    "long path": "{{ a" + ".b" * 7000 + " }}",
}


@pytest.mark.parametrize("source", REACHING)
def test_stays_inside(source):
    with pytest.raises(ChatTemplateError):
        render(source, MESSAGES)
    assert MESSAGES == {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("name", sorted(ENDLESS))
def test_ends(name):
    started, held = time.thread_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ChatTemplateRefused):
        render(ENDLESS[name], MESSAGES)
    assert time.thread_time() - started < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held < 200_000  # kilobytes


def test_errors_of_templates():
    for source, message in {
        "{{ missing.name }}": "'missing' is undefined",
        "{% if %}": "broken at line 1: Expected an expression",
        "\n{% endfor %}": "broken at line 2",
        "{{ 1 + 'a' }}": "TypeError: 'unsupported operand|TypeError: \"unsupported operand",
        "{{ 1 / 0 }}": "ZeroDivisionError",
        "{{ raise_exception('own words') }}": "^own words$",
    }.items():
        with pytest.raises(ChatTemplateError, match=message) as error:
            render(source, MESSAGES)
        assert not isinstance(error.value, ChatTemplateRefused)


def test_limits_grow_with_the_input():
    messages = [{"role": "user", "content": "word " * 200} for _ in range(1000)]
    source = (
        "{% set ns = namespace(text='', seen=[]) %}"
        "{% for m in messages %}{% set ns.text = ns.text + m.content %}{% set ns.seen = ns.seen + [m.role] %}"
        "{% for other in messages[-20:] %}{% if other.role == m.role %}{% endif %}{% endfor %}{% endfor %}"
        "{{ ns.text }}{{ messages|tojson(ensure_ascii=true) }}{{ ns.seen|length }}"
    )
    text = render(source, {"messages": messages})
    assert text.startswith("word word")
    assert text.endswith("1000")
    assert len(text) > 2_000_000


def test_spans_of_what_is_generated():
    spans = []
    source = "{% for m in messages %}<{% generation %}{{ m.content }}!{% endgeneration %}>{% endfor %}"
    text = render(source, {"messages": [{"content": "ab"}, {"content": "🙂"}]}, spans)
    assert text == "<ab!><🙂!>"
    assert [text[start:end] for start, end in spans] == ["ab!", "🙂!"]
