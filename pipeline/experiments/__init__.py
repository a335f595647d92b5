"""The tables and figures of both papers as recipes; `pipeline.experiment` runs them."""

from pipeline.experiments import deminet, miss
from pipeline.experiments.recipe import Table

TABLES: dict[str, Table] = {table.id: table for table in (*deminet.TABLES, *miss.TABLES)}
"""Recipes by name."""
