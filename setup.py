"""What pyproject.toml cannot say: the configs travel as vlax/configs, and extras are read from the lists of requirements."""

from pathlib import Path

from setuptools import find_packages, setup


def listed(name: str) -> list[str]:
    """The requirements in a file, one a line."""
    lines = (line.partition("#")[0].strip() for line in Path(name).read_text().splitlines())
    return [line for line in lines if line]


setup(
    packages=[*find_packages(include=["vlax", "vlax.*"]), "vlax.configs"],
    package_dir={"vlax.configs": "configs"},
    extras_require={
        "gpu": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
        "fuzz": ["atheris>=3.0,<4"],  # benchmarks/fuzz.py
        "ray": ["ray>=2.50,<3"],  # vlax data prepare --runner=ray
        "serve": listed("requirements-serve.txt"),  # vlax serve
        "wandb": ["wandb>=0.19,<1"],  # run.trackers
        "mlflow": ["mlflow-skinny>=3.0,<4"],
        "trackio": ["trackio>=0.20,<1"],
        "parity": listed("requirements-parity.txt"),
        "dev": listed("requirements-dev.txt"),
    },
)
