"""Templates of users: columns in braces and nothing else."""

import pytest

from promot_jax import errors
from promot_jax.data.text_template import TextTemplate


def test_columns_are_filled_in_and_doubled_braces_are_text():
  template = TextTemplate(text="{ a } {{x}} {b c} {a}:")
  assert template.columns == ("a", "b c") and template.only_column is None
  assert template.fill({"a": "1", "b c": "{a}"}) == "1 {x} {a} 1:"


def test_a_template_may_be_one_column_or_none():
  assert TextTemplate(text="{label}").only_column == "label"
  assert TextTemplate(text=" {label}").only_column is None
  assert TextTemplate(text="").fill({}) == "" and TextTemplate(text="").only_column is None


def test_attributes_and_formats_are_names_of_columns():
  assert TextTemplate(text="{a.__class__}{b:>9}{c!r}").columns == ("a.__class__", "b:>9", "c!r")


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("a {b", r"TARGET='a {b' has a '{' alone at character 3"),
    ("a} b", "has a '}' alone at character 2"),
    ("{ }", "names no column"),
    ("{{a}", "has a '}' alone at character 4"),
    (None, "is no text"),
  ],
)
def test_a_wrong_brace_is_named_by_its_place(text, words):
  with pytest.raises(errors.ConfigError, match=words):
    TextTemplate(text=text, name="TARGET")
