#!/usr/bin/env python
"""Writes what docs/ says about the keys of a configuration, from the models that check them.

docs/config.schema.json is the JSON schema named in the first line of every shipped YAML; docs/config.md ends in the
tables of all keys.
"""

from __future__ import annotations

import json
from pathlib import Path

from mdg.config import config_page, json_schema

DOCS = Path(__file__).resolve().parent.parent / "docs"

if __name__ == "__main__":
    schema, page = DOCS / "config.schema.json", DOCS / "config.md"
    schema.write_text(json.dumps(json_schema(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    page.write_text(config_page(page.read_text(encoding="utf-8")), encoding="utf-8")
    print(schema, page, sep="\n")
