"""The shape of the code, read from its syntax trees: layers, forbidden things, what a command may import."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sslctl"
FILES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# From the ground up: a file imports only what stands before it, or its own package.
ORDER = """
    version errors files schedule spec runtime data backbones layers views methods runs evaluate exchange engine
    visualize profiling tasks cli __main__
""".split()
LIGHT = ["version", "errors", "files", "schedule", "spec", "runtime.stop", "runs.sinks", "tasks"]
HEAVY_TASKS = ["tasks.encoders", "tasks.evaluation", "tasks.session"]  # what other tasks import when they run
HEAVY = {"torch", "torchvision", "timm", "numpy", "sklearn", "scipy", "matplotlib", "PIL", "safetensors"}
CODE_FROM_FILES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
SAFE_GLOBALS = {"torch.serialization.safe_globals([argparse.Namespace])"}  # a class that can only hold values
WRITES_A_PICKLE = "sslctl/exchange/exports/torchvision_file.py"  # of tensors alone, for who reads nothing else
DECODERS_THAT_CRASH = {"decode_image", "decode_png", "read_image"}


class Import(NamedTuple):
    """``module`` (from the package's root where it is ours) on ``line``; ``lazy`` in a function or for types alone."""

    module: str
    line: int
    lazy: bool


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {dotted(path): path for path in FILES}


def show(path: Path, line: int | None = None) -> str:
    return f"{path.relative_to(ROOT)}" + ("" if line is None else f":{line}")


def imports(path: Path) -> Iterator[tuple[bool, Import]]:
    """Every import in the file, with whether it is of the package itself."""
    package = ["sslctl", *path.relative_to(PACKAGE).parts[:-1]]
    lazy = {id(node) for outer in ast.walk(tree(path)) if _runs_later(outer) for node in ast.walk(outer)}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            own = name.split(".")[0] == "sslctl"
            yield own, Import(_module_of(name) if own else name, node.lineno, id(node) in lazy)


def _runs_later(node: ast.AST) -> bool:
    for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    return for_types or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def _module_of(name: str) -> str:
    """``sslctl.data.loader.Batch`` -> ``data.loader``: the longest part of the name that is a file."""
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in MODULES:
        parts.pop()
    return ".".join(parts) or "__init__"


def unit(module: str) -> str:
    return module.split(".")[0]


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_every_file_stands_in_the_order() -> None:
    unknown = {unit(module) for module in MODULES} - set(ORDER) - {"__init__"}
    assert not unknown, f"not in ORDER: {sorted(unknown)}; say between which layers they belong"


def test_contributors_read_the_same_order() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    block = text.split("only upwards** in this list:\n\n```\n")[1].split("```")[0]
    rooms = [line.split()[0].removesuffix("/").removesuffix(".py") for line in block.splitlines()]
    assert rooms == [name for name in ORDER if name != "__main__"]


def test_imports_point_only_upwards() -> None:
    wrong = [
        f"{show(path, found.line)} imports {found.module}"
        for module, path in MODULES.items()
        for own, found in imports(path)
        if own and found.module != "__init__" and unit(found.module) != unit(module) and module != "__init__"
        if ORDER.index(unit(found.module)) > ORDER.index(unit(module))
    ]
    assert not wrong, "\n".join(wrong)


def test_no_cycles_within_a_package() -> None:
    graph = {
        module: {found.module for own, found in imports(path) if own and unit(found.module) == unit(module)} - {module}
        for module, path in MODULES.items()
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for following in sorted(graph[module]):
                visit(following, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def is_light(module: str) -> bool:
    return module not in HEAVY_TASKS and any(
        module == name or module.startswith(f"{name}.") for name in [*LIGHT, "cli", "__init__"]
    )


def test_light_files_and_commands_import_nothing_heavy() -> None:
    wrong = [
        f"{show(path, found.line)} imports {found.module}: move it into the function that needs it"
        for module, path in MODULES.items()
        if is_light(module)
        for own, found in imports(path)
        if not found.lazy and (not is_light(found.module) if own else unit(found.module) in HEAVY)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_file_says_in_its_first_line_what_it_is() -> None:
    wrong = [show(path) for path in [*FILES, *TESTS] if not re.match(r'"""\S.{8,}', path.read_text("utf-8"))]
    assert not wrong, "no docstring in the first line of " + ", ".join(wrong)


def test_no_file_is_a_drawer_for_everything() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not [show(path) for path in FILES if drawers & set(path.relative_to(PACKAGE).with_suffix("").parts)]


# A command or task is tested as it is called, by the name of what it does; the other rooms file by file.
TESTED_BY_CALLING = {"cli", "tasks"}


def test_tests_mirror_the_package() -> None:
    missing = []
    for path in FILES:
        if path.stem in ("__init__", "__main__") or unit(dotted(path)) in TESTED_BY_CALLING:
            continue
        test = ROOT / "tests" / path.relative_to(PACKAGE).with_name(f"test_{path.name}")
        if not test.exists():
            missing.append(f"{show(path)} has no {show(test)}")
    assert not missing, "\n".join(missing)


@cache
def private_names() -> set[str]:
    """Return what begins with one underscore in the package: functions, classes, constants, attributes of self."""
    names: set[str] = set()
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names |= {t.id for t in targets if isinstance(t, ast.Name)}
                names |= {t.attr for t in targets if isinstance(t, ast.Attribute)}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def test_tests_read_no_private_name_of_the_package() -> None:
    wrong = []
    for path in TESTS:
        others = set(names_of_others(tree(path)))
        for node in ast.walk(tree(path)):
            read: list[str] = []
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sslctl":
                read = [alias.name for alias in node.names]
            elif isinstance(node, ast.Attribute) and root(node) not in others | {"self", "cls"}:
                read = [node.attr]
            elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("setattr", "getattr"):
                words = [arg.value for arg in node.args[:2] if isinstance(arg, ast.Constant)]
                read = [str(word).split(".")[-1] for word in words if root(node.args[0]) not in others]
            wrong += [f"{show(path, node.lineno)} reads {name}" for name in read if name in private_names()]
    assert not wrong, "\n".join(wrong)


def names_of_others(tree: ast.Module) -> Iterator[str]:
    """Yield the names by which a file knows what it imports from other packages."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] != "sslctl":
            yield from (alias.asname or alias.name for alias in node.names)


def root(node: ast.AST) -> str:
    """Return ``a`` of ``a.b.c``."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def test_nothing_from_outside_is_run_as_code() -> None:
    wrong = []
    for path in FILES:
        for _, found in imports(path):
            if unit(found.module) in CODE_FROM_FILES or found.module in ("torch.load", "torch.save", "torch.hub"):
                wrong.append(f"{show(path, found.line)} imports {found.module}")
        for name, call in calls(path):
            where = f"{show(path, call.lineno)} {ast.unparse(call)[:60]}"
            loader = ast.unparse(call.args[1]) if len(call.args) > 1 else ""
            if name in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"):
                wrong.append(where)
            if name == "torch.save" and show(path) != WRITES_A_PICKLE:
                wrong.append(where)
            if name == "torch.load" and not any(
                keyword.arg == "weights_only" and ast.unparse(keyword.value) == "True" for keyword in call.keywords
            ):
                wrong.append(where)
            if name.endswith("safe_globals") and ast.unparse(call) not in SAFE_GLOBALS:
                wrong.append(where)
            if name.startswith("torch.hub.") or name.split(".")[-1] in DECODERS_THAT_CRASH:
                wrong.append(where)
            if name.startswith("yaml.") and "load" in name and name != "yaml.safe_load" and loader != "PlainLoader":
                wrong.append(where)
            for keyword in call.keywords:
                risky = keyword.arg in ("shell", "allow_pickle", "trust_remote_code")
                if risky and ast.unparse(keyword.value) != "False":
                    wrong.append(where)
    assert not wrong, "\n".join(wrong)


def test_the_yaml_loader_is_a_safe_one() -> None:
    import yaml

    from sslctl.spec.parsing import PlainLoader

    assert issubclass(PlainLoader, yaml.SafeLoader)


NAMES_IN_CHECKPOINTS = {"sslctl/layers/teacher.py"}  # where a module called ``net`` is not a backbone's network


def test_nobody_but_backbones_touches_a_network_or_asks_what_kind_it_is() -> None:
    wrong = []
    for path in FILES:
        if path.is_relative_to(PACKAGE / "backbones"):
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and node.attr == "net" and show(path) not in NAMES_IN_CHECKPOINTS:
                wrong.append(f"{show(path, node.lineno)} reads .net: what is missing in Backbone?")
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                words = {value.value for value in ast.walk(node) if isinstance(value, ast.Constant)}
                if words & {"vit", "cnn"} and any(isinstance(s, ast.Attribute) and s.attr == "kind" for s in sides):
                    wrong.append(
                        f"{show(path, node.lineno)} compares .kind: ask is_vit, has_class_token, channels_last"
                    )
            reads = isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr")
            if reads and any(isinstance(a, ast.Constant) and a.value in ("net", "kind") for a in node.args):
                wrong.append(f"{show(path, node.lineno)} {ast.unparse(node)}")
    assert not wrong, "\n".join(wrong)


def test_only_the_output_of_the_command_line_prints() -> None:
    wrong = [
        show(path, call.lineno)
        for path in FILES
        if path != PACKAGE / "cli" / "output.py"
        for name, call in calls(path)
        if name in ("print", "sys.stdout.write", "sys.stderr.write", "typer.echo")
    ]
    assert not wrong, "prints outside cli/output.py: " + ", ".join(wrong)


def test_what_is_imported_is_declared_and_the_core_stays_small() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    core = {re.split(r"[<>=\[]", word)[0].lower() for word in project["dependencies"]}
    assert len(core) <= 13
    extras = {
        re.split(r"[<>=\[]", word)[0].lower() for words in project["optional-dependencies"].values() for word in words
    }
    names = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "umap": "umap-learn"}
    names["imageio_ffmpeg"] = "imageio-ffmpeg"
    wrong = []
    for path in FILES:
        for own, found in imports(path):
            name = unit(found.module)
            if own or name in sys.stdlib_module_names:
                continue
            package = names.get(name, name).lower()
            if package not in core and not (package in extras and found.lazy):
                wrong.append(f"{show(path, found.line)} imports {name}")
    assert not wrong, "neither a dependency nor an extra imported where it is needed:\n" + "\n".join(wrong)


WRONG = ["pretrain", "--data", "x", "--method", "swva", "--set", "optim.lrr=1"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["pretrain", "--help"], 0),
        (["knn", "--help"], 0),
        (["linear-eval", "--help"], 0),
        (["attn-map", "--help"], 0),
        (["export", "--help"], 0),
        (["pretrian"], 2),
        (WRONG, 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_answers_that_need_no_torch_import_none(words: list[str], code: int) -> None:
    program = (
        "import sys; sys.argv = ['sslctl', *sys.argv[1:]]\n"
        "from sslctl.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as e: code = e.code\n"
        f"sys.stderr.write('\\nLOADED ' + ' '.join(sorted(set(sys.modules) & {HEAVY!r})))\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stderr
    assert done.stderr.splitlines()[-1] == "LOADED ", done.stderr
    assert bool(done.stdout) == (code == 0)
    if words == WRONG:
        assert "did you mean 'swav'?" in done.stderr
        assert "did you mean 'lr'?" in done.stderr
