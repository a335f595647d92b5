"""The data contract: schema, encoders, sequences, splits, negatives, example codec, reader."""
