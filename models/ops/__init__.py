"""What layers and training need beneath them: replicas, randomness, precision, optimisers."""
