"""The models of fields from their equations: one candidate at a time, one pair of fields at a time.

Every function takes the fields [M, d] of one candidate and returns its logit without the linear
weights. Dense layers are (kernel, bias) pairs.
"""

import itertools

import numpy as np

from tests.reference import interactions


def fields(user_Fd, history_LJd, mask_L, target_Jd, extra_Ed):
    """User fields, the mean of each history feature over the events, target, extra fields."""
    events = [history_LJd[step] for step in np.flatnonzero(mask_L)]
    means = sum(events) / len(events) if events else np.zeros(history_LJd.shape[1:])
    return np.concatenate([user_Fd, means, target_Jd, extra_Ed]).astype(np.float64)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def relu(x):
    return np.maximum(x, 0.0)


def mlp(x, layers, last_activation=None):
    for i, (kernel, bias) in enumerate(layers):
        x = x @ kernel + bias
        if i < len(layers) - 1 or last_activation is not None:
            x = relu(x)
    return x


def lr(fields_Md, bias):
    return bias


def fm(fields_Md, bias):
    return interactions.fm_second_order(fields_Md) + bias


def deepfm(fields_Md, dnn):
    return interactions.fm_second_order(fields_Md) + mlp(fields_Md.ravel(), dnn)[0]


def ipnn(fields_Md, dnn):
    products = [a @ b for a, b in itertools.combinations(fields_Md, 2)]
    return mlp(np.concatenate([fields_Md.ravel(), products]), dnn)[0]


def dcn(fields_Md, crosses, dnn, last, matrix=False, stacked=False):
    """`crosses` holds (w, b) of each layer, or (W, b) if `matrix`."""
    x0 = x = fields_Md.ravel()
    for w, b in crosses:
        x = x0 * (x @ w + b) + x if matrix else interactions.cross(x0, x, w, b)
    inputs = [mlp(x, dnn, "relu")] if stacked else [x, mlp(x0, dnn, "relu")]
    return mlp(np.concatenate(inputs), [last])[0]


def xdeepfm(fields_Md, maps, last_w, dnn):
    """`maps` as in `interactions.compressed_interaction`."""
    explicit = interactions.compressed_interaction(fields_Md, maps)
    return explicit @ last_w + mlp(fields_Md.ravel(), dnn)[0]


def field_attention(fields_Md, projections, scale_C, offset_C, heads, epsilon):
    """`projections` are the dense layers of query, key, value and residual."""
    query, key, value, residual = (relu(fields_Md @ w + b) for w, b in projections)
    width = query.shape[1] // heads
    out = np.zeros_like(query)
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        for i in range(len(fields_Md)):
            scores = np.array([query[i, part] @ k[part] for k in key]) / np.sqrt(width)
            weights = np.exp(scores) / np.exp(scores).sum()
            out[i, part] = sum(w * v[part] for w, v in zip(weights, value, strict=True))
    out = relu(out + residual)
    for i, row in enumerate(out):
        out[i] = (row - row.mean()) / np.sqrt(row.var() + epsilon) * scale_C + offset_C
    return out


def autoint(fields_Md, attentions, last_w, dnn, heads, epsilon):
    """`attentions` holds (projections, scale, offset) of each layer."""
    attended = fields_Md
    for projections, scale, offset in attentions:
        attended = field_attention(attended, projections, scale, offset, heads, epsilon)
    return attended.ravel() @ last_w + mlp(fields_Md.ravel(), dnn)[0]


def field_edges(fields_Md, w):
    """Softmax over j != i of LeakyReLU(w . [e_i || e_j])."""
    count = len(fields_Md)
    edges = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            score = w @ np.concatenate([fields_Md[i], fields_Md[j]])
            edges[i, j] = np.exp(max(score, 0.01 * score)) if i != j else 0.0
        edges[i] /= edges[i].sum()
    return edges


def gru(x, h, kernel, state_kernel, bias):
    """Gates are side by side: update, reset, proposal; `bias` holds those of input and state."""
    width = len(h)
    of_x, of_h = x @ kernel + bias[0], h @ state_kernel + bias[1]
    update = sigmoid(of_x[:width] + of_h[:width])
    reset = sigmoid(of_x[width:-width] + of_h[width:-width])
    proposal = np.tanh(of_x[-width:] + reset * of_h[-width:])
    return update * h + (1 - update) * proposal


def field_graph(fields_Md, w, w_out, w_in, b, cell, steps):
    """`w_out` and `w_in` hold a matrix per field, applied from the right."""
    edges = field_edges(fields_Md, w)
    states = fields_Md
    for _ in range(steps):
        updated = []
        for i in range(len(fields_Md)):
            total = sum(edges[i, j] * (states[j] @ w_out[j]) for j in range(len(fields_Md)))
            updated.append(gru(total @ w_in[i] + b, states[i], *cell) + fields_Md[i])
        states = np.array(updated)
    return states


def fignn(fields_Md, w, w_out, w_in, b, cell, steps, opinion_w, attention_w):
    states = field_graph(fields_Md, w, w_out, w_in, b, cell, steps)
    weights = sigmoid(states.ravel() @ attention_w)
    return sum(a * (state @ opinion_w) for a, state in zip(weights, states, strict=True))
