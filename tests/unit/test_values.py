from __future__ import annotations

import enum
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from perdure.canonical import Limits
from perdure.errors import InvalidDefinition, InvalidPayload
from perdure.values import ValueType, value_type


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Page:
    url: str
    size: int = 0


@dataclass
class LongPage(Page):
    chapters: int = 1


@dataclass
class Look:
    url: str
    size: int = 0


@dataclass(eq=False)
class Book:
    pages: dict[str, list[Page]]
    marks: Sequence[int] = ()


class Point(msgspec.Struct, forbid_unknown_fields=True):
    x: int
    y: float = 0.0


class Pair(NamedTuple):
    left: int
    right: str


class Options(TypedDict):
    depth: int
    note: NotRequired[str]


class Author(BaseModel):
    name: str
    born: date


class Article(BaseModel):
    title: str
    authors: list[Author] = []
    votes: dict[int, str] = {}


class Login(BaseModel):
    password: SecretStr


@dataclass
class Shelf:
    best: Article
    all: dict[str, Article] = field(default_factory=dict)


def refusal_of(annotation: Any, value: Any) -> tuple[str, str, str]:
    with pytest.raises(InvalidPayload) as caught:
        value_type(annotation).encode(value)
    return caught.value.path, caught.value.problem, caught.value.allowed


def refusal_of_text(annotation: Any, text: bytes) -> tuple[str, str, str]:
    with pytest.raises(InvalidPayload) as caught:
        value_type(annotation).decode(text)
    return caught.value.path, caught.value.problem, caught.value.allowed


@pytest.mark.parametrize(
    ("annotation", "value", "text"),
    [
        (None, None, b"null"),
        (int, 3, b"3"),
        (float, 3, b"3"),
        (str, "é", '"é"'.encode()),
        (bytes, b"\0\xff", b'"AP8="'),
        (int | str | None, "x", b'"x"'),
        (Colour, Colour.RED, b'"red"'),
        (datetime, datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), b'"2026-01-02T03:04:05.000006Z"'),
        (time, time(3, 4), b'"03:04:00"'),
        (timedelta, timedelta(days=1, microseconds=1), b'"P1DT0.000001S"'),
        (UUID, UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
        (Decimal, Decimal("1.10"), b'"1.10"'),
        (set[str], {"b", "a", "c"}, b'["a","b","c"]'),
        (tuple[int, str], (1, "a"), b'[1,"a"]'),
        (tuple[int, ...], (1, 2), b"[1,2]"),
        (dict[int, str], {10: "a", 9: "b"}, b'{"10":"a","9":"b"}'),
        (dict[UUID, int], {UUID(int=2): 1}, b'{"00000000-0000-0000-0000-000000000002":1}'),
        (Mapping[str, Page], {"a": Page("u")}, b'{"a":{"size":0,"url":"u"}}'),
        (list[Page | None], [Page("u", 1), None], b'[{"size":1,"url":"u"},null]'),
        (Point, Point(1, 2.5), b'{"x":1,"y":2.5}'),
        (Pair, Pair(1, "r"), b'[1,"r"]'),
        (Options, {"depth": 1}, b'{"depth":1}'),
        (Any, {"a": [1, None, {"b": "c"}]}, b'{"a":[1,null,{"b":"c"}]}'),
        (
            Article,
            Article(title="t", authors=[Author(name="n", born=date(1999, 1, 2))], votes={1: "a"}),
            b'{"authors":[{"born":"1999-01-02","name":"n"}],"title":"t","votes":{"1":"a"}}',
        ),
        (
            Shelf,
            Shelf(Article(title="t"), {"k": Article(title="u")}),
            b'{"all":{"k":{"authors":[],"title":"u","votes":{}}},"best":{"authors":[],"title":"t","votes":{}}}',
        ),
    ],
)
def test_a_value_is_written_canonically_and_reads_back_equal(annotation: Any, value: Any, text: bytes) -> None:
    kind = value_type(annotation)

    assert kind.encode(value) == text
    assert kind.decode(text) == value
    assert type(kind.decode(text)) is type(value) or annotation is float


@pytest.mark.parametrize(
    ("annotation", "value", "refusal"),
    [
        (None, 3, ("$", "found int", "null")),
        (int, "3", ("$", "found str", "int")),
        (int, True, ("$", "found bool", "int")),
        (int, 1.0, ("$", "found float", "int")),
        (Page, Page("u", "x"), ("$.size", "found str", "int")),  # type: ignore[arg-type]
        (Page, {"url": "u"}, ("$", "found dict", "Page")),
        (Page, Look("u"), ("$", "found Look", "Page")),
        (Page, LongPage("u"), ("$", "found LongPage", "Page")),
        (Book, Book({"a": [Page("u"), Look("v")]}), ("$.pages.a[1]", "found Look", "Page")),  # type: ignore[list-item]
        (datetime, "2026-01-02T03:04:05Z", ("$", "found str", "datetime")),
        (tuple[int, ...], [1], ("$", "found list", "tuple")),
        (dict[str, int], {1: 2}, ("$[1]", "a key of type int that is not read back", None)),
        (Options, {"depth": 1, "more": 2}, ("$.more", "a key of type str that is not read back", None)),
        (Article, {"title": "t"}, ("$", "found dict", "Article")),
        (Login, Login(password=SecretStr("s3cret")), ("$.password", "found SecretStr", None)),
        (Decimal, Decimal("NaN"), ("$", "found Decimal NaN", None)),
        (Any, Page("u"), ("$", "found Page", "dict")),
        (Any, {"a": {1}}, ("$.a", "found set", "list")),
        (Any, [Pair(1, "r")], ("$[0]", "found Pair", "list")),
        (Any, {"a": [Path("x")]}, ("$.a[0]", f"a value of type {type(Path()).__name__}", "values with a JSON form")),
        (dict[str, float], {"a b": float("nan")}, ('$["a b"]', "the number nan", None)),
        (list[str], ["a", "\ud800"], ("$[1]", "a string with a lone surrogate", None)),
    ],
)
def test_a_value_that_is_not_what_the_annotation_says_is_refused_before_it_is_stored(
    annotation: Any, value: Any, refusal: tuple[str, str, str | None]
) -> None:
    path, problem, allowed = refusal_of(annotation, value)

    assert (path, problem) == refusal[:2]
    assert refusal[2] in (None, allowed)


def test_a_pydantic_model_that_was_changed_after_validation_is_refused_with_its_path() -> None:
    broken = Article(title="t")
    broken.title = 3  # type: ignore[assignment]

    refusal = refusal_of(Shelf, Shelf(Article(title="t"), {"a": Article(title="t"), "k": broken}))

    assert refusal == ("$.all.k.title", "found int", "a valid string")


def test_sets_that_have_no_order_and_values_that_contain_themselves_are_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)

    assert refusal_of(set[int | str], {1, "a"})[0] == "$"
    assert refusal_of(Any, endless)[1] == "a value that is nested too deeply or contains itself"


def test_a_tuple_may_stand_where_a_list_is_read_back() -> None:
    assert value_type(Book).encode(Book({}, (1, 2))) == b'{"marks":[1,2],"pages":{}}'


@pytest.mark.parametrize(
    ("annotation", "text", "refusal"),
    [
        (Page, b'{"url":1}', ("$.url", "found int", "str")),
        (list[Page], b"[{}]", ("$[0]", "Object missing required field url", "list[")),
        (Colour, b'"green"', ("$", "Invalid enum value 'green'", "Colour")),
        (Book, b'{"pages":{"a":[],"b c":[{"url":"u"},{"url":1}],"d":[{"url":1}]}}', ('$.pages["b c"][1].url', "", "")),
        (dict[int, int], b'{"1":1,"x":2}', ("$", "a key, found str,", "int")),
        (Point, b'{"x":1,"z":2}', ("$", "Object contains unknown field z", "Point")),
        (dict[str, Article], b'{"a":{"title":1}}', ("$.a.title", "found int", "a valid string")),
        (Page, b'{"url":', ("$", "text that is not JSON", "one JSON value")),
        (str, b'"\xff"', ("$", "text that is not JSON", "one JSON value")),
        (Page, b'"\xff"', ("$", "found str", "object")),
        (Any, b"[" * 100_000, ("$", "too many levels", "")),
    ],
)
def test_text_that_is_not_of_the_type_is_refused_with_its_path(
    annotation: Any, text: bytes, refusal: tuple[str, str, str]
) -> None:
    path, problem, allowed = refusal_of_text(annotation, text)

    assert path == refusal[0]
    assert problem.startswith(refusal[1])
    assert allowed.startswith(refusal[2])


def test_a_reader_ignores_keys_that_a_newer_writer_added() -> None:
    assert value_type(Page).decode(b'{"url":"u","colour":"red"}') == Page("u")


def test_raw_text_is_decoded_as_bytes_are() -> None:
    assert value_type(Page).decode(msgspec.Raw(b'{"url":"u"}')) == Page("u")


def test_limits_and_root_reach_the_canonical_rule() -> None:
    with pytest.raises(InvalidPayload) as caught:
        value_type(list[int]).encode([1, 2, 3], limits=Limits(max_bytes=5), root="input")

    assert (caught.value.path, caught.value.problem) == ("input", "7 bytes")


@pytest.mark.parametrize("annotation", [Path, dict[str, Path], object, Page | Look, "Missing", complex])
def test_a_type_without_a_json_form_is_refused_when_it_is_defined(annotation: Any) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        value_type(annotation, definition="research")

    assert caught.value.definition == "research"


def test_the_schema_of_a_type_names_its_parts_under_defs() -> None:
    assert value_type(list[Page]).json_schema() == {
        "type": "array",
        "items": {"$ref": "#/$defs/Page"},
        "$defs": {
            "Page": {
                "title": "Page",
                "type": "object",
                "properties": {"url": {"type": "string"}, "size": {"type": "integer", "default": 0}},
                "required": ["url"],
            }
        },
    }


def test_the_schema_of_a_nested_pydantic_model_has_references_that_resolve() -> None:
    schema = value_type(Shelf).json_schema()

    best = schema["$defs"]["Shelf"]["properties"]["best"]
    assert best["properties"]["authors"]["items"] == {"$ref": "#/$defs/Article.Author"}
    assert schema["$defs"]["Article.Author"]["required"] == ["name", "born"]


def test_a_value_type_shows_its_annotation() -> None:
    kind: ValueType[Any] = value_type(list[int])

    assert repr(kind) == "ValueType(list[int])"
    assert kind.annotation == list[int]


def test_values_does_not_import_pydantic() -> None:
    program = (
        "import sys, perdure.values as v; v.value_type(dict[str, int]).encode({}); print('pydantic' in sys.modules)"
    )

    shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout

    assert shown == "False\n"


@given(st.dictionaries(st.text("ab\u20ac", max_size=4), st.lists(st.builds(Page, st.text("xyz"), st.integers(0, 9)))))
def test_every_typed_value_reads_back_equal(pages: dict[str, list[Page]]) -> None:
    kind = value_type(dict[str, list[Page]])

    assert kind.decode(kind.encode(pages)) == pages
