"""Which files make up the package.  Metadata and dependencies are in pyproject.toml.

The recipes live in `gin/` at the top of the repository.  That folder is no Python package (a package
of that name would shadow gin-config), so it is installed as the data of `promot_jax.recipes`.
"""

from setuptools import find_namespace_packages, find_packages, setup

recipes = ["promot_jax.recipes"] + [
  f"promot_jax.recipes.{name}" for name in find_namespace_packages("gin")
]

setup(
  packages=find_packages(include=["promot_jax*", "tasks*"]) + recipes,
  package_dir={"promot_jax.recipes": "gin"},
  package_data={
    "promot_jax": [
      "**/*.csv",
      "**/*.json",
      "**/*.npz",
      "**/*.txt",
      "**/*.md",
      "**/*.model",
      "**/*.yaml",
    ],
    **{recipe: ["*.gin"] for recipe in recipes},
  },
)
