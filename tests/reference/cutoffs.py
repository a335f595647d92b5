"""Cut-offs from the distinct times of a log, all of them in memory."""

import math

import numpy as np


class SharedTimesError(Exception):
    """A part would be empty because too many rows share a time."""


def time_cutoff(timestamps, counts, fraction):
    """The earliest of some distinct, ascending times up to which `fraction` of the rows lie."""
    cumulative = np.cumsum(counts)
    num_rows = math.ceil(fraction * int(cumulative[-1]))
    return int(timestamps[np.searchsorted(cumulative, num_rows)])


def fit_cutoffs(timestamps, counts, split_fraction, validation_fraction):
    """Ends of train and validation in `time_split`."""
    validation_end = time_cutoff(timestamps, counts, split_fraction)
    is_before = timestamps <= validation_end
    train_end = time_cutoff(timestamps[is_before], counts[is_before], 1 - validation_fraction)
    if not train_end < validation_end < int(timestamps[-1]):
        raise SharedTimesError
    return train_end, validation_end


def fit_day(timestamps, counts, validation_fraction):
    """Ends of train and validation in `day`."""
    return time_cutoff(timestamps, counts, 1 - validation_fraction), int(timestamps[-1])
