"""How many negatives per positive a published pair of AUC and log loss speaks of.

    python scripts/negatives_per_positive.py

DemiNet's paper does not say how many it draws. A calibrated scorer whose logits are normal with one
variance for positives and negatives is given by its AUC, up to the share of positives, on which its
log loss depends. The script solves for that share. (AUC, log loss): Table 2 of arXiv 2109.12512.
"""

import statistics
import sys

import numpy as np

PUBLISHED = {
    "Taobao, DIN": (0.8731, 0.2235),
    "Taobao, DemiNet": (0.9053, 0.2045),
    "Amazon Books, DIN": (0.7469, 0.2912),
    "Amazon Books, DemiNet": (0.7642, 0.2830),
    "RetailRocket, DIN": (0.6838, 0.3212),
    "RetailRocket, DemiNet": (0.7059, 0.3096),
}


def log_loss(auc: float, positives: float) -> float:
    """Log loss of a calibrated scorer with normal logits, for a share of positives."""
    scores, step = np.linspace(-12, 12, 10_001, retstep=True)
    distance = np.sqrt(2.0) * statistics.NormalDist().inv_cdf(auc)
    of_positive, of_negative = (
        share * np.exp(-((scores - mean) ** 2) / 2) / np.sqrt(2 * np.pi)
        for share, mean in ((positives, distance), (1 - positives, 0.0))
    )
    posterior = of_positive / (of_positive + of_negative)
    nats = of_positive * np.log(posterior) + of_negative * np.log1p(-posterior)
    return float(-nats.sum() * step)


def main() -> None:
    """Prints a line for each published pair."""
    row = "{:<24}{:>8}{:>10}{:>12}{:>12}{:>12}\n"
    sys.stdout.write(row.format("", "AUC", "log loss", "1 negative", "9 negatives", "solved"))
    shares = np.linspace(0.02, 0.5, 500)
    for name, (auc, published) in PUBLISHED.items():
        share = np.interp(published, [log_loss(auc, share) for share in shares], shares)
        losses = [f"{log_loss(auc, 1 / (1 + negatives)):.4f}" for negatives in (1, 9)]
        sys.stdout.write(row.format(name, auc, published, *losses, f"{1 / share - 1:.1f}"))


if __name__ == "__main__":
    main()
