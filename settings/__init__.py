"""Configs: typed schemas, their checks, and the reading of YAML over them."""
