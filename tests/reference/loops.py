"""Twins see one unpadded request and one candidate at a time; these loops feed them."""

import numpy as np


def logits(user, candidates, score):
    """score(fields, history [n, D], target [D], extra) of each valid candidate; 0 at padding.

    `fields` and `extra` are flat, `history` holds the events only, oldest first.
    """
    out = np.zeros(candidates.mask_BN.shape)
    history_BLD = user.history_BLD.numpy().astype(np.float64)
    target_BND = candidates.target_BND.numpy().astype(np.float64)
    for b, n in np.argwhere(candidates.mask_BN.numpy()):
        out[b, n] = score(
            user.fields_BFd.numpy()[b].ravel().astype(np.float64),
            history_BLD[b, user.mask_BL.numpy()[b]],
            target_BND[b, n],
            candidates.extra_BNEd.numpy()[b, n].ravel().astype(np.float64),
        )
    return out


def dense(layer):
    """(kernel, bias) of a dense layer in float64."""
    kernel = layer.kernel.numpy().astype(np.float64)
    return kernel, 0.0 if layer.bias is None else layer.bias.numpy().astype(np.float64)


def stack(mlp):
    """Layers of an MLP."""
    return [dense(layer) for layer in mlp.stack]


def local_activation(layer):
    """Weights of a local activation unit as `reference.din` wants them."""
    return {
        "hidden": [dense(layer), *map(dense, layer.hidden)],
        "dice": [
            tuple(
                weight.numpy().astype(np.float64)
                for weight in (
                    dice.alpha,
                    dice.normalization.moving_mean,
                    dice.normalization.moving_variance,
                )
            )
            for dice in layer.dice
        ],
        "scorer": dense(layer.scorer),
    }
