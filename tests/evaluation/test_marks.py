"""How methods look in plots."""

from promot_jax.evaluation import marks


def test_no_two_methods_share_a_shape():
  methods = ["pretrained", "promot", "multitask_promot", *(f"own_{n}" for n in range(17))]
  looks = marks.of_methods(methods)
  assert len({(look.shape, look.filled) for look in looks.values()}) == len(methods)


def test_a_method_keeps_its_color_beside_others():
  alone = marks.of_methods(["own"])["own"]
  assert marks.of_methods(["promot", "other", "own"])["own"].color == alone.color
  assert marks.of_methods(["multitask_promot"])["multitask_promot"].color == marks.color_of(
    "promot"
  )
