"""Recipes of the tables and figures of both papers, and of tables beyond them."""

from pipeline.experiments import beyond, deminet, miss
from pipeline.experiments.recipe import Table

TABLES: dict[str, Table] = {
    table.id: table for table in (*deminet.TABLES, *miss.TABLES, *beyond.TABLES)
}
"""Recipes by name."""
