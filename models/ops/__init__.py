"""Operations for layers and training: replicas, randomness, precision, optimisers, C++."""
