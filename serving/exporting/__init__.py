"""From a trained run to a published version: signatures, gates, warm-up, model card."""
