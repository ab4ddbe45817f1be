from hypothesis import given
from hypothesis import strategies as st

from featcache.store.plan import Key, Location, human_bytes, make_plan

keys = st.builds(Key, st.binary(min_size=32, max_size=32), st.integers(0, 3))
GB = 10**9


@given(wanted=st.lists(keys, max_size=20), present=st.lists(keys, max_size=20), data=st.data())
def test_every_wanted_row_is_either_reused_or_computed_once(wanted, present, data):
    mixed = wanted + data.draw(st.lists(st.sampled_from(present), max_size=20) if present else st.just([]))
    places = {key: Location("a.h5", row) for row, key in enumerate(present)}
    plan = make_plan(mixed, places, 100, GB)
    assert set(plan.reuse) | set(plan.compute) == set(mixed)
    assert not set(plan.reuse) & set(plan.compute)
    assert len(set(plan.compute)) == len(plan.compute)
    assert set(plan.reuse) == set(mixed) & set(places)


def test_rows_are_computed_in_the_order_they_were_asked_for():
    wanted = [Key(bytes([n]) * 32, 0) for n in (5, 3, 9, 3, 5, 1)]
    assert [key.digest[0] for key in make_plan(wanted, {}, 1, GB).compute] == [5, 3, 9, 1]


def test_a_run_that_continues_leaves_what_could_not_be_decoded_before_for_the_end():
    wanted = [Key(bytes([n]) * 32, 0) for n in range(8)]
    done = {key: Location("a.h5", row) for row, key in enumerate(wanted[:5]) if row != 2}
    assert [key.digest[0] for key in make_plan(wanted, done, 1, GB).compute] == [5, 6, 7, 2]


def test_another_view_is_another_row():
    plain, flipped = Key(b"x" * 32, 0), Key(b"x" * 32, 1)
    plan = make_plan([plain, flipped], {plain: Location("a.h5", 0)}, 1, GB)
    assert plan.compute == (flipped,)


def test_refuses_when_the_disk_is_too_small_and_says_what_to_do():
    plan = make_plan([Key(b"x" * 32, 0)], {}, 5 * GB, 2 * GB)
    assert plan.refusal
    assert "5.0 GB" in plan.refusal
    assert "2.0 GB free" in plan.refusal
    assert "--cache" in plan.refusal


def test_views_that_need_the_room_are_named_as_a_way_out():
    plain = [Key(b"x" * 32, 0)]
    views = [Key(b"x" * 32, view) for view in (7, 8, 9)]
    refusal = make_plan(plain + views, {}, GB, 2 * GB).refusal or ""
    assert "4 rows (3 of them augmented views) need 4.0 GB" in refusal
    assert "fewer augment.views" in refusal
    assert "augment" not in (make_plan(plain, {}, 5 * GB, 2 * GB).refusal or "")


def test_a_store_that_cannot_be_written_is_no_hindrance_when_all_is_there():
    key = Key(b"x" * 32, 0)
    assert make_plan([key], {key: Location("a.h5", 0)}, 1, 0, "read-only").refusal is None
    assert "read-only" in (make_plan([key], {}, 1, GB, "read-only").refusal or "")


def test_sizes_are_written_for_people():
    assert [human_bytes(n) for n in (12, 1500, 3_600_000, 2.5e12)] == [
        "12 bytes",
        "1.5 kB",
        "3.6 MB",
        "2.5 TB",
    ]
