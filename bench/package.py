"""The folders that a function's process runs from, without the development environment around it.

`function` is what is deployed: our sources and their dependencies, pruned.
`plain` is what a plain function finds on Lambda: awslambdaric and boto3 as they come. Both for this
machine's Python, both with bytecode.
"""

import compileall
import py_compile
import re
import shutil
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

from bench.parts import ROOT
from infra.package import prune


class Folders(NamedTuple):
    function: Path
    plain: Path


def make(folder: Path) -> Folders:
    """Make both in `folder`; what an earlier section has made is taken as it is."""
    folders = Folders(folder / "function", folder / "plain")
    if folder.exists():
        return folders
    _install(_requirements("sluice"), folders.function)
    for name in ("functions", "shared", "bench"):
        shutil.copytree(ROOT / name, folders.function / name, dirs_exist_ok=True)
    prune(folders.function)
    _install({"awslambdaric", "boto3"}, folders.plain)
    handler = "def handler(event, context):\n    return {}\n"
    (folders.plain / "hello.py").write_text(handler)
    client = "import boto3\n\nclient = boto3.client('dynamodb')\n\n\n"
    (folders.plain / "hello_dynamodb.py").write_text(client + handler)
    for made in folders:
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        compileall.compile_dir(made, quiet=1, invalidation_mode=mode)
    return folders


def _install(names: set[str], target: Path) -> None:
    """Copy distributions and all that they require from where this process has them."""
    seen: set[str] = set()
    while names - seen:
        name = min(names - seen)
        seen.add(name)
        names |= _requirements(name)
        _copy(distribution(name), target)


def _requirements(name: str) -> set[str]:
    wanted = (Requirement(text) for text in distribution(name).requires or ())
    return {
        re.sub("[-_.]+", "-", requirement.name).lower()
        for requirement in wanted
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    }


def _copy(found: Distribution, target: Path) -> None:
    for file in found.files or ():
        # Neither commands, which lie above, nor this environment's bytecode.
        if ".." not in file.parts and file.suffix != ".pyc":
            to = target / file
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), to)
