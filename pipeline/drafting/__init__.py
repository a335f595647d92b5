"""A schema drafted from the first rows of a log: facts of its columns, rules, reasons."""
