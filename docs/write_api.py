"""Write api.md: the names that `streaming_encodec` exports, with signatures and docstrings.

Run: python docs/write_api.py
"""

from __future__ import annotations

import ast
import enum
import inspect
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import streaming_encodec

TARGET = Path(__file__).with_name("api.md")
HEAD = """# The Python package

What `streaming_encodec` exports. `docs/write_api.py` makes this page from the docstrings.

Full scale of samples is 1.0. Axes: B batch, C channels, K codebooks, F frames ([glossary](glossary.md)).
"""
_SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):$")
_ENTRY = re.compile(r"^    (\*{0,2}\w[\w, .*`]*): (.*)$")
_LONGEST = 100
_TITLES = {
    "model": "Models",
    "streaming": "Streams",
    "stepping": "Streams",
    "call": "One voice without a network",
    "client": "Calls",
    "bridges": "Telephones",
    "voice": "Settings of calls",
    "relay": "Relay",
    "wire": "Packets",
    "corpus": "Files",
    "audio": "Sound devices and sound files",
    "errors": "Errors",
}
"""Headings in their order, by the room of a name's module."""


def prose(docstring: str) -> str:
    """A docstring as Markdown: paragraphs on one line each, arguments and errors as lists."""
    out: list[str] = []
    section = code = False
    for line in inspect.cleandoc(docstring).splitlines():
        if line.startswith("```") or code:
            code = code != line.startswith("```")
            out.append(line)
        elif heading := _SECTION.match(line):
            section = True
            out += [f"**{heading[1]}**", ""]
        elif section and (entry := _ENTRY.match(line)):
            out.append(f"- `{entry[1]}`: {entry[2]}")
        elif not line.strip():
            out.append("")
        elif out and out[-1] and not out[-1].startswith(("```", "**")) and not line.lstrip().startswith("- "):
            out[-1] += f" {line.strip()}"
        else:
            out.append(line.strip() if section else line)
    return re.sub(r"(?<!`)``(?!`)", "`", "\n".join(out)).replace(" Settings: see `Participant`.", "").strip()


def documented(docstring: str, value: Any) -> str:
    """`prose` of a callable's docstring, in which `name: meaning` of its parameters becomes a list."""
    names = "|".join(re.escape(name) for name in inspect.signature(value).parameters)
    named = re.compile(rf"(?:^|(?<=[.;]) )`?((?:{names})(?:, (?:{names}))*)`?: ")
    text = prose(docstring)
    if not names or "**Args**" in text:
        return text
    parts = text.split("\n\n")
    return "\n\n".join(named.sub(r"\n- `\1`: ", part).strip() if named.match(part) else part for part in parts)


class _Plain:
    """An annotation or a default as the source has it."""

    def __init__(self, value: object) -> None:
        text = value if isinstance(value, str) else inspect.formatannotation(value)
        self._text = re.sub(r"\bstreaming_encodec\.[\w.]*\.(\w+)", r"\1", text)

    def __repr__(self) -> str:
        return self._text


def signature(name: str, value: Any) -> str:
    """As it is called; a long one has a line for each parameter."""
    found = inspect.signature(value)
    kept = []
    for parameter in found.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.annotation is not parameter.empty:
            parameter = parameter.replace(annotation=_Plain(parameter.annotation))
        if inspect.isroutine(function := parameter.default):
            parameter = parameter.replace(default=_Plain(f"{function.__module__}.{function.__qualname__}"))
        elif repr(parameter.default) == "<factory>":
            parameter = parameter.replace(default=_Plain("..."))
        kept.append(parameter)
    result = found.return_annotation
    returned = "" if result in (found.empty, None, "None", "Self") else f" -> {_Plain(result)!r}"
    line = f"{name}{inspect.Signature(kept)}{returned}"
    if len(line) <= _LONGEST:
        return line
    lines = [str(p) for p in kept]
    begin = next((i for i, p in enumerate(kept) if p.kind is p.KEYWORD_ONLY), None)
    if begin is not None:
        lines.insert(begin, "*")
    return f"{name}(\n" + "".join(f"    {each},\n" for each in lines) + f"){returned}"


def own(kind: type) -> dict[str, Any]:
    """What a class and the bases that are not exported define, the class first."""
    bases = [base for base in kind.__mro__[1:] if base.__module__.startswith("streaming_encodec")]
    hidden = [base for base in bases if base.__name__ not in streaming_encodec.__all__]
    return {name: value for base in (*hidden[::-1], kind) for name, value in vars(base).items()}


def base_settings(kind: type) -> str:
    """The arguments and errors that the docstring of a base which is not exported states."""
    for base in kind.__mro__[1:]:
        if base.__name__ not in streaming_encodec.__all__ and base.__module__.startswith("streaming_encodec"):
            _, heading, rest = (base.__doc__ or "").partition("    Args:")
            if heading:
                return heading + rest
    return ""


def members(kind: type) -> list[str]:
    """Public methods and properties that have a docstring."""
    properties, methods = [], []
    for name, value in own(kind).items():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if name.startswith("_") or not inspect.isfunction(function) or not function.__doc__:
            continue
        if isinstance(value, property):
            settable = "" if value.fset is None else " (can be set)"
            kind_of = _Plain(inspect.signature(function).return_annotation)
            properties.append(f"- `{name}: {kind_of!r}`{settable}: {prose(function.__doc__)}")
        else:
            head = ("async " if inspect.iscoroutinefunction(function) else "") + signature(name, function)
            methods.append(f"```python\n{head}\n```\n\n{documented(function.__doc__, function)}\n")
    if properties:
        methods.insert(0, "\n".join(["**Properties**\n", *(re.sub(r"\n+", " ", each) for each in properties), ""]))
    return methods


def explained(kind: type) -> dict[str, str]:
    """The strings that follow the members of a class in its source, by name."""
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    out = {}
    for member, text in pairwise(body.body):
        target = member.targets[0] if isinstance(member, ast.Assign) else getattr(member, "target", None)
        if isinstance(target, ast.Name) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            out[target.id] = prose(text.value.value)
    return out


def entry(name: str) -> list[str]:
    """The part of one exported name."""
    value = getattr(streaming_encodec, name)
    out = [f"### {name}\n"]
    plain_error = inspect.isclass(value) and issubclass(value, Exception) and "__init__" not in vars(value)
    if callable(value) and not plain_error and not (inspect.isclass(value) and issubclass(value, enum.Enum)):
        out.append(f"```python\n{signature(name, value)}\n```\n")
    if value.__doc__:
        plain = plain_error or not callable(value)
        out.append((prose(value.__doc__) if plain else documented(value.__doc__, value)) + "\n")
    if inspect.isclass(value) and (settings := base_settings(value)):
        out.append(prose(settings) + "\n")
    if inspect.isclass(value):
        if issubclass(value, enum.Enum):
            texts = explained(value)
            out += [f"- `{name}.{member.name}`: {texts.get(member.name, '')}" for member in value] + [""]
        out += members(value)
    return out


def page() -> str:
    """The whole page: a list of all names, then each name under the heading of its room."""
    groups: dict[str, list[str]] = {title: [] for title in _TITLES.values()}
    for name in streaming_encodec.__all__:
        if not name.startswith("_"):
            groups[_TITLES[getattr(streaming_encodec, name).__module__.split(".")[1]]].append(name)
    contents = (f"- {title}: " + ", ".join(f"[{n}](#{n.lower()})" for n in names) for title, names in groups.items())
    parts = [HEAD, "\n".join(contents) + "\n"]
    for title, names in groups.items():
        parts.append(f"## {title}\n")
        for name in names:
            parts += entry(name)
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
