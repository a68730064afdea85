"""Templates of strangers: what they may write, what they cannot reach, and that they end."""

import time

import pytest

from promot_jax.data.sandbox import Template
from promot_jax.errors import DataError


def parts(text: str, seed: int = 0, **values) -> tuple[str, ...]:
  return Template(text=text, where="t.yaml, template 'x'").parts(values, seed=seed)


# (template, values, what Jinja's documentation says that it writes)
WRITTEN = [
  ("{{a}} or {{b}}?", {"a": "x", "b": 2}, ("x or 2?",)),
  ("{{a}}\n ||| {{b}} ", {"a": "x", "b": "y"}, ("x", "y")),
  ("{% if n > 1 %}many{% else %}one{% endif %}", {"n": 2}, ("many",)),
  ("{% for x in c %}{{loop.index}}{{x}} {% endfor %}", {"c": ["u", "v"]}, ("1u 2v",)),
  ('{% for k in range(c | length) %}{{"-".join([c[k], "z"])}}{% endfor %}', {"c": "ab"}, ("a-zb-z",)),
  ('{{ c.text | join("|||") }}', {"c": {"text": ["u", "v|||w"]}}, ("u", "v|||w")),
  ('{{ c[{"A": 0, "B": 1}[k]] }}', {"c": ["u", "v"], "k": "B"}, ("v",)),
  ("{{ a ~ b ~ 1 }}{{ a + b }}", {"a": "x", "b": "y"}, ("xy1xy",)),
  ("{{ a | upper | replace('X', 'o') }}", {"a": "axa"}, ("AoA",)),
  ("{{ c | map('lower') | unique | join }}", {"c": ["A", "a", "B"]}, ("ab",)),
  ("{{ c | most_frequent | join }}", {"c": ["b", "a", "b", "a", "c"]}, ("ba",)),
  ("{{ a.split(',')[-1].strip() }}{{ a[:2] }}", {"a": "xy, z"}, ("zxy",)),
  ("{% set ns = namespace(n=0) %}{% for x in c %}{% set ns.n = ns.n + x %}{% endfor %}{{ns.n}}", {"c": [1, 2]}, ("3",)),
  ("{{ 'y' if b is defined else 'n' }}{{ c | default('d') }}", {"a": 1}, ("nd",)),
  ("{% raw %}{{ a }}{% endraw %}", {"a": 1}, ("{{ a }}",)),
]  # fmt: skip


@pytest.mark.parametrize("text, values, written", WRITTEN)
def test_it_writes(text, values, written):
  assert parts(text, **values) == written


def test_the_names_that_it_reads_are_told_without_a_record():
  found = Template(text="{% for k in c %}{{k}}{{d.e}}{{range(3)}}{% endfor %} ||| {{f}}", where="x")
  assert found.names == ("c", "d", "f") and found.divides
  assert not Template(text="{{ a }}|| |", where="x").divides


def test_what_is_drawn_follows_the_seed():
  text, values = "{{ c | choice }} {{ c | random }}", {"c": list(range(100))}
  assert parts(text, 3, **values) == parts(text, 3, **values) != parts(text, 4, **values)
  assert len({parts("{{ [1, 2, 3] | choice }}", seed) for seed in range(20)}) == 3


def test_a_value_is_never_read_as_a_template():
  assert parts("{{ a }} ||| b", a="{{ 1 + 1 }}{% for %} ||| c") == (
    "{{ 1 + 1 }}{% for %} ||| c",
    "b",
  )


# (template, part of the message)
REFUSED = [
  ("{{ missing }}", "'missing' is undefined"),
  ("{{ a.b.c }}", "no attribute 'b'"),
  ("{{ a[9] }}", "no element 9"),
  ("{{ null }}", "missing .null."),
  ("{{ a", "unexpected end of template"),
  ("{% frob %}", "line 1 of its text"),
  ("{{ a | frob }}", "no filter 'frob'; there are choice"),
  ("{{ a is frob }}", "No test named 'frob'|no test 'frob'"),
  ("{{ a * a }}", "computes str . str"),
  ("{{ a % 3 }}", "computes str % int"),
  ("{{ [] | choice }}", "empty list"),
]


@pytest.mark.parametrize("text, message", REFUSED)
def test_a_mistake_is_one_sentence_with_file_and_template(text, message):
  with pytest.raises(DataError, match=message) as found:
    parts(text, a="x", null=None)
  assert str(found.value).startswith("t.yaml, template 'x'") and "\n" not in str(found.value)


WITHOUT_END = [
  "{{ 'a' * 1000000000 }}",
  "{{ a * 1000000000 }}",
  "{{ range(1000000000) | length }}",
  "{% set ns = namespace(a='aa') %}{% for i in range(99) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}",
  "{% set ns = namespace(a='aa') %}{% for i in range(99) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
  "{% set ns = namespace(a=[1]) %}{% for i in range(99) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
  "{% set ns = namespace(a=[1]) %}{% for i in range(40) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ns.a}}",
  "{% set ns = namespace(n=9) %}{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
  "{% for i in range(9999) %}{% for j in range(9999) %}{% for k in range(9999) %}{% endfor %}{% endfor %}{% endfor %}",
  "{% for i in range(9999) %}{{ long }}{% endfor %}",
  "{{ long.replace('', long) }}",
  "{{ long | replace('x', long) }}",
  "{{ long.join(long) }}",
  "{{ [long, long] | join(long) | replace('x', long) }}",
  "{{ many | string }}",
  "{{ many }}",
]


@pytest.mark.parametrize("text", WITHOUT_END)
def test_it_ends_soon_and_does_not_fill_the_memory(text):
  start = time.thread_time()
  with pytest.raises(DataError, match=r"too much text|too often|too large|no text"):
    parts(text, a="x", long="x" * 20_000, many=["x" * 500_000] * 100)
  assert time.thread_time() - start < 3


def test_one_that_does_not_end_is_not_tried_for_every_record():
  template = Template(text="{{ ' ' * n }}", where="t.yaml, template 'x'")
  assert template.parts({"n": 5}) == ("",)
  for _ in range(8):
    with pytest.raises(DataError, match="too much text"):
      template.parts({"n": 10**9})
  with pytest.raises(DataError, match="too much text"):
    template.parts({"n": 5})


@pytest.mark.parametrize(
  "text",
  [
    "{{ " + "(" * 5000 + ")" * 5000 + " }}",
    "{{ " + "+".join(["1"] * 5000) + " }}",
    "{{ " + "not " * 5000 + "a }}",
    "{{ a" + ".b" * 5000 + " }}",
    "{{ " + "9" * 5000 + " }}",
    "{% if a %}" * 500 + "{% endif %}" * 500,
    "x" * 70_000,
  ],
)
def test_one_that_is_too_long_or_too_deep_is_refused(text):
  with pytest.raises(DataError, match=r"too deeply|at most|digits"):
    parts(text, a="x")
