"""What describes a feature and the histories: types, and their records in schema.json."""
