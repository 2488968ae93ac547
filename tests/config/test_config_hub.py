"""Every YAML that is shipped loads, builds, and agrees with the schema that editors complete from."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import jsonschema
import pytest
import torch
import yaml

from mdg.config import RunConfig, config_page, dump_yaml, load_config
from mdg.config.yaml_tree import read_yaml
from mdg.data import build_transforms
from mdg.engine.study.plan import read_study
from mdg.losses import Objective
from mdg.models import build_model

pytestmark = pytest.mark.no_cover  # every configuration; the code is covered elsewhere

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "docs" / "config.schema.json"
STUDIES = sorted((ROOT / "configs" / "studies").glob("*.yaml"))
FILES = [file for file in sorted((ROOT / "configs").rglob("*.yaml")) if file not in STUDIES]
RUNS = [file for file in FILES if "_base_" not in file.parts]
MODELINE = "# yaml-language-server: $schema="


def ids(file: Path) -> str:
    return str(file.relative_to(ROOT / "configs"))


@pytest.fixture(scope="module")
def schema() -> dict:
    return json.loads(SCHEMA.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def validator(schema) -> jsonschema.protocols.Validator:
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    return kind(schema)


@cache
def loaded(file: Path) -> RunConfig:
    """A run, read once for all tests; nothing changes it."""
    return load_config(file)


@cache
def dumped(file: Path) -> str:
    return dump_yaml(loaded(file))


@pytest.fixture(scope="module")
def no_first_values() -> Iterator[None]:
    """Networks without storage have none to draw, and drawing them takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_"):
            patch.setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)
        yield


def problems(validator, value) -> list[str]:
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in validator.iter_errors(value)]


@functools.cache
def parameters(model: str) -> int:
    """Of a network, built once however many runs train it."""
    with torch.device("meta"):
        built = build_model(json.loads(model), 9, load_pretrained=False)
    return sum(p.numel() for p in built.parameters())


def test_there_is_something_to_test():
    assert len(RUNS) >= 5 and len(FILES) > len(RUNS)


@pytest.mark.parametrize("file", RUNS, ids=ids)
def test_run_loads_and_builds(file, no_first_values):
    config = loaded(file)
    assert config.name == file.stem
    assert len(build_transforms(config.pipeline.train)) == len(config.pipeline.train)
    assert Objective(config.loss, config.auxiliary_loss, num_classes=9, ignore_index=255).terms
    assert parameters(json.dumps(config.model.model_dump(mode="json"))) > 1e6


@pytest.mark.parametrize("file", RUNS, ids=ids)
def test_dump_of_a_run_reads_back_equal(file, tmp_path):
    (tmp_path / "resolved.yaml").write_text(dumped(file), encoding="utf-8")
    assert load_config(tmp_path / "resolved.yaml") == loaded(file)


@pytest.mark.parametrize("file", FILES, ids=ids)
def test_modeline_leads_to_the_schema(file):
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith(MODELINE)
    assert (file.parent / first.removeprefix(MODELINE)).resolve() == SCHEMA


@pytest.mark.parametrize("file", RUNS, ids=ids)
def test_resolved_run_fits_the_schema(file, validator):
    assert problems(validator, yaml.safe_load(dumped(file))) == []


@pytest.mark.parametrize("file", FILES, ids=ids)
def test_file_as_written_has_only_keys_of_the_schema(file, validator):
    """An editor sees the file alone; a red line under a file that runs would teach people to ignore red lines."""
    assert problems(validator, read_yaml(file).values) == []


def test_schema_refuses_what_the_loader_refuses(validator):
    good = yaml.safe_load(dumped(RUNS[0]))
    for part, key, value in [
        ("train", "epochs", 0),
        ("train", "epoch", 3),
        ("data", "hight", 3),
        ("model", "rgb_backbone", "b9"),
        ("model", "decoder", {"type": "Nothing"}),
        ("optimizer", "lr", "fast"),
    ]:
        bad = {**good, part: {**good[part], key: value}}
        assert problems(validator, bad), (part, key, value)
    assert problems(validator, {**good, "sed": 1})


def test_committed_schema_is_current(schema):
    # In a process of its own: other tests register components here, which are none of the schema's.
    code = "import json; from mdg.config import json_schema; print(json.dumps(json_schema()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert schema == json.loads(done.stdout), "regenerate docs/config.schema.json"


def test_committed_tables_of_keys_are_current():
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert page == config_page(page), "run scripts/write_config_schema.py"


@pytest.mark.parametrize("file", STUDIES, ids=ids)
def test_every_run_of_a_study_is_a_configuration(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    study = read_study(file)
    assert len({job.folder for job in study.jobs}) == len(study.jobs) >= len(study.rows)
