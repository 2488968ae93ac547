"""Who may import whom: arrows point one way, so that every room can be read without those above it."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# From the lowest floor up. A room may import from the floors below its own, also inside of functions.
FLOORS = [
    {"errors"},
    {"utils"},
    {"fields", "registry", "launch", "metrics", "ops"},
    {"options"},
    {"config", "data", "models"},
    {"losses"},
    {"engine"},
    {"benchmark", "web"},
    {"commands"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(file): file for file in (ROOT / "mdg").rglob("*.py")}


def room(module: str) -> str:
    return (module.split(".") + [""])[1]


def imports(file: Path) -> Iterator[str]:
    """Modules of mdg that a file imports anywhere but for the types of annotations."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            while name and name not in MODULES:
                name = name.rpartition(".")[0]
            if name:
                yield name


ARROWS = {module: sorted(set(imports(file)) - {module, "mdg"}) for module, file in MODULES.items()}


def test_every_room_has_a_floor():
    assert {room(module) for module in MODULES} - {""} == set(FLOOR)


@pytest.mark.parametrize("module", sorted(module for module in MODULES if room(module)))
def test_a_room_imports_from_the_floors_below_it(module):
    above = [
        other for other in ARROWS[module] if room(other) != room(module) and FLOOR[room(other)] >= FLOOR[room(module)]
    ]
    assert not above, f"{module} (floor {FLOOR[room(module)]}) imports {above}"


def test_no_circles():
    # A package imports its own modules, and they import their siblings by their own names.
    order = graphlib.TopologicalSorter(
        {m: [other for other in others if MODULES[other].name != "__init__.py"] for m, others in ARROWS.items()}
    )
    order.prepare()  # raises CycleError, which names the modules


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import mdg.config", ("torch", "cv2", "mdg.data", "mdg.models")),
        ("import mdg; mdg.load_config('configs/demo.yaml')", ("torch", "cv2", "mdg.data", "mdg.models")),
        ("import mdg.launch", ("torch", "numpy", "pydantic")),
        ("import mdg.engine", ("torchvision", "timm", "tensorboard", "matplotlib", "numba")),
    ],
)
def test_what_is_not_loaded(code, heavy):
    code = f"{code}; import sys; print(*(name for name in {heavy!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_arrows_are_found():
    """The tests above would pass where none is."""
    used = defaultdict(set)
    for module, others in ARROWS.items():
        used[room(module)] |= {room(other) for other in others}
    assert "ops" in used["models"] and "data" in used["engine"] and "engine" in used["benchmark"]
    assert "benchmark" in used["commands"]
