"""PyYAML's safe loader for text of strangers: brackets that open without end are refused where they are read."""

from __future__ import annotations

from typing import Any

import yaml

MAX_DEPTH = 64
TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"


class BoundedLoader(yaml.SafeLoader):
    """For every bracket the scanner goes through up to a thousand that are open: 8000 took it 16 seconds."""

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        if self.flow_level >= MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=TOO_DEEP, problem_mark=self.get_mark())
        super().fetch_flow_collection_start(TokenClass)
