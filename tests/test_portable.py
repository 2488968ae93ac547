"""Nothing that Windows or macOS lack is imported or called without asking whether it is there."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "mdg").rglob("*.py"))
UNIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
# What of these modules is missing on Windows or on macOS.
MISSING = {
    "os": {
        "chown", "fork", "forkpty", "getegid", "geteuid", "getgid", "getloadavg", "getpgid", "getpgrp", "getuid",
        "killpg", "mkfifo", "nice", "pread", "pwrite", "register_at_fork", "sched_getaffinity", "sched_setaffinity",
        "setpgid", "setsid", "statvfs", "sync", "uname", "wait", "posix_fadvise", "posix_fallocate", "memfd_create",
    },
    "signal": {
        "SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGSTOP", "SIGUSR1", "SIGUSR2", "alarm",
        "pause", "pthread_kill", "pthread_sigmask", "setitimer", "siginterrupt",
    },
}  # fmt: skip


class Finder(ast.NodeVisitor):
    """Collects what is used and not asked for, with its line."""

    def __init__(self, source: str):
        self.lines, self.asked, self.tries, self.found = source.splitlines(), [], 0, []

    def _text(self, node):
        return "\n".join(self.lines[node.lineno - 1 : node.end_lineno])

    def visit_FunctionDef(self, node):
        self.asked.append(self._text(node))
        self.generic_visit(node)
        self.asked.pop()

    def visit_If(self, node):
        self.visit(node.test)
        self.asked.append(self._text(node.test))
        for part in node.body:
            self.visit(part)
        self.asked.pop()
        for part in node.orelse:
            self.visit(part)

    def visit_Try(self, node):
        caught = " ".join(ast.dump(handler.type) for handler in node.handlers if handler.type)
        self.tries += "ImportError" in caught
        for part in node.body:
            self.visit(part)
        self.tries -= "ImportError" in caught
        for part in [*node.handlers, *node.orelse, *node.finalbody]:
            self.visit(part)

    def visit_Import(self, node):
        self._modules(node.lineno, [alias.name for alias in node.names])

    def visit_ImportFrom(self, node):
        self._modules(node.lineno, [node.module or ""])
        self._names(node.lineno, node.module, {alias.name for alias in node.names})

    def visit_Attribute(self, node):
        if isinstance(node.value, ast.Name):
            self._names(node.lineno, node.value.id, {node.attr})
        self.generic_visit(node)

    def _modules(self, line, names):
        if not self.tries:
            self.found += [(line, name) for name in names if name.split(".")[0] in UNIX_MODULES]

    def _names(self, line, module, names):
        for name in names & MISSING.get(module, set()):
            if not any(f'hasattr({module}, "{name}")' in text or "os.name" in text for text in self.asked):
                self.found.append((line, f"{module}.{name}"))


def uses(source: str) -> list[tuple[int, str]]:
    finder = Finder(source)
    finder.visit(ast.parse(source))
    return finder.found


def test_portable():
    found = {file.relative_to(ROOT).as_posix(): uses(file.read_text(encoding="utf-8")) for file in SOURCES}
    assert {name: used for name, used in found.items() if used} == {}


def test_the_finder_finds():
    assert uses("import os, fcntl\nos.fork()") == [(1, "fcntl"), (2, "os.fork")]
    assert uses("from signal import SIGKILL") == [(1, "signal.SIGKILL")]
    assert uses("try:\n import resource\nexcept ImportError: resource = None") == []
    assert uses('def f():\n if hasattr(os, "fork"):\n  os.fork()') == []
    assert uses('if hasattr(os, "fork"):\n os.fork()\nelse:\n os.fork()') == [(4, "os.fork")]
    assert uses("def f():\n os.fork()") == [(2, "os.fork")]
