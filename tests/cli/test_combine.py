"""`promot combine`: the same numbers in every format, a card that says what of, choices, and what is refused."""

import json
import pathlib
import re

import numpy as np
import pytest

from promot_jax import guarded_json, paths
from promot_jax.checkpoints import huggingface, step_reader, t5x
from promot_jax.cli import combine
from promot_jax.cli.main import main
from promot_jax.errors import ConfigError
from promot_jax.experiments.weights_choice import GreedySoup, Sweep
from promot_jax.networks.combined_weights import CombinedWeights
from promot_jax.networks.network import Network
from promot_jax.networks.operations import Dare, Mean, TaskArithmetic
from shipped_recipes import FOLDER
from tiny_experiments import short_recipe
from tiny_models import config, tiny

CONFIG = config("t5")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """Hugging Face folders of three networks."""
  place = tmp_path_factory.mktemp("combine")
  return [
    str(huggingface.write_hf(place / str(seed), paths.named_leaves(tiny("t5", seed=seed)), CONFIG))
    for seed in range(3)
  ]


def leaves(folder) -> dict[str, np.ndarray]:
  return {name: np.asarray(leaf) for name, leaf in huggingface.open_hf(folder).items()}


@pytest.mark.parametrize("to", ["hf", "t5x", "step"])
def test_every_format_holds_what_the_formula_says(folders, tmp_path, to):
  base, first, second = folders
  out = tmp_path / "out"
  flags = [f"--base={base}", "--operation=task_arithmetic", "--gin.TASK_SCALES=[0.7, -0.2]"]
  assert main(["combine", first, second, str(out), *flags, f"--to={to}", "--step=3"]) == 0
  place = out if to == "hf" else out / "checkpoint_3"
  read = {"hf": huggingface.open_hf, "t5x": t5x.open_t5x, "step": step_reader.open_step}[to]
  found = read(place)
  start, one, two = map(leaves, folders)
  assert found.keys() == start.keys()
  for name, wide in start.items():
    expected = wide + 0.7 * np.subtract(one[name], wide, dtype=np.float64)
    expected -= 0.2 * np.subtract(two[name], wide, dtype=np.float64)
    np.testing.assert_allclose(found[name], expected, rtol=1e-6, atol=1e-6, err_msg=name)
  card = out if to == "step" else place
  text = (card / "README.md").read_text()
  assert "TaskArithmetic(scales=(0.7, -0.2))" in text and first in text and base in text
  record = guarded_json.read(card / "combination.json", shape={"parents": list}, advice="")
  assert [parent["role"] for parent in record.content["parents"]] == ["base", "member", "member"]
  assert all(parent["identity"] for parent in record.content["parents"])


def test_what_is_written_is_what_the_network_is(folders, tmp_path):
  flags = [f"--base={folders[0]}", "--operation=dare", "--gin.DARE_RATE=0.5", "--gin.DARE_SEED=7"]
  assert main(["combine", *folders[1:], str(tmp_path / "out"), *flags, "--quiet"]) == 0
  base, *members = (Network(backbone=CONFIG, checkpoint=folder) for folder in folders)
  operation = Dare(rate=0.5, seed=7, then=TaskArithmetic(scales=0.5))
  built = CombinedWeights(base=base, members=members, operation=operation).build()
  found = leaves(tmp_path / "out")
  for name, leaf in paths.named_leaves(built).items():
    np.testing.assert_array_equal(found[name], leaf, err_msg=name)


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (["--operation=tie"], r"is no operation. Did you mean 'ties'\?"),
    (["--operation=ties"], "needs the network that the others began with"),
    (["--operation=soup", "--base=BASE"], "takes no --base"),
    (["--operation=soup", "--gin.SOUP_WEIGHTS=[1.0]"], "are 1 numbers for 2 networks"),
    (["--operation=soup", "--gin.TIES_DENSITY=0.1"], "no gin file of this run has a macro"),
    (["--operation=ties", "--base=BASE", "--gin.TIES_DENSITY=2"], "Ties.density=2 must be numbers"),
    (["--operation=soup", "--to=npz"], "--to=npz is not written; use one of hf, t5x, step"),
    (["--operation=greedy_soup"], "is no model directory of a run"),
    (["--operation=wise_ft_sweep", "--base=BASE"], "between the base and one network, and 2"),
    (["--operation=soup", "--model=t5_1_1_small"], "is of another model"),
  ],
)
def test_what_cannot_be_combined_writes_nothing(folders, tmp_path, capsys, flags, words):
  flags = [flag.replace("BASE", folders[0]) for flag in flags]
  assert main(["combine", *folders[1:], str(tmp_path / "out"), *flags]) == 2
  assert re.search(words, " ".join(capsys.readouterr().err.split()))
  assert not list(tmp_path.iterdir())


def test_other_sizes_existing_folders_and_nan_are_refused(folders, tmp_path, capsys):
  other = huggingface.write_hf(
    tmp_path / "other",
    paths.named_leaves(tiny("t5", mlp_width=24)),
    config("t5", mlp_width=24),
  )
  soup = ["--operation=soup", "--quiet"]
  assert main(["combine", folders[0], str(other), str(tmp_path / "out"), *soup]) == 2
  assert "mlp/wi_0/kernel" in capsys.readouterr().err
  assert main(["combine", *folders, str(other), *soup]) == 2
  assert "is not overwritten" in capsys.readouterr().err
  broken = leaves(folders[0])
  broken["decoder/decoder_norm/scale"] = np.full(12, np.nan, np.float32)
  bad = str(huggingface.write_hf(tmp_path / "bad", broken, CONFIG))
  assert main(["combine", folders[1], bad, str(tmp_path / "out"), *soup]) == 74
  assert "decoder/decoder_norm/scale" in capsys.readouterr().err
  assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "other"]


def test_a_greedy_soup_keeps_what_does_not_make_the_mean_worse():
  given = {(1, 2): 80.0, (0, 1, 2): 79.0, (1, 2, 3): 80.0}
  asked = []

  def measure(operation, members):
    asked.append((operation, tuple(members)))
    return given[tuple(members)]

  # By their own scores: 1, then 2, and of the two equal ones the first named.
  chosen = GreedySoup()([60.0, 75.0, 61.0, 60.0], measure)
  assert asked == [(Mean(), members) for members in given]
  assert chosen.members == (1, 2, 3) and chosen.operation == Mean()
  assert [trial.kept for trial in chosen.trials] == [True, True, False, True]


def test_a_sweep_takes_the_smallest_of_equal_weights():
  scores = {0.0: 50.0, 0.25: 80.0, 0.5: 80.0, 1.0: 79.0}
  sweep = Sweep(weights=[1, 0.5, 0.25, 0])
  chosen = sweep([79.0], lambda operation, members: scores[operation.scales])
  assert chosen.operation == TaskArithmetic(scales=0.25)
  assert [trial.score for trial in chosen.trials if trial.kept] == [80.0]
  assert len(chosen.trials) == 4
  with pytest.raises(ConfigError, match="name at least two"):
    GreedySoup().require(1)


def test_every_operation_is_found_by_its_file():
  assert set(combine.names(".")) >= {path.stem for path in FOLDER.glob("operations/*.gin")}


@pytest.mark.slow
def test_choices_are_made_on_the_validation_of_runs(tmp_path, capsys):
  (tmp_path / "small.gin").write_text(short_recipe("model") + "INITIAL_CHECKPOINT_PATH = 'micro'\n")
  runs = [str(tmp_path / f"run{seed}") for seed in (0, 1)]
  for seed, run in enumerate(runs):
    files = ["fine_tune_rte.gin", "micro.gin", str(tmp_path / "small.gin")]
    flags = [*(f"--gin_file={name}" for name in files), f"--seed={seed}", f"--model_dir={run}"]
    assert main(["train", *flags, "--quiet"]) == 0
  capsys.readouterr()
  soup = ["combine", *runs, str(tmp_path / "soup"), "--operation=greedy_soup", "--json"]
  assert main(soup) == 0
  found = json.loads(capsys.readouterr().out)
  assert len(found["trials"]) == 2 and found["trials"][0]["kept"]
  assert [parent["facts"]["seed"] for parent in found["parents"]] == [0, 1]
  wise = ["combine", runs[0], str(tmp_path / "wise"), "--operation=wise_ft_sweep", "--json"]
  assert main([*wise, "--gin.SWEEP_WEIGHTS=[0, 1]"]) == 0
  found = json.loads(capsys.readouterr().out)
  # At weight 1 it is the run itself, whose score was recorded.
  assert found["trials"][1]["score"] == found["parents"][1]["facts"]["score on validation"]
  assert found["parents"][0]["role"] == "base" and pathlib.Path(tmp_path / "wise").is_dir()
