"""One checker for all options: rules beside the defaults, one message."""

from dataclasses import dataclass

import pytest

from wsrl.errors import UserError
from wsrl.options import SHARE, at_least, between, check, check_values, every, multiple_of, one_of, option


@dataclass(frozen=True, kw_only=True)
class Parent:
    rate: float = option(0.5, SHARE)
    kind: str = option("a", one_of("a", "b"))
    limit: int | None = option(None, at_least(1))

    def __post_init__(self):
        check(self, "fit.")


@dataclass(frozen=True, kw_only=True)
class Child(Parent):
    rate: float = 0.25
    widths: tuple[int, ...] = option((2, 3), every(at_least(1)))


def test_values_that_fit_and_none_pass():
    assert (Parent(limit=3).limit, Parent().limit, Child(widths=()).widths) == (3, None, ())


@pytest.mark.parametrize(
    "kind, values, message",
    [
        (Parent, {"rate": 1.0}, r"fit\.rate is 1\.0\. Allowed: 0 up to, not including, 1\. What to do: choose another"),
        (Parent, {"rate": float("nan")}, r"fit\.rate is nan"),
        (Parent, {"kind": "c"}, r"fit\.kind is 'c'\. Allowed: a, b\."),
        (Parent, {"limit": 0}, r"fit\.limit is 0\. Allowed: 1 or more"),
        (Child, {"rate": 2.0}, r"fit\.rate is 2\.0"),  # a new default keeps the rule
        (Child, {"widths": (2, 0)}, r"fit\.widths is \(2, 0\)\. Allowed: a list of values of 1 or more"),
    ],
)
def test_a_value_that_does_not_fit_is_named(kind, values, message):
    with pytest.raises(UserError, match=message):
        kind(**values)


def test_arguments_are_checked_like_fields():
    check_values({"steps": 4, "other": "anything"}, steps=between(1, 4))
    with pytest.raises(UserError, match=r"^steps is 5\. Allowed: 1 to 4\. What to do: choose another steps\.$"):
        check_values({"steps": 5}, steps=between(1, 4))
    with pytest.raises(UserError, match=r"model\.width is 10\. Allowed: a multiple of heads, which is 4"):
        check_values({"width": 10}, "model.", width=multiple_of(4, "heads"))
