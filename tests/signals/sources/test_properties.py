"""Java's properties files as Java reads them."""

from wsrl.signals.sources.properties import parse_properties


def test_keys_values_and_comments():
    text = b"# no\n! no\n\n  name#1 = Caf\xe9\nb:2\nc 3\nd\ne==f\nname#1=again \n"
    assert parse_properties(text) == {"name#1": "again ", "b": "2", "c": "3", "d": "", "e": "=f"}


def test_escapes():
    text = rb"price=10\u20ac\tx\n" + b"\n" + rb"a\=b\ c=d\\" + b"\n" + rb"path=C\:\\x" + b"\n"
    assert parse_properties(text) == {"price": "10€\tx\n", "a=b c": "d\\", "path": "C:\\x"}


def test_lines_that_go_on():
    text = b"a=one\\\r\n   two\\\\\r\nb=1\\\n"
    assert parse_properties(text) == {"a": "onetwo\\", "b": "1"}
    assert parse_properties(b"") == {}
