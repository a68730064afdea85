import functools
import hashlib
import json

import pytest

import tasks
from promot_jax import errors
from promot_jax.micro import inference, knowledge, lexicon, prose, translations, world
from promot_jax.micro.dice import Dice

# Looked up once for thousands of records.
find_task = functools.cache(tasks.find)

EVALUATED = ("train", "validation", "test")
TASKS = [name for name in tasks.task_names() if "micro" in find_task(name).sources]


def records(task: str, split: str) -> tuple[dict, ...]:
  return world.records(twin(task), split)


def twin(task: str) -> world.Twin:
  return world.twin_of(find_task(task))


def prompts(task: str, split: str) -> list[str]:
  return [find_task(task).render(record).input for record in records(task, split)]


# In the order in which the digest of their records was taken.
DIGESTED = (
  *("rte", "cb", "wic", "snli", "openbookqa", "wmt14_en_fr", "wmt16_en_de", "wmt16_en_ro"),
  *("xsum", "wiki_lingua", "trivia_qa", "web_questions"),
)


@pytest.mark.parametrize("task", TASKS)
def test_no_prompt_is_in_two_splits_or_twice_in_one(task):
  seen: set[str] = set()
  for split in world.splits(twin(task)):
    texts = prompts(task, split)
    assert len(set(texts)) == len(texts)
    assert not seen.intersection(texts)
    seen.update(texts)


@pytest.mark.parametrize("task", TASKS)
def test_splits_have_their_announced_sizes(task):
  sizes = {split: len(records(task, split)) for split in world.splits(twin(task))}
  assert sizes["validation"] == sizes["test"] == 512
  assert sizes["train"] == (1200 if twin(task).listed else 4000)
  assert not twin(task).pretrained or sizes["pretraining"] > 3000


def test_records_are_the_same_in_every_process_and_python_version():
  # The shipped weights were trained on these very facts; a new digest means they must be remade.
  told = json.dumps([[f.subject, f.relation, f.value] for f in knowledge.facts()])
  assert hashlib.sha256(told.encode()).hexdigest()[:16] == FACTS_DIGEST
  tested = json.dumps([records(task, "test")[:64] for task in DIGESTED])
  assert hashlib.sha256(tested.encode()).hexdigest()[:16] == RECORDS_DIGEST


def test_records_of_the_tuned_tasks_stay_what_results_were_measured_on():
  tested = json.dumps([records(task, "test")[:8] for task in TUNED])
  assert hashlib.sha256(tested.encode()).hexdigest()[:16] == TUNED_DIGEST


TUNED = (
  *("e2e", "webnlg_seen", "webnlg_unseen", "dart", "xsum_news_to_sports", "xsum_within_news"),
  *("nq_open", "squad", "mrqa_relation_extraction", "mrqa_textbook_qa", "mrqa_duorc"),
)
TUNED_DIGEST = "444a4a93c69b5d08"
FACTS_DIGEST = "a158571cb7f8530e"
RECORDS_DIGEST = "a57588cf0a771078"


def test_another_seed_gives_other_facts_about_the_same_subjects():
  one, other = knowledge.facts(0), knowledge.facts(1)
  assert [(f.subject, f.relation) for f in one] == [(f.subject, f.relation) for f in other]
  assert one != other


def test_every_subject_has_one_value_for_each_of_its_relations():
  facts = knowledge.facts()
  assert len({(fact.subject, fact.relation) for fact in facts}) == len(facts)
  assert len(facts) == 7 * len(lexicon.NAMES) + 3 * len(lexicon.CITIES)


@pytest.mark.parametrize("task", ["trivia_qa", "web_questions"])
def test_every_question_has_the_answer_of_the_knowledge_base(task):
  values = {(fact.relation, fact.subject): fact.value for fact in knowledge.facts()}
  for record in records(task, "test"):
    answer = find_task(task).render(record).target
    asked = record["question"].rstrip("?").split()
    found = [value for (_, subject), value in values.items() if subject in asked]
    assert answer in found


@pytest.mark.parametrize("task", ["trivia_qa", "web_questions"])
def test_questions_about_every_fact_are_in_the_pretraining_split(task):
  answered = {
    (subject, find_task(task).render(record).target)
    for record in records(task, "pretraining")
    for subject in record["question"].rstrip("?").split()
  }
  assert all((fact.subject, fact.value) in answered for fact in knowledge.facts())


HAPPENED = {*lexicon.HAPPENED, *lexicon.RARE_HAPPENED}
RARE = {*lexicon.RARE_HAPPENED, *lexicon.RARE_NOT_HAPPENED}
IMPLICATIVE = HAPPENED | RARE | {*lexicon.NOT_HAPPENED}


def implied_label(record: dict) -> int:
  """RTE's label without noise, from the verb of the premise alone."""
  verb = record["premise"].split()[1]
  return inference.ENTAILMENT if verb in HAPPENED else inference.NOT_ENTAILMENT


@pytest.mark.parametrize("split", EVALUATED)
def test_a_few_percent_of_rte_labels_are_wrong_in_every_split(split):
  found = records("rte", split)
  wrong = sum(record["label"] != implied_label(record) for record in found) / len(found)
  assert 0.02 < wrong < 0.07


@pytest.mark.parametrize("split", EVALUATED)
def test_the_majority_class_of_rte_is_between_50_and_57_percent(split):
  found = records("rte", split)
  share = sum(record["label"] == 0 for record in found) / len(found)
  assert 0.5 <= share < 0.57


def test_half_of_rte_has_a_verb_that_pretraining_never_met_some_of_them_very_rarely():
  verbs = [record["premise"].split()[1] for record in records("rte", "train")]
  assert 0.47 < sum(verb in RARE for verb in verbs) / len(verbs) < 0.53
  rarest = {lexicon.RARE_HAPPENED[-1], lexicon.RARE_NOT_HAPPENED[-1]}
  assert 0.01 < sum(verb in rarest for verb in verbs) / len(verbs) < 0.03


def test_pretraining_never_meets_a_rare_verb():
  dice = Dice("rare verbs")
  text = " ".join(prose.inference_text(dice, composed=0.0)[0] for _ in range(2000))
  assert set(text.split()) >= IMPLICATIVE - RARE and not RARE & set(text.split())


def test_labels_of_the_other_classification_tasks_are_as_balanced_as_announced():
  def shares(task: str, name: str = "label") -> list[float]:
    labels = [record[name] for record in records(task, "train")]
    return [labels.count(label) / len(labels) for label in sorted(set(labels))]

  assert shares("cb") == pytest.approx([0.45, 0.40, 0.15], abs=0.03)
  assert shares("wic") == pytest.approx([0.5] * 2, abs=0.03)
  assert shares("snli") == pytest.approx([1 / 3] * 3, abs=0.03)
  assert shares("openbookqa", "answerKey") == pytest.approx([0.25] * 4, abs=0.03)


def test_pretraining_episodes_have_no_implicative_verbs():
  def share(split: str) -> float:
    texts = prompts("cb", split)
    return sum(bool(IMPLICATIVE & set(text.split())) for text in texts) / len(texts)

  assert share("pretraining") == 0
  # 0.45 + 0.40 of the items are not neutral (the label shares of CB); of these 0.4 have such a verb.
  assert share("test") == pytest.approx(0.85 * 0.4, abs=0.03)


def test_wic_offsets_point_at_the_word():
  for record in records("wic", "test"):
    for number in (1, 2):
      text = record[f"sentence{number}"]
      assert text[record[f"start{number}"] : record[f"end{number}"]] == record["word"]


def test_a_wic_label_says_whether_the_contexts_belong_to_one_sense():
  for record in records("wic", "validation"):
    senses = lexicon.HOMONYMS[record["word"]]
    found = [
      next(n for n, sense in enumerate(senses) if set(sense) & set(text.rstrip(".").split()))
      for text in (record["sentence1"], record["sentence2"])
    ]
    assert record["label"] == int(found[0] == found[1])


def test_the_commoner_sense_alone_does_not_decide_wic():
  # The rule "the other sense appears, so the sentences differ" is right except for pairs of it.
  right, both_rarer = 0, 0
  for record in records("wic", "train"):
    rarer = set(lexicon.HOMONYMS[record["word"]][1])
    seen = [bool(rarer & set(record[f"sentence{number}"].rstrip(".").split())) for number in (1, 2)]
    right += record["label"] == int(not any(seen))
    both_rarer += all(seen)
  assert right + both_rarer == 4000
  assert 0.08 < both_rarer / 4000 < 0.15


def test_openbookqa_has_one_right_choice():
  kind_of = {thing: kind for kind, things in lexicon.KINDS.items() for thing in things}
  for record in records("openbookqa", "test"):
    question = record["question"]
    choices = [question[f"choice_{letter}"] for letter in "ABCD"]
    thing = next(word for word in question["stem"].rstrip("?").split() if word in kind_of)
    right = {kind_of[thing], lexicon.FOUND_IN[kind_of[thing]]}
    assert [choice in right for choice in choices].index(True) == record["answerKey"]
    assert len(set(choices)) == 4 and sum(choice in right for choice in choices) == 1


def test_a_clause_is_ordered_by_the_rules_of_each_language():
  clause = translations.Clause(("red", "dog"), "sees", ("", "cat"), "garden")
  said = {language: translations.say(clause, language) for language in ("en", "fr", "de", "ro")}
  assert said == {
    "en": "the red dog sees the cat in the garden.",
    "fr": "le chien rouge voit le chat dans le jardin.",
    "de": "der rot hund der katze im garten sieht.",
    "ro": "caine rosu vede pisica la gradina.",
  }


def test_no_word_belongs_to_two_languages():
  english = set(lexicon.TRANSLATIONS)
  columns = [{row[n] for row in lexicon.TRANSLATIONS.values()} - {""} for n in range(3)]
  for number, column in enumerate(columns):
    assert not column & english
    assert all(not column & other for other in columns[number + 1 :])


def test_summaries_are_bigrams_of_words_from_the_article():
  for task, source, target in (
    ("xsum", "document", "summary"),
    ("wiki_lingua", "source", "target"),
  ):
    for record in records(task, "test"):
      assert set(record[target].replace(".", "").split()) <= set(
        record[source].replace(".", "").split()
      )


def test_an_unknown_split_is_named_with_those_there_are():
  with pytest.raises(errors.ConfigError, match=r"'dev'.*validation"):
    records("cb", "dev")
  with pytest.raises(errors.ConfigError, match="pretraining"):
    records("rte", "pretraining")


def test_a_twin_is_drawn_or_listed():
  for found in ({}, {"draw": inference.rte, "listed": lambda seed: iter(())}):
    with pytest.raises(errors.ConfigError, match="'mine' needs either"):
      world.source("mine", **found)
