#!/usr/bin/env python
"""Writes docs/config.schema.json, the JSON schema named in the first line of every shipped YAML."""

from __future__ import annotations

import json
from pathlib import Path

from mdg.config import json_schema

TARGET = Path(__file__).resolve().parent.parent / "docs" / "config.schema.json"

if __name__ == "__main__":
    TARGET.write_text(json.dumps(json_schema(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(TARGET)
