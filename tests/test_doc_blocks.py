"""What stands in fenced blocks of README and docs: arguments, configurations and Python are taken; and (slow) every
command, file and program of every page runs, in a folder like a fresh clone."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import shutil
from pathlib import Path

import doc_sandbox
import pytest
import yaml
from commands import REPOSITORY
from doc_blocks import PAGES, arguments_of, blocks, commands, script_of, write_files

from mdg.config import load_config
from mdg.engine.study.plan import read_study

ALL = [block for page in PAGES for block in blocks(page)]
COMMANDS = [(block, command) for block in ALL if block.language == "bash" for command in commands(block)]
OURS = [(block, command) for block, command in COMMANDS if arguments_of(command)]


def parser_of(script: str) -> argparse.ArgumentParser | None:
    """The parser of a script that is three lines around a command; None for those with arguments of their own."""
    script = {"tools/train_ddp.sh": "tools/train.py", "tools/val_ddp.sh": "tools/val_mm.py"}.get(script, script)
    text = (REPOSITORY / script).read_text(encoding="utf-8")
    found = re.search(r"from mdg\.commands(?:\.(\w+) import main| import (\w+))", text)
    if found is None:
        return None
    dataset = re.search(r'dataset="(\w+)"', text)
    module = importlib.import_module(f"mdg.commands.{found[1] or found[2]}")
    return module.parse(dataset[1]) if dataset else module.parse()


def test_pages_have_blocks():
    assert len(ALL) > 60 and len(OURS) > 60
    assert {block.language for block in ALL} == {"bash", "python", "yaml"}


@pytest.mark.parametrize(("block", "command"), OURS, ids=[f"{b.place}-{n}" for n, (b, _) in enumerate(OURS)])
def test_arguments_are_taken(block, command, capsys):
    script, arguments = arguments_of(command)
    assert (REPOSITORY / script).is_file()
    parser = parser_of(script)
    if parser is None:
        return
    try:
        parser.parse_args(arguments)
    except SystemExit:
        pytest.fail(f"{command}\n{capsys.readouterr().err}")
    config, opts = config_and_opts(arguments)
    if config is None or not (REPOSITORY / config).is_file() or any("custom_imports" in word for word in opts):
        return
    if script == "scripts/run_study.py":
        assert read_study(REPOSITORY / config).jobs
    else:
        load_config(REPOSITORY / config, opts)


def config_and_opts(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The configuration that is named, and what overrides its keys."""
    after = arguments[arguments.index("--opts") + 1 :] if "--opts" in arguments else []
    opts = [word for word in after if re.match(r"^[\w.]+=", word)]
    return next((word for word in arguments if word.startswith("configs/") and word.endswith(".yaml")), None), opts


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "python"], ids=lambda block: block.place)
def test_python_parses_and_names_what_is_there(block):
    import mdg

    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mdg"):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, name.name) for name in node.names)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "mdg":
            assert hasattr(mdg, node.attr), node.attr


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "yaml"], ids=lambda block: block.place)
def test_yaml_is_taken(block, tmp_path):
    content = yaml.safe_load(block.text)
    if content is None:
        return  # a comment for editors
    file = tmp_path / "page.yaml"
    if "rows" in content:
        file.write_text(block.text, encoding="utf-8")
        assert read_study(file).jobs
    elif "custom_imports" not in content:
        place = (REPOSITORY / (block.file or "README.md")).parent  # the page's name of its base is seen from there
        base = place / content.pop("_base_", "configs/mfnet/mdg_b2.yaml")
        file.write_text(yaml.safe_dump({"_base_": str(base), **content}), encoding="utf-8")
        load_config(file, [])


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    return doc_sandbox.build(tmp_path_factory.mktemp("reader"))


@pytest.mark.slow  # a process for each command of a page, half a minute to five minutes a page
@pytest.mark.parametrize("page", [page for page in PAGES if script_of(page, "").count("\n") > 1])
def test_every_block_of_a_page_runs(page, clone, tmp_path):
    folder = tmp_path / clone.name
    shutil.copytree(clone.parent, tmp_path, symlinks=True, dirs_exist_ok=True)
    write_files(page, folder)
    code, said = doc_sandbox.run(folder, script_of(page, doc_sandbox.RUN))
    assert code == 0, said[max(said.rfind("@@ "), 0) :]
