"""Soft prompts on a small stand-in backbone: initial values, banks, attaching and detaching."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promot_jax import errors, paths
from promot_jax.methods import initializers, prompt
from promot_jax.models import preparation

VOCABULARY, WIDTH, LENGTH, TASKS = 11, 5, 4, 3


class Embedder(nnx.Module):
  def __init__(self, rngs):
    self.embedding = nnx.Param(jax.random.normal(rngs.params(), (VOCABULARY, WIDTH)))


class Encoder(nnx.Module):
  def __init__(self):
    self.scale = nnx.Param(jnp.ones(WIDTH))
    self.prompt = nnx.data(None)


class Backbone(nnx.Module):
  """Has the parts of an encoder that a prompt touches."""

  def __init__(self, rngs):
    self.token_embedder = Embedder(rngs)
    self.encoder = Encoder()

  @property
  def reader(self):
    return self.encoder

  def __call__(self, tokens, prompt_ids=None):
    given = {} if prompt_ids is None else {"prompt_ids": prompt_ids}
    encoder = preparation.prepare(self, given).encoder
    embeddings = self.token_embedder.embedding[...][tokens]
    mask = tokens > 0
    if encoder.prompt is not None:
      embeddings, mask = encoder.prompt(embeddings, mask)
    return embeddings * encoder.scale[...], mask


@pytest.fixture
def model():
  return Backbone(nnx.Rngs(0))


@pytest.fixture
def table(model):
  return np.asarray(model.token_embedder.embedding[...])


def attached_values(model, initializer, *, length=LENGTH, tasks=1, seed=0):
  method = prompt.SoftPrompt(length=length, tasks=tasks, initializer=initializer)
  attached = method.attach(model, nnx.Rngs(seed))
  return np.asarray(paths.named_leaves(attached)["encoder/prompt/prompt"])


TOKENS = np.array([[3, 4, 1], [5, 1, 0]])


def test_the_prompt_stands_before_the_input_and_is_attended(model):
  attached = prompt.SoftPrompt(length=LENGTH).attach(model, nnx.Rngs(1))
  values = np.asarray(attached.encoder.prompt.prompt[...])
  plain, _ = model(TOKENS)
  embeddings, mask = attached(TOKENS)
  assert embeddings.shape == (2, LENGTH + 3, WIDTH)
  np.testing.assert_array_equal(embeddings[:, :LENGTH], np.stack([values, values]))
  np.testing.assert_array_equal(embeddings[:, LENGTH:], plain)
  expected = [[1] * LENGTH + [1, 1, 1], [1] * LENGTH + [1, 1, 0]]
  np.testing.assert_array_equal(mask, np.array(expected, bool))


def test_the_prompt_follows_the_compute_dtype_and_stays_float32_itself(model):
  attached = prompt.SoftPrompt(length=LENGTH).attach(model, nnx.Rngs(1))
  embeddings, _ = attached.encoder.prompt(jnp.zeros((2, 3, WIDTH), jnp.bfloat16), TOKENS > 0)
  assert embeddings.dtype == jnp.bfloat16
  assert attached.encoder.prompt.prompt[...].dtype == jnp.float32


def test_attach_shares_every_backbone_array_and_leaves_the_backbone_alone(model):
  before = paths.named_leaves(model)
  attached = prompt.SoftPrompt(length=LENGTH).attach(model, nnx.Rngs(1))
  after = paths.named_leaves(attached)
  assert set(after) - set(before) == {"encoder/prompt/prompt"}
  assert all(after[name] is before[name] for name in before)
  assert model.encoder.prompt is None


def test_detach_gives_back_the_same_program_and_the_same_bits(model):
  method = prompt.SoftPrompt(length=LENGTH)
  detached = method.detach(method.attach(model, nnx.Rngs(1)))
  assert nnx.split(detached)[0] == nnx.split(model)[0]
  before = paths.named_leaves(model)
  for name, leaf in paths.named_leaves(detached).items():
    assert leaf is before[name]


def test_the_method_pattern_selects_the_prompt_only(model):
  method = prompt.SoftPrompt(length=LENGTH, tasks=TASKS)
  attached = method.attach(model, nnx.Rngs(1))
  assert paths.match(method.parameters, paths.named_leaves(attached)) == ["encoder/prompt/prompt"]


def test_a_frozen_random_prompt_gets_no_gradient_and_the_backbone_does(model):
  method = prompt.SoftPrompt(length=LENGTH)
  attached = method.attach(model, nnx.Rngs(1))
  graphdef, trainable, frozen = paths.split(attached, [".*", "!" + method.parameters])

  def loss(trainable):
    return paths.merge(graphdef, trainable, frozen)(TOKENS)[0].sum()

  gradients = paths.named_leaves(jax.grad(loss)(trainable))
  assert set(gradients) == {"encoder/scale", "token_embedder/embedding"}
  # the backbone sees the prompt: its scale's gradient is the sum over prompt and input rows
  expected = np.asarray(attached(TOKENS)[0]).sum((0, 1))
  np.testing.assert_allclose(gradients["encoder/scale"], expected, rtol=1e-5)


def test_attaching_works_on_abstract_models(model):
  method = prompt.SoftPrompt(length=LENGTH, tasks=TASKS)
  abstract = nnx.eval_shape(lambda: method.attach(Backbone(nnx.Rngs(0)), nnx.Rngs(1)))
  assert paths.named_leaves(abstract)["encoder/prompt/prompt"].shape == (TASKS, LENGTH, WIDTH)


def test_each_example_gets_the_prompt_of_its_task(model):
  method = prompt.SoftPrompt(length=LENGTH, tasks=TASKS)
  attached = method.attach(model, nnx.Rngs(1))
  bank = np.asarray(attached.encoder.prompt.prompt[...])
  assert bank.shape == (TASKS, LENGTH, WIDTH)
  assert not np.array_equal(bank[0], bank[1])
  embeddings, _ = jax.jit(lambda ids: attached(TOKENS, ids))(np.array([2, 0]))
  np.testing.assert_array_equal(embeddings[:, :LENGTH], bank[[2, 0]])


def test_gradients_of_a_bank_reach_the_tasks_of_the_batch_only(model):
  method = prompt.SoftPrompt(length=LENGTH, tasks=TASKS)
  attached = method.attach(model, nnx.Rngs(1))
  graphdef, trainable, frozen = paths.split(attached, method.parameters)

  def loss(trainable):
    return paths.merge(graphdef, trainable, frozen)(TOKENS, np.array([2, 2]))[0].sum()

  gradient = np.asarray(jax.grad(loss)(trainable)["encoder"]["prompt"]["prompt"][...])
  np.testing.assert_array_equal(
    gradient, [np.zeros((LENGTH, WIDTH))] * 2 + [np.full((LENGTH, WIDTH), 2)]
  )


def test_a_bank_without_prompt_ids_is_an_error(model):
  attached = prompt.SoftPrompt(length=LENGTH, tasks=TASKS).attach(model, nnx.Rngs(1))
  with pytest.raises(errors.ConfigError, match="prompt_ids"):
    attached(TOKENS)


def test_an_unknown_id_never_reads_another_tasks_prompt(model):
  attached = prompt.SoftPrompt(length=LENGTH, tasks=TASKS).attach(model, nnx.Rngs(1))
  embeddings, _ = attached(TOKENS, np.array([TASKS, 0]))
  assert np.isnan(embeddings[0, :LENGTH]).all() and np.isfinite(embeddings[1]).all()


@pytest.mark.parametrize("ids", [[0, 3], [-1, 0], None])
def test_unknown_and_missing_prompt_ids_are_data_errors_on_the_host(ids):
  ids = None if ids is None else np.array(ids)
  with pytest.raises(errors.DataError):
    prompt.check_prompt_ids(ids, TASKS)


def test_known_prompt_ids_pass_the_host_check(model):
  prompt.check_prompt_ids(np.array([[0, 2], [1, 1]]), TASKS)
  prompt.check_prompt_ids(None, 1)
  assert prompt.prompt_count(model) == 0
  assert prompt.prompt_count(prompt.SoftPrompt().attach(model, nnx.Rngs(0))) == 1
  bank = prompt.SoftPrompt(tasks=TASKS).attach(model, nnx.Rngs(0))
  assert prompt.prompt_count(bank) == TASKS


def test_attaching_twice_and_detaching_nothing_are_errors(model):
  method = prompt.SoftPrompt(length=LENGTH)
  with pytest.raises(errors.ConfigError, match="already"):
    method.attach(method.attach(model, nnx.Rngs(0)), nnx.Rngs(0))
  with pytest.raises(errors.ConfigError, match="no soft prompt"):
    method.detach(model)
  with pytest.raises(errors.ConfigError, match="length is 0"):
    prompt.SoftPrompt(length=0)


def test_random_uniform_fills_its_interval(model):
  values = attached_values(model, initializers.RandomUniform(), length=400)
  assert 0 <= values.min() < 0.01 and 0.49 < values.max() < 0.5
  assert abs(values.mean() - 0.25) < 5 * 0.5 / np.sqrt(12 * values.size)
  values = attached_values(model, initializers.RandomUniform(scale=1.0, lowest=-2.0), length=400)
  assert -2 <= values.min() < -1.98 and 0.98 < values.max() < 1


def test_different_seeds_draw_different_prompts_and_equal_seeds_the_same(model):
  draw = lambda seed: attached_values(model, initializers.RandomUniform(), seed=seed)  # noqa: E731
  np.testing.assert_array_equal(draw(3), draw(3))
  assert not np.array_equal(draw(3), draw(4))


def rows_in_table(values, table):
  """Index of each row in the table; every row must be there exactly."""
  return [int(np.flatnonzero((table == row).all(axis=1))[0]) for row in values]


def test_sampled_vocabulary_takes_distinct_rows_of_the_population(model, table):
  draws = [
    rows_in_table(
      attached_values(model, initializers.SampledVocabulary(population=6), seed=s), table
    )
    for s in range(20)
  ]
  assert all(len(set(draw)) == LENGTH for draw in draws)
  assert set().union(*draws) == set(range(6))


def test_sampled_vocabulary_repeats_rows_only_when_the_prompt_is_longer(model, table):
  drawn = rows_in_table(
    attached_values(model, initializers.SampledVocabulary(population=2), length=9), table
  )
  assert set(drawn) == {0, 1}
  drawn = rows_in_table(
    attached_values(model, initializers.SampledVocabulary(), length=VOCABULARY), table
  )
  assert sorted(drawn) == list(range(VOCABULARY))


def test_class_labels_are_means_of_their_tokens_then_the_filling(model, table):
  labels = initializers.ClassLabels(labels=((3,), (4, 7)))
  values = attached_values(model, labels)
  np.testing.assert_array_equal(values[0], table[3])
  np.testing.assert_allclose(values[1], (table[4] + table[7]) / 2, rtol=1e-6)
  filling = attached_values(model, initializers.SampledVocabulary())
  np.testing.assert_array_equal(values[2:], filling[2:])


def test_class_labels_repeat_in_order_without_a_filling(model, table):
  values = attached_values(model, initializers.ClassLabels(labels=((3,), (4,), (9,)), fill=None))
  np.testing.assert_array_equal(values, table[[3, 4, 9, 3]])


def test_text_gives_one_row_per_token_then_the_filling(model, table):
  fill = initializers.RandomUniform()
  values = attached_values(model, initializers.FromText(ids=(5, 2), fill=fill))
  np.testing.assert_array_equal(values[:2], table[[5, 2]])
  np.testing.assert_array_equal(values[2:], attached_values(model, fill)[2:])
  values = attached_values(model, initializers.FromText(ids=(5, 2, 8), fill=None))
  np.testing.assert_array_equal(values, table[[5, 2, 8, 5]])


@pytest.mark.parametrize(
  "initializer, words",
  [
    (initializers.ClassLabels(labels=((1,),) * 5), "no room for 5"),
    (initializers.ClassLabels(labels=((VOCABULARY,),)), "outside"),
    (initializers.ClassLabels(labels=()), "at least one"),
    (initializers.ClassLabels(labels=((1,), ())), "no empty"),
    (initializers.FromText(ids=(1, 2, 3, 4, 5)), "no room for 5"),
    (initializers.FromText(ids=(-1,)), "outside"),
    (initializers.FromText(ids=()), "no token"),
    (initializers.SampledVocabulary(population=0), "population"),
    (initializers.RandomUniform(scale=0.0), "empty"),
    (initializers.FromArray(array=np.zeros((LENGTH, WIDTH + 1))), "shape"),
    (initializers.FromArray(array=np.full((LENGTH, WIDTH), np.nan)), "NaN"),
    (initializers.FromArray(array=np.full((LENGTH, WIDTH), "x")), "dtype"),
    (initializers.FromFile(path="/does/not/exist.npy"), "cannot be read"),
    (initializers.PerTask(initializers=()), "none for task number 0"),
  ],
)
def test_values_that_do_not_fit_are_config_errors(model, initializer, words):
  with pytest.raises(errors.ConfigError, match=words):
    attached_values(model, initializer)


def test_arrays_are_taken_as_they_are_for_one_or_all_tasks(model):
  values = np.random.default_rng(0).normal(size=(TASKS, LENGTH, WIDTH)).astype(np.float32)
  one = initializers.FromArray(array=values[0])
  np.testing.assert_array_equal(attached_values(model, one), values[0])
  np.testing.assert_array_equal(attached_values(model, one, tasks=2), values[[0, 0]])
  all_tasks = initializers.FromArray(array=values)
  np.testing.assert_array_equal(attached_values(model, all_tasks, tasks=TASKS), values)
  with pytest.raises(errors.ConfigError, match="3 tasks"):
    attached_values(model, all_tasks, tasks=TASKS + 1)


def test_each_task_may_have_its_own_initializer(model, table):
  values = np.random.default_rng(0).normal(size=(LENGTH, WIDTH)).astype(np.float32)
  per_task = initializers.PerTask(
    initializers=(
      initializers.FromText(ids=(5, 2), fill=None),
      initializers.FromArray(array=values),
    )
  )
  bank = attached_values(model, per_task, tasks=2)
  np.testing.assert_array_equal(bank, np.stack([table[[5, 2, 5, 2]], values]))


def test_npy_and_npz_files_are_read(model, tmp_path):
  values = np.random.default_rng(0).normal(size=(2, LENGTH, WIDTH)).astype(np.float32)
  with open(tmp_path / "encoder.prompt.prompt.prompt", "wb") as file:
    np.save(file, values[0])
  np.savez(tmp_path / "one.npz", prompt=values[1])
  np.savez(tmp_path / "two.npz", rte=values[0], cb=values[1])
  read = lambda **given: attached_values(model, initializers.FromFile(**given))  # noqa: E731
  np.testing.assert_array_equal(read(path=tmp_path / "encoder.prompt.prompt.prompt"), values[0])
  np.testing.assert_array_equal(read(path=tmp_path / "one.npz"), values[1])
  np.testing.assert_array_equal(read(path=str(tmp_path / "two.npz"), name="cb"), values[1])
  with pytest.raises(errors.ConfigError, match="rte, cb"):
    read(path=tmp_path / "two.npz")


def test_pickled_and_foreign_files_are_refused(model, tmp_path):
  np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
  (tmp_path / "text.npy").write_text("not a prompt")
  for name, words in (("objects.npy", "holds Python objects"), ("text.npy", r"not a \.npy")):
    with pytest.raises(errors.ConfigError, match=words):
      attached_values(model, initializers.FromFile(path=tmp_path / name))


@pytest.mark.parametrize("task", ["rte", "mrpc", "sst2"])
def test_published_prompts_of_t5_base_load(shared_data, task):
  class Base(Backbone):
    def __init__(self, rngs):
      super().__init__(rngs)
      self.token_embedder.embedding = nnx.Param(jnp.zeros((VOCABULARY, 768)))

  path = shared_data / "pretrained_prompts" / "t5_1_1_lm100k_base" / f"{task}.npy"
  values = attached_values(Base(nnx.Rngs(0)), initializers.FromFile(path=path), length=100)
  np.testing.assert_array_equal(values, np.load(path))
