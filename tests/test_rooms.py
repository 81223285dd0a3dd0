"""The rooms of the package: no imports in a circle or from a room below, and one of each tool."""

import ast
from pathlib import Path

import pytest

#: What data and metrics must work without.
MODEL_SIDE = {
    *("models", "engine", "checkpoint", "data_engines", "visualization", "apis", "labelling"),
    *("export", "cli", "testing"),
}
PURE = ("ops", "prompts", "chat", "datasets", "evaluation")
#: What models must work without; they read files of weights, but know no format of a system.
AROUND_MODELS = MODEL_SIDE - {"models", "checkpoint"}
FILES_OF_WEIGHTS = "llmdet.checkpoint.files"


def imports_of(root: Path) -> dict[str, set[str]]:
    """Modules of ``root/llmdet`` -> those they import anywhere, also in functions and for types."""
    files = {}
    for file in sorted((root / "llmdet").rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return {name: set(_imported(name, file, files)) for name, file in files.items()}


def _imported(name: str, file: Path, known: dict[str, Path]):
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                # A package that one only takes a module from is not what one needs of it.
                yield from [module for module in (inner, base) if module in known][:1]


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Sets of modules that reach one another, by what each one reaches."""
    reached = {name: _reach(graph, name) for name in graph}
    found = {frozenset(n for n in reached[m] if m in reached[n]) for m in graph if m in reached[m]}
    return sorted(sorted(group) for group in found)


def _reach(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    ahead = list(graph[start])
    while ahead:
        module = ahead.pop()
        if module not in seen:
            seen.add(module)
            ahead.extend(graph[module])
    return seen


@pytest.fixture(scope="module")
def graph(root: Path) -> dict[str, set[str]]:
    found = imports_of(root)
    assert len(found) > 150
    return found


def test_no_modules_import_each_other_in_a_circle(graph):
    assert circles(graph) == []


def test_circles_are_found_in_functions_and_for_types(tmp_path):
    package = tmp_path / "llmdet"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("if TYPE_CHECKING:\n    from .b import B\n")
    (package / "b.py").write_text("def f():\n    from llmdet import c\n")
    (package / "c.py").write_text("import llmdet.a\n")
    (package / "d.py").write_text("from llmdet.a import A\n")
    assert circles(imports_of(tmp_path)) == [["llmdet.a", "llmdet.b", "llmdet.c"]]


def below(graph: dict[str, set[str]], room: str, forbidden: set[str]) -> list[tuple[str, str]]:
    return [
        (module, other)
        for module, others in graph.items()
        for other in sorted(others)
        if _room(module) == room and _room(other) in forbidden
    ]


def _room(module: str) -> str:
    return module.removeprefix("llmdet.").partition(".")[0]


@pytest.mark.parametrize("room", PURE)
def test_text_data_and_metrics_need_no_model(graph, room):
    assert any(_room(module) == room for module in graph)
    assert below(graph, room, MODEL_SIDE) == []


def test_models_need_nothing_that_runs_them(graph):
    assert below(graph, "models", AROUND_MODELS) == []
    weights = {other for _, other in below(graph, "models", {"checkpoint"})}
    assert weights <= {FILES_OF_WEIGHTS}


@pytest.mark.parametrize(
    ("tool", "place"),
    [
        ("AutoTokenizer.from_pretrained", "prompts/tokenizers.py"),
        ("get_close_matches", "utils/suggest.py"),
        ("ijson.", "datasets/json_stream.py"),
    ],
)
def test_tokenizers_near_matches_and_long_json_are_read_in_one_place(root, tool, place):
    package = root / "llmdet"
    users = [str(f.relative_to(package)) for f in package.rglob("*.py") if tool in f.read_text()]
    assert [user for user in users if not user.startswith("testing/")] == [place]
