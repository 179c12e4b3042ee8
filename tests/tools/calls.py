"""Calls in a program's text, held against the signatures of what they call, without running it."""

import ast
import contextlib
import inspect
from importlib import import_module

import nasjax


class Checked(ast.NodeVisitor):
    """Collects what is wrong with the nasjax names and calls of a program; imports are followed, nothing else runs.

    A name that is bound to an object of ours (`from nasjax import table`) is known until it is assigned anew.
    """

    def __init__(self, names=()):
        self.known, self.wrong, self.calls = {"nasjax": nasjax, **dict(names)}, [], 0

    def visit_Import(self, node):
        for alias in node.names:
            if alias.name.split(".")[0] == "nasjax":
                import_module(alias.name)

    def visit_ImportFrom(self, node):
        if node.module.split(".")[0] != "nasjax":
            return
        module = import_module(node.module)
        for alias in node.names:
            if not hasattr(module, alias.name):
                try:
                    import_module(f"{node.module}.{alias.name}")
                except ImportError:
                    self.wrong.append(f"{node.module} has no {alias.name}")
                    continue
            self.known[alias.asname or alias.name] = getattr(module, alias.name)

    def visit_FunctionDef(self, node):
        self.known.pop(node.name, None)
        self.generic_visit(node)

    def visit_Assign(self, node):
        self.generic_visit(node)
        for target in node.targets:
            for name in ast.walk(target):
                if isinstance(name, ast.Name):
                    self.known.pop(name.id, None)

    def visit_Attribute(self, node):
        self.value(node)
        self.generic_visit(node)

    def visit_Call(self, node):
        called = self.value(node.func)
        elided = any(isinstance(a, ast.Starred) or is_dots(a) for a in node.args) or any(
            k.arg is None for k in node.keywords
        )
        if callable(called):
            try:
                signature = inspect.signature(called)
            except ValueError:  # a builtin that tells none, as in older versions of NumPy
                return self.generic_visit(node)
            self.calls += 1
            bind = signature.bind_partial if elided else signature.bind
            args = [a for a in node.args if not isinstance(a, ast.Starred) and not is_dots(a)]
            try:
                bind(*args, **{k.arg: k.value for k in node.keywords if k.arg is not None})
            except TypeError as error:
                self.wrong.append(f"{ast.unparse(node.func)}: {error}")
        self.generic_visit(node)

    def value(self, node):
        """The object that a dotted name of ours stands for, else None."""
        if isinstance(node, ast.Name):
            return self.known.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self.value(node.value)
            if owner is None or not (inspect.ismodule(owner) or inspect.isclass(owner)):
                return None
            if inspect.ismodule(owner) and hasattr(owner, "__path__") and not hasattr(owner, node.attr):
                with contextlib.suppress(ModuleNotFoundError):  # a module that nothing has imported yet
                    import_module(f"{owner.__name__}.{node.attr}")
            if not hasattr(owner, node.attr):
                line = f"{ast.unparse(node)} is not there"
                if line not in self.wrong:
                    self.wrong.append(line)
                return None
            return getattr(owner, node.attr)
        return None


def is_dots(node):
    return isinstance(node, ast.Constant) and node.value is ...


def wrong_calls(text, names=()):
    """(what is wrong, how many calls of ours were looked at)."""
    checked = Checked(names)
    checked.visit(ast.parse(text))
    return checked.wrong, checked.calls
