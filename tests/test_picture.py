"""The picture of the rooms that the design shows is that of the table which the imports are held to."""

from __future__ import annotations

import pytest
from test_architecture import BASE, MAY_IMPORT

from tools import picture


def test_the_picture_is_current():
    text = picture.PAGE.read_text(encoding="utf-8")
    assert picture.written(text) == text, "run: python -m tools.picture --write"


def test_the_table_is_that_of_the_test():
    table, base = picture.tables()
    assert base == BASE and dict(table) == {room: others for room, others in MAY_IMPORT.items() if room in table}
    assert set(MAY_IMPORT) - set(table) == {"__main__", "__init__", *BASE}


def test_every_room_says_what_lives_there():
    assert all(picture.lives_there(room).endswith(".") for room in picture.tables()[0])


def test_arrows_that_follow_from_others_are_left_out():
    table = {"a": "b c d", "b": "c", "c": "d", "d": ""}
    assert picture.arrows(table, "a") == ["b"]
    assert [picture.floor(table, room) for room in table] == [3, 2, 1, 0]
    assert picture.picture(table).splitlines()[2:] == [
        "    a[a]",
        "    b[b]",
        "    c[c]",
        "    d[d]",
        "    a --> b",
        "    b --> c",
        "    c --> d",
        "```",
    ]


def test_a_page_without_markers():
    with pytest.raises(ValueError, match="no <!-- rooms -->"):
        picture.written("nothing")
