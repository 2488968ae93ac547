#!/usr/bin/env python
"""Writes what docs/ says about the keys of a configuration, from the models that check them.

docs/config.schema.json is the JSON schema named in the first line of every shipped YAML; docs/config.md ends in the
tables of all keys.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"

if __name__ == "__main__":
    argparse.ArgumentParser(prog="write_config_schema", description=__doc__).parse_args()
    from mdg.config import config_page, json_schema  # takes seconds; --help should not

    schema, page = DOCS / "config.schema.json", DOCS / "config.md"
    schema.write_text(json.dumps(json_schema(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    page.write_text(config_page(page.read_text(encoding="utf-8")), encoding="utf-8")
    print(schema, page, sep="\n")
