"""Where compiled programs are kept, and who decides."""

import jax
import pytest

from vlax.storage import compiled


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: jax.config.values[name] for name in names}
    monkeypatch.setattr(compiled, "_chosen", False)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def where() -> str | None:
    return jax.config.values["jax_compilation_cache_dir"]


def test_a_loaded_model_keeps_its_programs_where_training_does(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    compiled.keep_by_default()
    assert where() == str(tmp_path / ".cache" / "vlax" / "xla")
    assert jax.config.values["jax_persistent_cache_min_compile_time_secs"] == 0.3


def test_what_was_chosen_before_stays(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))  # the user's own, or the environment's
    compiled.keep_by_default()
    assert where() == str(tmp_path)
    jax.config.update("jax_compilation_cache_dir", None)
    compiled.keep("")  # run.compilation_cache="", or serve's flag
    compiled.keep_by_default()
    assert where() is None
