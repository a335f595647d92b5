"""The models without their embeddings and losses, one per file."""
