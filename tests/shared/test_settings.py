"""Settings: read in one place, and all of them documented."""

import ast
from dataclasses import fields
from pathlib import Path

from shared.settings import Settings

ROOT = Path(__file__).parents[2]


def test_unset_and_empty_mean_the_default() -> None:
    assert Settings.from_env({}) == Settings()
    assert Settings.from_env({"SLUICE_STREAMS_TABLE": ""}) == Settings()


def test_a_setting_is_taken_from_its_variable() -> None:
    assert Settings.from_env({"SLUICE_STREAMS_TABLE": "x"}).streams_table == "x"


def test_which_models_are_offered_and_told_apart() -> None:
    bedrock = Settings(bedrock_models="a, b")
    assert bedrock.offered_models == ("demo", "bedrock/a", "bedrock/b")
    named = Settings(bedrock_models="a", models="openai/x, bedrock/a")
    assert named.offered_models == ("openai/x", "bedrock/a")
    assert named.told_models == {"demo", "openai/x", "bedrock/a"}


def test_every_setting_is_in_the_readmes_table_with_its_default() -> None:
    readme = (ROOT / "README.md").read_text()
    for field in fields(Settings):
        default = f"`{field.default}`" if field.default else ""
        row = f"| `{field.metadata['env']}` | {default} | {field.metadata['about']} |"
        assert row.replace("|  |", "| |") in readme, row


def test_no_other_file_reads_the_environment() -> None:
    """But for what AWS itself tells the runtime."""
    for path in [*(ROOT / "shared").rglob("*.py"), *(ROOT / "functions").rglob("*.py")]:
        if path.name == "settings.py" or "runtime" in path.parts:
            continue
        names = {
            node.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute)
        }
        assert not names & {"environ", "getenv"}, path
