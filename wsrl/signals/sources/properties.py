"""Java's properties files: Latin-1 text of keys and values, with escapes."""

import re

ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
NAMED = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
SEPARATOR = re.compile(r"(?<!\\)(?:\\\\)*(?P<at>[ \t\f]*[=:][ \t\f]*|[ \t\f]+)")


def parse_properties(data: bytes) -> dict[str, str]:
    """Keys and values, in the order of the file; a later value of a key takes the place of an earlier one.

    Source: java.util.Properties.load.
    """
    properties: dict[str, str] = {}
    for line in logical_lines(data.decode("latin-1")):
        match = SEPARATOR.search(line)
        key, value = (line[: match.start("at")], line[match.end("at") :]) if match else (line, "")
        properties[unescape(key)] = unescape(value)
    return properties


def logical_lines(text: str) -> list[str]:
    """Lines without comments; one that ends in a backslash goes on in the next."""
    lines: list[str] = []
    begun = ""
    for raw in re.split(r"\r\n|\n|\r", text):
        line = raw.lstrip(" \t\f")
        if not begun and (not line or line[0] in "#!"):
            continue
        begun += line
        if (len(line) - len(line.rstrip("\\"))) % 2:
            begun = begun[:-1]
            continue
        lines.append(begun)
        begun = ""
    return lines + ([begun] if begun else [])


def unescape(text: str) -> str:
    """A key or value without its escapes."""
    return ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else NAMED.get(match[2], match[2]), text)
