"""Files of templates: which there are, what they write of a record, and what is wrong with one."""

import pytest

from promot_jax.data import promptsource
from promot_jax.data.templates import NoText
from promot_jax.errors import ConfigError, DataError

THREE = """\
dataset: own
templates:
  1-a: !Template
    answer_choices: True ||| False
    id: 1-a
    jinja: '{{premise}} Is it true that {{hypothesis}} ||| {% if label != -1 %}{{ answer_choices[label] }}{% endif %}'
    metadata: !TemplateMetadata
      metrics:
      - Accuracy
      original_task: true
    name: is it true
  1-b: !Template
    answer_choices: '{{hypothesis}} ||| not {{hypothesis}}'
    jinja: "{% if premise %}\\n{{premise}} Then? ||| {{ answer_choices[label] }}{% endif %}"
    name: then
  1-c: !Template
    jinja: 'Make a sentence of {{hypothesis}} ||| {{premise}}'
    metadata: !TemplateMetadata {metrics: [ROUGE, BLEU], original_task: false}
    name: make
"""
RECORD = {"premise": "It rains.", "hypothesis": "it is wet", "label": 1}


@pytest.fixture
def read(tmp_path):
  def written(text: str):
    file = tmp_path / "t.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return promptsource.read(str(file))

  return written


def test_each_template_says_what_it_reads_and_how_it_is_measured(read):
  first, then, make = read(THREE)
  assert [each.name for each in (first, then, make)] == ["is it true", "then", "make"]
  assert first.columns == ("hypothesis", "label", "premise") and make.columns == (
    "hypothesis",
    "premise",
  )
  assert first.labels == ("True", "False") and then.labels == make.labels == ()
  assert (first.ranked, then.ranked, make.ranked) == (True, True, False)
  assert (first.original, then.original, make.original) == (True, True, False)
  assert make.metrics == ("ROUGE", "BLEU")


def test_a_record_becomes_input_target_and_choices(read):
  first, then, make = (template.render(RECORD) for template in read(THREE))
  assert (first.input, first.target) == ("It rains. Is it true that it is wet", "False")
  assert first.answers == ("False",) and first.choices == ("True", "False")
  assert then.target == "not it is wet" and then.choices == ("it is wet", "not it is wet")
  assert make.target == "It rains." and make.choices == ()


def test_a_hidden_label_has_no_target_and_a_record_without_text_takes_no_part(read):
  first, then, _ = read(THREE)
  assert first.render({**RECORD, "label": -1}).answers == ()
  with pytest.raises(NoText):
    then.render({**RECORD, "premise": ""})


def test_what_a_template_draws_is_the_same_whenever_a_record_is_read(read):
  text = THREE.replace("||| {{premise}}", "||| {{ [1, 2, 3, 4, 5, 6, 7] | choice }}{{premise}}")
  again = {read(text)[2].render(RECORD).target for _ in range(3)}
  assert len(again) == 1
  others = {read(text)[2].render({**RECORD, "premise": str(n)}).target[0] for n in range(30)}
  assert len(others) > 3


@pytest.mark.parametrize("name", ["choice", "random"])
def test_answers_that_are_drawn_for_each_record_are_no_labels(read, name):
  drawn = "{{ ['True', 'Yes', 'Right'] | NAME }} ||| False".replace("NAME", name)
  first = read(THREE.replace("answer_choices: True ||| False", f'answer_choices: "{drawn}"'))[0]
  assert first.labels == () and first.ranked
  found = {first.render({**RECORD, "premise": str(n)}).choices for n in range(30)}
  assert len(found) == 3 and {choices[1] for choices in found} == {"False"}


def test_records_that_do_not_fit_are_refused(read):
  first, _, make = read(THREE)
  with pytest.raises(DataError, match="needs column 'label'; the record has: 'premise'"):
    first.render({"premise": "x", "hypothesis": "y"})
  (wrong,) = read(
    THREE.replace("{{ answer_choices[label] }}", "Maybe")[: THREE.index("  1-b") - 22]
  )
  with pytest.raises(
    DataError, match="template 'is it true' has the target 'Maybe', which is none of its"
  ):
    wrong.render(RECORD)
  with pytest.raises(DataError, match="no element 7"):
    first.render({**RECORD, "label": 7})
  empty = read(THREE.replace("not {{hypothesis}}'", "{{premise}}'"))[1]
  with pytest.raises(DataError, match="empty answer among its 2"):
    empty.render({"premise": " ", "hypothesis": "y", "label": 0})
  divided = read(THREE.replace("||| {{premise}}", "||| {{premise}} ||| c"))[2]
  with pytest.raises(DataError, match="template 'make' writes 3 parts"):
    divided.render(RECORD)
  assert make.render({**RECORD, "premise": "a ||| b"}).target == "a ||| b"


ONE = "templates:\n  a: !Template\n    name: t\n    jinja: '{{x}} ||| {{y}}'\n"
# (content, part of the message)
WRONG = [
  (ONE.replace("|||", "||"), "template 't' has no '|||': expected what the model reads"),
  (ONE.replace("{{x}}", "x").replace("{{y}}", "y"), "template 't' names no column: expected one in braces"),
  (ONE + "    answer_choices: 'Yes ||| '\n", "template 't' has an empty answer among its 2 answer choices"),
  (ONE + "    answer_choices: ' '\n", "template 't': 'answer_choices' is ' '; expected texts"),
  (ONE + "    answer_choices: [Yes, No]\n", "template 't': 'answer_choices' is ["),
  (ONE.replace("{{y}}", "{{answer_choices[y]}}"), "template 't' names answer_choices and has none"),
  (ONE.replace("{{y}}", "{{y"), "template 't' is no template, line 1 of its text"),
  (ONE.replace("'{{x}} ||| {{y}}'", "3"), "template 't': 'jinja' is 3; expected a text"),
  (ONE + "    metadata: !TemplateMetadata\n      metrics: Accuracy\n", "expected a list such as [Accuracy]"),
  (ONE + ONE[11:].replace("  a:", "  b:"), "two templates of the name 't'"),
  (ONE.replace("!Template", "!Other"), "t.yaml:2 is no YAML of templates: could not determine a constructor for the tag '!Other'; the tags are !Template"),
  ("a: [1\n", "t.yaml:2 is no YAML of templates"),
  ("a:\t- 1\n b: 2", "is no YAML of templates"),
  ("", "has no templates: expected 'templates:'"),
  ("templates: {}", "has no templates"),
  ("templates: {a: text}", "entry 'a' of 'templates' is no !Template"),
  ("a: 1\na: 2\n", "t.yaml:2 is no YAML of templates: 'a' stands twice"),
  (b"templates: \xff", "t.yaml:1 is no UTF-8"),
  ("? [1]\n: 2\n", "is no YAML of templates"),
  ("a: 2001-99-99", "is no YAML of templates"),
  ("x" * 2**19, "at most 262,144 bytes"),
]  # fmt: skip


@pytest.mark.parametrize("content, message", WRONG)
def test_a_file_that_cannot_be_used_is_refused_with_file_and_template(read, content, message):
  with pytest.raises(DataError) as found:
    read(content)
  assert message in str(found.value) and "\n" not in str(found.value)


def test_a_file_that_is_not_there_is_a_wrong_setting(tmp_path):
  with pytest.raises(ConfigError, match=r"none.yaml cannot be read: No such file"):
    promptsource.read(str(tmp_path / "none.yaml"))


REAL = {
  "super_glue/rte": (10, {"premise": "P.", "hypothesis": "H.", "label": 1}),
  "super_glue/copa": (12, {"premise": "P.", "question": "cause", "choice1": "A", "choice2": "B", "label": 1}),
  "openbookqa/main": (7, {"question_stem": "Q", "choices": {"text": list("wxyz"), "label": list("ABCD")}, "answerKey": "C"}),
  "trivia_qa/unfiltered": (5, {"question": "Q?", "answer": {"aliases": ["a", "b"], "value": "a"}}),
  "web_questions": (5, {"question": "Q?", "answers": ["a", "b"]}),
  "xsum": (10, {"document": "D", "summary": "S"}),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_templates_write_records_of_their_data_set(shared_data, name):
  count, record = REAL[name]
  found = promptsource.read(str(shared_data / "promptsource" / name / "templates.yaml"))
  assert len(found) == count
  silent = 0
  for template in found:
    try:
      text = template.render(record)
    except NoText:
      silent += 1
      continue
    assert text.target and text.input and "{{" not in text.input + text.target
    assert not template.ranked or text.target in text.choices
  assert silent == (2 if name == "super_glue/copa" else 0)  # two are for effects only
