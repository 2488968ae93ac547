"""Configuration: YAML with ``_base_`` inheritance and ``--opts`` overrides into typed, validated objects."""

from mdg.config.documentation import config_page, json_schema
from mdg.config.load import dump_yaml, load_config, parse_config
from mdg.config.schema import RunConfig

__all__ = ["RunConfig", "config_page", "dump_yaml", "json_schema", "load_config", "parse_config"]
