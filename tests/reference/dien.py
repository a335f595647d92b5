"""DIEN from its equations, one step at a time."""

import numpy as np

from tests.reference.deminet import mlp, softmax
from tests.reference.interactions import augru


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def gru(history, kernel, state_kernel, bias):
    """States after each event; gates side by side: share of the old state, reset, proposal.

    `bias` has a row for the input's side and one for the state's side.
    """
    units = state_kernel.shape[0]
    h, states = np.zeros(units), []
    for x in history:
        of_x, of_h = x @ kernel + bias[0], h @ state_kernel + bias[1]
        old = sigmoid(of_x[:units] + of_h[:units])
        reset = sigmoid(of_x[units:-units] + of_h[units:-units])
        proposal = np.tanh(of_x[-units:] + reset * of_h[-units:])
        h = old * h + (1.0 - old) * proposal
        states.append(h)
    return np.reshape(states, [len(history), units])


def attention(states, target, kernel):
    return softmax([h @ kernel @ target for h in states])


def logit(fields, history, target, extra, weights):
    state = np.zeros(history.shape[1])
    if len(history):
        states = gru(history, *weights["gru"])
        a = attention(states, target, weights["attention"])
        state = augru(states, a, *weights["augru"])
    return mlp(np.concatenate([fields, target, extra, state]), weights["dnn"])[0]
