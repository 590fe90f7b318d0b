"""The day's quota: against a plain count per day in UTC."""

import datetime as dt
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mcphost.decisions.quota import DAY_SECONDS, Quota

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC).timestamp()


@given(st.integers(1, 4), st.lists(st.integers(0, DAY_SECONDS // 2), max_size=40))
def test_on_no_day_is_more_let_through_than_the_quota(per_day: int, pauses: list[int]) -> None:
    quota, wall, used = Quota(per_day), NOON, Counter[dt.date]()
    for pause in pauses:
        wall += pause
        day = dt.datetime.fromtimestamp(wall, dt.UTC).date()
        wait = quota.wait(wall)
        assert (wait == 0.0) == (used[day] < per_day)
        if wait:
            following = dt.datetime.fromtimestamp(wall + wait, dt.UTC)
            assert following.time() == dt.time(0)
            assert following.date() == day + dt.timedelta(days=1)
        else:
            quota.take(wall)
            used[day] += 1


def test_a_clock_that_was_ahead_and_is_put_right_leaves_nobody_locked_out() -> None:
    quota = Quota(1)
    quota.take(NOON + 3650 * DAY_SECONDS)
    assert quota.wait(NOON) == 0.0
    quota.take(NOON)
    assert quota.wait(NOON) == DAY_SECONDS / 2
    assert repr(quota) == f"<Quota 1 of 1 on day {int(NOON // DAY_SECONDS)}>"
