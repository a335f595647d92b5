"""A log over days: interests change, items disappear and new ones take their places.

`pipeline.synthesize` says how such a log comes about.

Shapes: U users, E events, M places of the catalogue, D days, S states of users.
"""

import dataclasses

import numpy as np
import pyarrow as pa

from pipeline.synthetic.drawing import (
    DAY_SECONDS,
    draw_catalogue,
    draw_items,
    draw_within,
    event_table,
)
from pipeline.synthetic.truth import Ints, SynthesizeArguments
from preprocessing.values import limits
from preprocessing.values.limits import limited

_FIRST_MIDNIGHT = 1_699_920_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class DailyArguments:
    """What a log over days needs beside `SynthesizeArguments`.

    Attributes:
        days: Number of files; the first holds so many days at once, each other one a day.
        drift: Chance of a user, each day, to get new interests, and of a place of the catalogue to
            get a new item.
    """

    days: int = limited(0, at_least=0)
    drift: float = limited(0.03, at_least=0, at_most=1)

    def check(self) -> None:
        """Raises `UserError` for a value beyond its limit."""
        limits.check(self, "--")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class DailyLog:
    """A drawn log over days, user by user and each user's events oldest first.

    Attributes:
        user_E: User of each event.
        item_E: Item of each event.
        category_E: Category of its item.
        interest_E: Interest of its item.
        state_E: State of its user: what the interest was drawn from.
        timestamp_E: Time of each event in seconds; increases strictly within a user.
        file_E: Number of the file that holds each event, from 0.
    """

    user_E: Ints
    item_E: Ints
    category_E: Ints
    interest_E: Ints
    state_E: Ints
    timestamp_E: Ints
    file_E: Ints

    def table(self, file: int) -> pa.Table:
        """The events of a file in the order of time."""
        chosen_E = self.file_E == file
        return event_table(
            self.user_E[chosen_E],
            self.item_E[chosen_E],
            self.category_E[chosen_E],
            self.timestamp_E[chosen_E],
        )


def draw(args: SynthesizeArguments, daily: DailyArguments) -> DailyLog:
    """Draws a log over days.

    Raises:
        UserError: The arguments cannot be satisfied.
    """
    args.check()
    daily.check()
    num_days = 2 * daily.days - 1
    rng = np.random.default_rng(args.seed)
    truth = draw_catalogue(args, rng)
    is_new_DM = rng.random((num_days, args.items)) < daily.drift
    is_new_DM[0] = True
    item_DM = np.maximum.accumulate(
        np.where(is_new_DM, np.cumsum(is_new_DM).reshape(is_new_DM.shape) - 1, -1), axis=0
    )
    is_new_UD = rng.random((args.users, num_days)) < daily.drift
    is_new_UD[:, 0] = True
    state_UD = np.cumsum(is_new_UD).reshape(is_new_UD.shape) - 1
    num_states = int(state_UD[-1, -1]) + 1
    theta_SG = rng.dirichlet(np.full(args.interests, args.concentration), num_states)
    length_U = rng.integers(args.shortest, args.longest, args.users, endpoint=True)
    user_E = np.repeat(np.arange(args.users), length_U)
    second_E = rng.integers(0, num_days * DAY_SECONDS - args.longest, len(user_E))
    second_E = second_E[np.lexsort((second_E, user_E))]
    first_E = np.repeat(np.cumsum(length_U) - length_U, length_U)
    second_E += np.arange(len(user_E)) - first_E  # No two events of a user at the same time.
    day_E = second_E // DAY_SECONDS
    state_E = state_UD[user_E, day_E]
    interest_E = draw_within(theta_SG.ravel(), np.full(num_states, args.interests), state_E, rng)
    interest_E -= state_E * args.interests
    place_E, item_E = draw_items(truth, item_DM, user_E, day_E, interest_E, rng)
    return DailyLog(
        user_E=user_E,
        item_E=item_E,
        category_E=truth.category_M[place_E],
        interest_E=interest_E,
        state_E=state_E,
        timestamp_E=_FIRST_MIDNIGHT + second_E,
        file_E=np.maximum(0, day_E - daily.days + 1),
    )
