# Copyright (c) 2026, the stackless.block authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the design promises about the code's shape, held by reading the code. Every rule is also shown a sample that breaks it."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Callable, Iterator

import pytest

from tests.rig.collection import ROOT

PLUGINS = ROOT / "plugins"
UTILS = PLUGINS / "module_utils"
ENGINE = UTILS / "_reconcile.py"

MOST_LINES, MOST_COMPLEX, MOST_MODULE_LINES = 40, 8, 80
ENGINE_ONLY = {"check_mode", "fail_json", "exit_json", "sleep", "flock", "lockf"}
NOT_PURE = {"fcntl", "io", "multiprocessing", "os", "pathlib", "random", "secrets", "shutil", "signal", "socket", "subprocess", "tempfile", "threading", "time"}
FORKS = (ast.If, ast.IfExp, ast.For, ast.While, ast.ExceptHandler)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
INTERFACES = {"_backups", "_volumes", "_targets", "_hosts"}
DOCS = {"DOCUMENTATION", "EXAMPLES", "RETURN"}

Rule = Callable[[ast.Module], "list[str]"]


def sources(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.rglob("*.py")) if "__pycache__" not in path.parts]


def pure_files() -> list[Path]:
    return sorted({*UTILS.rglob("_plan_*.py"), *(UTILS / "_model").glob("*.py")})


# ---- the rules: each takes a parsed file and returns what breaks it ---------------------------------------------------


def engine_only_words(tree: ast.Module) -> list[str]:
    """Check mode, failing, waiting and locking: the words stand in no other file than the engine."""
    used = [(node.attr, node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    used += [(node.id, node) for node in ast.walk(tree) if isinstance(node, ast.Name)]
    used += [(name.name, node) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in node.names]
    return [f"line {node.lineno}: {word} belongs to _reconcile.py" for word, node in used if word in ENGINE_ONLY]


def impure_imports(tree: ast.Module) -> list[str]:
    """Planners and the model import the standard library without its ways to the outside, and each other."""
    wrong = impure_interface(tree)
    own = [f"line {line}: imports {name}" for line, level, name in imports(tree) if level and not is_pure_own(name)]
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return wrong + own + [f"line {node.lineno}: calls {node.func.id}()" for node in calls if node.func.id in {"open", "print", "input", "exec", "eval"}]


def impure_interface(tree: ast.Module) -> list[str]:
    """What planners may see of the back ends, their verbs, brings no way to the outside along; drivers come later, by name."""
    return [f"line {line}: imports {name}" for line, level, name in imports(tree) if not (level or is_pure_stdlib(name))]


def imports(tree: ast.Module) -> Iterator[tuple[int, int, str]]:
    """(line, dots, module) of every import; `from . import x` counts as x."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, 0, name.name) for name in node.names)
        if isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module else [name.name for name in node.names]
            yield from ((node.lineno, node.level, name) for name in names)


def is_pure_stdlib(name: str) -> bool:
    top = name.split(".")[0]
    return top in sys.stdlib_module_names and top not in NOT_PURE


def is_pure_own(name: str) -> bool:
    """Relative imports: the model, other planners, the errors, of the engine the values Plan and Step, a back end's interface."""
    top = name.split(".")[0]
    if name in INTERFACES:
        return True
    return top.startswith("_plan_") or top in {"_model", "_errors", "_reconcile"} or (UTILS / "_model" / f"{top}.py").exists()


def long_or_tangled(tree: ast.Module) -> list[str]:
    found = []
    for function in (node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)):
        lines = function.end_lineno - function.lineno + 1
        if lines > MOST_LINES:
            found.append(f"line {function.lineno}: {function.name} has {lines} lines, more than {MOST_LINES}")
        if complexity(function) > MOST_COMPLEX:
            found.append(f"line {function.lineno}: {function.name} has complexity {complexity(function)}, more than {MOST_COMPLEX}")
    return found


def complexity(function: ast.AST) -> int:
    """McCabe's number: one, and one for each place where the way forks, `and` and `or` included; a comprehension is one way."""
    forks = [node for node in own_nodes(function) if isinstance(node, FORKS)]
    ands = [node for node in own_nodes(function) if isinstance(node, ast.BoolOp)]
    return 1 + len(forks) + sum(len(node.values) - 1 for node in ands)


def own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function without those of functions inside it, which are counted for themselves."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, FUNCTIONS):
            yield child
            yield from own_nodes(child)


def untyped(tree: ast.Module) -> list[str]:
    found = []
    for function in (node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)):
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        arguments += [a for a in (function.args.vararg, function.args.kwarg) if a]
        bare = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
        if bare or function.returns is None:
            lacking = [*bare, *(["its result"] if function.returns is None else [])]
            found.append(f"line {function.lineno}: {function.name} lacks the type of {', '.join(lacking)}")
    return found


def shells(tree: ast.Module) -> list[str]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    shelled = [n for n in calls if any(k.arg in ("shell", "use_unsafe_shell") and not is_false(k.value) for k in n.keywords)]
    named = [n for n in calls if ast.unparse(n.func) in ("os.system", "os.popen", "subprocess.getoutput")]
    return [f"line {node.lineno}: {ast.unparse(node)} goes through a shell" for node in shelled + named]


def is_false(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def probed_formats(tree: ast.Module) -> list[str]:
    """A command that begins with qemu-img names the format (-f, or -O for a new one) in the same list."""
    lists = [node for node in ast.walk(tree) if isinstance(node, (ast.List, ast.Tuple))]
    commands = [[e.value for e in node.elts if isinstance(e, ast.Constant)] for node in lists]
    return [f"line {node.lineno}: qemu-img without -f" for node, words in zip(lists, commands) if words[:1] == ["qemu-img"] and "-f" not in words]


def long_module(tree: ast.Module) -> list[str]:
    """A module is documentation and wiring: what is neither documentation nor blank stays short."""
    documentation = sum(node.end_lineno - node.lineno + 1 for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id in DOCS)
    lines = tree.body[-1].end_lineno - documentation
    return [f"{lines} lines outside its documentation, more than {MOST_MODULE_LINES}"] if lines > MOST_MODULE_LINES else []


# ---- the code keeps them ---------------------------------------------------------------------------------------------

RULES: dict[Rule, list[Path]] = {
    engine_only_words: [path for path in sources(PLUGINS) if path != ENGINE],
    impure_imports: pure_files(),
    impure_interface: [path for name in sorted(INTERFACES) if (path := UTILS / name / "__init__.py").exists()],
    long_or_tangled: sources(UTILS, PLUGINS / "modules"),
    untyped: sources(UTILS, PLUGINS / "modules"),
    shells: sources(PLUGINS),
    probed_formats: sources(PLUGINS),
    long_module: sources(PLUGINS / "modules"),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_code_keeps_the_rule(rule: Rule) -> None:
    assert RULES[rule], "the rule has nothing to look at"
    broken = {str(path.relative_to(ROOT)): found for path in RULES[rule] if (found := rule(ast.parse(path.read_text())))}
    assert not broken, "\n".join(f"{path}: {what}" for path, found in broken.items() for what in found)


def test_every_module_is_told_of_check_mode() -> None:
    silent = [path.name for path in sources(PLUGINS / "modules") if "supports_check_mode=True" not in path.read_text()]
    assert silent == []


def test_every_module_takes_part_in_the_action_group() -> None:
    import yaml

    runtime = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text())
    assert runtime["action_groups"]["block"] == [path.stem for path in sources(PLUGINS / "modules")]


# ---- and a rule that finds nothing would be no rule ------------------------------------------------------------------

LONG = "def f() -> None:\n" + "    a = 1\n" * MOST_LINES
TANGLED = "def f(x: int) -> int:\n" + "".join(f"    if x == {n} and x:\n        return x\n" for n in range(4)) + "    return 0\n"
BREAKING = [
    (engine_only_words, "module.fail_json(msg='no')"),
    (engine_only_words, "if module.check_mode:\n    pass"),
    (engine_only_words, "from time import sleep"),
    (engine_only_words, "fcntl.flock(1, 2)"),
    (impure_imports, "import os"),
    (impure_imports, "from subprocess import run"),
    (impure_imports, "import libvirt"),
    (impure_imports, "from ._hosts.libvirt import Connection"),
    (impure_imports, "from ._targets.tgt import Tgt"),
    (impure_interface, "import subprocess"),
    (impure_imports, "open('/etc/passwd')"),
    (long_or_tangled, LONG),
    (long_or_tangled, TANGLED),
    (untyped, "def f(x) -> None: ..."),
    (untyped, "def f(x: int): ..."),
    (untyped, "class A:\n    def f(self, *rest) -> None: ..."),
    (shells, "subprocess.run(line, shell=True)"),
    (shells, "module.run_command(line, use_unsafe_shell=unsafe)"),
    (shells, "os.system('true')"),
    (probed_formats, "run(['qemu-img', 'info', path])"),
    (long_module, "DOCUMENTATION = r'''\ntext\n'''\n" + "a = 1\n" * 100),
]
KEEPING = [
    (impure_imports, "import dataclasses\nfrom ._model.data import Secret\nfrom ._plan_volume import plan\nfrom ._errors import Refused"),
    (long_or_tangled, "def f() -> None:\n" + "    a = 1\n" * (MOST_LINES - 1)),
    (untyped, "class A:\n    def f(self, x: int, *rest: str) -> None: ..."),
    (shells, "subprocess.run(['true'], shell=False)"),
    (probed_formats, "run(['qemu-img', 'info', '-f', 'raw', path])"),
    (long_module, "DOCUMENTATION = r'''\n" + "text\n" * 200 + "'''\na = 1\n"),
]


@pytest.mark.parametrize(("rule", "sample"), BREAKING, ids=lambda value: getattr(value, "__name__", None))
def test_the_rule_finds_what_breaks_it(rule: Rule, sample: str) -> None:
    assert rule(ast.parse(sample))


@pytest.mark.parametrize(("rule", "sample"), KEEPING, ids=lambda value: getattr(value, "__name__", None))
def test_the_rule_leaves_the_rest_alone(rule: Rule, sample: str) -> None:
    assert rule(ast.parse(sample)) == []
