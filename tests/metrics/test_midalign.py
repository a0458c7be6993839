"""`slot_f1_midalign` on loosely formatted answers.

The expected labels are what `scripts/eval_massive.py` of github dannigt/mid-align (c3fa8ef) gave
for these answers. A label is shown by its last character; those of the script are `Other` where
ours are `O`.
"""

import pytest

from xlt_bench.metrics import midalign, slots
from xlt_bench.tasks import massive
from xlt_bench.tasks.base import Item

WORDS = "wake me at Five am this week"
HAN = "提醒 我 uber 五点 开会"


def labels(text, answer, by_character):
    tokens = slots.tokenize(text, by_character)
    placed = midalign.place(tokens, midalign.read(answer, by_character))
    return "".join("." if label == "O" else label[-1:] or "_" for label in placed)


@pytest.mark.parametrize(
    ("answer", "marked"),
    [
        ("time: five am; date: this week", "...eeee"),
        ("None", "......."),
        ("none ", "......."),
        ("None.", "......."),
        ("", "......."),
        ("time:five am", "......."),  # no ": "
        ("time : five am", "...  .."),  # the type is "time "
        (" time: five am", "...ee.."),  # the answer is stripped, a part is not
        ("date: week;  time: five am", "...ee.e"),
        ("time: five am;date: this week", "......."),  # one part with two ": "
        ("time: five am;", "......."),  # the value is "am;"
        ("time: five;", "......."),
        ("time: five am; ", "......."),  # stripped to the above
        ("time: five am;\u00a0date: week", "......."),
        ("time:\u00a0five am", "......."),
        ("time: \u00a0five\u00a0am", "...ee.."),  # white space within a value does not count
        ("time: five: am", "......."),
        ("time: ; date: week", "......e"),
        ("time:  ; date: week", "......e"),  # the script itself stops here
        ("time: FIVE AM", "...ee.."),
        ("TIME: five", "...E..."),
        ("time: five; date: five am", "...ee.."),
        ("date: five am; time: am", "...ee.."),
        ("Other: five am; date: week", "......e"),  # outside by its name
        ("date: five am; Other: am", "...e..."),
        ("O: five am", "...rr.."),  # a type like any other
        (": five am", "...__.."),  # an empty type
        ("time: five am\ndate: week", "...ee.."),
        ("time: five am\r\ndate: week", "...ee.."),
        ("time: five am\u2028date: week", "......."),  # no line break in Python's files
        ("\ntime: five am", "......."),
        ("time: six", "......."),
        ("time: this week again", "......."),
    ],
)
def test_labels_by_word(answer, marked):
    assert labels(WORDS, answer, by_character=False) == marked


@pytest.mark.parametrize(
    ("answer", "marked"),
    [
        ("time: 五点", "....ee.."),
        ("time: 五 点", "........"),  # a space is a character
        ("app_name: uber", "........"),  # so is each letter
        ("time: \u00a0五点", "........"),
        ("time:  ; date: 开会", "......ee"),
        ("time:五点", "........"),
        ("time：五点", "........"),
        ("time: 五点；date: 开会", "........"),
        ("date: 我; date: 我", "..e....."),
    ],
)
def test_labels_by_character(answer, marked):
    assert labels(HAN, answer, by_character=True) == marked


def test_each_place_is_labelled_and_later_slots_win():
    assert midalign.place("Play play it".split(), [("a", ["play"]), ("b", ["play", "it"])]) == [
        "a",
        "b",
        "b",
    ]


def test_a_letter_whose_lower_case_is_two_characters_stays_one():
    assert midalign.read("a: İ五", by_character=True) == [("a", ["i̇", "五"])]


def test_version_1_reads_answers_as_slot_f1_does():
    item = Item("1", "en", "", WORDS, "", "wake me at [time : Five am] this week")
    for answer, first, second in [
        ("time:five am", [1, 1, 1], [0, 0, 1]),
        ("time : five am", [1, 1, 1], [0, 1, 1]),
        ("time: five am;", [1, 1, 1], [0, 0, 1]),
        ("time: five am", [1, 1, 1], [1, 1, 1]),
        ("O: five am", [0, 0, 1], [0, 1, 1]),
    ]:
        for version, expected in ((1, first), (2, second)):
            counts = massive.TASK.count([item], [answer], massive.TASK.test_set(version))
            assert counts["slot_f1_midalign"].tolist() == [expected], (answer, version)
