from pathlib import Path

import pytest

from infra import package as packaging


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package that is deployed, made once: nobody may write to it."""
    folder = tmp_path_factory.mktemp("package")
    packaging.bundle(folder)
    return folder
