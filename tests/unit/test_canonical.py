from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.canonical import Limits, canonicalize, child_path, content_hash, encode, sanitize
from perdure.errors import InvalidOption, InvalidPayload

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4), max_leaves=20
)
any_text = st.text(st.characters(), max_size=60) | st.text(st.sampled_from("a\0\ud800\udfff\U0001f600"), max_size=60)


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


def refusal_of(value: object, **options: Any) -> tuple[str, str]:
    with pytest.raises(InvalidPayload) as caught:
        encode(value, **options)
    return caught.value.path, caught.value.problem


def refusal_of_text(value: bytes | str) -> tuple[str, str]:
    with pytest.raises(InvalidPayload) as caught:
        canonicalize(value)
    return caught.value.path, caught.value.problem


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, b"null"),
        (True, b"true"),
        (0, b"0"),
        (-(2**63), b"-9223372036854775808"),
        (2**63 - 1, b"9223372036854775807"),
        (1.0, b"1.0"),
        (1e16, b"1e16"),
        (1e-7, b"1e-7"),
        (5e-324, b"5e-324"),
        (0.1 + 0.2, b"0.30000000000000004"),
        ("", b'""'),
        ('é "\\\n\x1f\x7f\u2028/', b'"\xc3\xa9 \\"\\\\\\n\\u001f\x7f\xe2\x80\xa8/"'),
        ((1, (2,)), b"[1,[2]]"),
        ({"b": {"d": [], "c": {}}, "a": 1}, b'{"a":1,"b":{"c":{},"d":[]}}'),
    ],
)
def test_the_bytes_of_a_value_never_change_between_versions(value: object, expected: bytes) -> None:
    assert encode(value) == expected


def test_keys_are_sorted_by_code_point_and_not_by_utf16_unit() -> None:
    value = {"\U0001f600": 1, "\uffee": 2, "ab": 3, "a": 4, "B": 5}

    assert encode(value).decode() == '{"B":5,"a":4,"ab":3,"\uffee":2,"\U0001f600":1}'


def test_negative_zero_is_written_as_zero_and_text_that_looks_like_it_stays() -> None:
    value = {"-0.0": [-0.0, -0.01, "-0.0", '\\"-0.0', -0.0]}

    assert encode(value) == b'{"-0.0":[0.0,-0.01,"-0.0","\\\\\\"-0.0",0.0]}'
    assert encode(-0.0) == b"0.0"


def test_a_string_that_spells_out_an_escaped_nul_is_not_a_nul() -> None:
    assert encode("\\u0000") == b'"\\\\u0000"'


@pytest.mark.parametrize(
    ("value", "path", "problem"),
    [
        ("a\0b", "$", "a string with a NUL character"),
        ({"a": ["x", "\ud800"]}, "$.a[1]", "a string with a lone surrogate"),
        ({"a": {"\0": 1}}, '$.a["\\u0000"]', "a key with a NUL character"),
        ({"\udfff": 1}, '$["\\udfff"]', "a key with a lone surrogate"),
        ({"a": [0, 1, 2, {"b": float("nan")}]}, "$.a[3].b", "the number nan"),
        ([float("-inf")], "$[0]", "the number -inf"),
        ({"a b": 2**63}, '$["a b"]', "an integer beyond 64 bits"),
        ({"a": {1: 2}}, "$.a", "a key of type int"),
        ({"a": (b"x",)}, "$.a[0]", "a value of type bytes"),
        ([Limits()], "$[0]", "a value of type perdure.canonical.Limits"),
    ],
)
def test_an_offence_is_refused_with_its_path(value: object, path: str, problem: str) -> None:
    assert refusal_of(value) == (path, problem)


def test_the_path_begins_at_the_given_root() -> None:
    assert refusal_of([{"a": 2**64}], root="input")[0] == "input[0].a"


def test_64_levels_pass_and_65_are_refused() -> None:
    assert encode(nested(64)) == b"[" * 64 + b"]" * 64
    assert refusal_of(nested(65)) == ("$" + "[0]" * 64, "more than 64 levels")


def test_any_depth_is_refused_without_exhausting_the_stack() -> None:
    assert refusal_of(nested(100_000))[1] == "more than 64 levels"
    assert refusal_of_text('{"a":[1,{"}":' + "[" * 100_000) == ('$.a[1]["}"]' + "[0]" * 61, "more than 64 levels")


def test_a_value_that_contains_itself_is_refused() -> None:
    narrow: list[Any] = []
    narrow.append(narrow)
    wide: list[Any] = []
    wide.extend([wide] * 1000)

    assert refusal_of(narrow)[1] == "more than 64 levels"
    assert refusal_of(wide) == ("$", "more than 1048576 bytes")


def test_the_size_limit_counts_canonical_bytes_and_passes_exactly() -> None:
    assert len(encode("x" * (1_048_576 - 2))) == 1_048_576
    assert refusal_of("x" * (1_048_576 - 1)) == ("$", "1048577 bytes")
    assert canonicalize(b"[ 1, 2 ]", limits=Limits(max_bytes=5)) == b"[1,2]"


@pytest.mark.parametrize("limits", [{"max_bytes": 0}, {"max_depth": 0}, {"max_depth": 513}])
def test_limits_out_of_range_are_refused_when_made(limits: dict[str, int]) -> None:
    with pytest.raises(InvalidOption):
        Limits(**limits)


@pytest.mark.parametrize(
    ("received", "path", "problem"),
    [
        ('{"x":[1,{"a":1,"b":2,"a":3}]}', "$.x[1].a", "a key that stands twice"),
        ('{"a":1,"\\u0061":2}', "$.a", "a key that stands twice"),
        ("[NaN]", "$[0]", "the number nan"),
        ('{"a":-Infinity}', "$.a", "the number -inf"),
        ("[1e400]", "$[0]", "the number inf"),
        ("[18446744073709551616]", "$[0]", "an integer beyond 64 bits"),
        ("[" + "9" * 10_000 + "]", "$[0]", "an integer beyond 64 bits"),
        ('["\\u0000"]', "$[0]", "a string with a NUL character"),
        ('["\\ud800"]', "$[0]", "a string with a lone surrogate"),
        (b'["\xff"]', "$", "bytes that are not UTF-8 (byte 2 of the text)"),
        (b'["\xed\xa0\x80"]', "$", "bytes that are not UTF-8 (byte 2 of the text)"),
        ("\ufeff1", "$", "text that is not JSON: Expecting value (line 1 column 1)"),
        ("", "$", "text that is not JSON: Expecting value (line 1 column 1)"),
        ("1 2", "$", "text that is not JSON: Extra data (line 1 column 3)"),
    ],
)
def test_received_text_is_refused_with_the_path_of_the_offence(received: bytes | str, path: str, problem: str) -> None:
    assert refusal_of_text(received) == (path, problem)


def test_received_text_is_rewritten_canonically() -> None:
    received = ' {"b" : [1.50, -0, -0.0, 1E2], "a": "\\u00e9\\ud83d\\ude00\\/"}\n'

    assert canonicalize(received).decode() == '{"a":"é😀/","b":[1.5,0,0.0,100.0]}'


@given(values)
def test_canonical_text_reads_back_as_the_value_and_canonicalizes_to_itself(value: Any) -> None:
    written = encode(value)

    assert json.loads(written) == value
    assert canonicalize(written) == written
    assert encode(json.loads(written)) == written


@given(values)
def test_any_spelling_of_a_value_has_one_canonical_text(value: Any) -> None:
    assert canonicalize(json.dumps(value, indent=2)) == encode(value)
    assert canonicalize(json.dumps(value, ensure_ascii=False).encode()) == encode(value)


@given(st.dictionaries(text, leaves, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_keys_never_changes_the_bytes(value: dict[str, Any], random: Any) -> None:
    members = list(value.items())
    random.shuffle(members)

    assert encode(dict(members)) == encode(value)
    assert list(json.loads(encode(value))) == sorted(value)


@given(any_text, st.integers(-5, 80))
def test_sanitized_text_is_storable_within_its_bound_and_stays_as_it_is(given_text: str, max_chars: int) -> None:
    cleaned, changed = sanitize(given_text, max_chars=max_chars)

    assert canonicalize(encode(cleaned)) == encode(cleaned)
    assert len(cleaned) <= max(0, max_chars)
    assert changed == (cleaned != given_text)
    assert sanitize(cleaned, max_chars=max_chars) == (cleaned, False)


def test_sanitize_replaces_what_cannot_be_stored_and_says_so() -> None:
    assert sanitize("a\0b\ud800c", max_chars=10) == ("a\ufffdb\ufffdc", True)
    assert sanitize("fine é", max_chars=6) == ("fine é", False)


def test_sanitize_marks_how_many_characters_were_cut() -> None:
    assert sanitize("x" * 100, max_chars=40) == ("x" * 18 + "… [82 characters cut]", True)


def test_a_content_hash_is_sha256_in_hexadecimal() -> None:
    assert content_hash(b"null") == "74234e98afe7498fb5daf1f36ac2d78acc339464f950703b8c019892f982b90b"


def test_paths_quote_keys_that_are_not_identifiers_and_cut_long_ones() -> None:
    assert child_path(child_path("$", "a"), 3) == "$.a[3]"
    assert child_path("$", 'a"b') == '$["a\\"b"]'
    assert child_path("$", "k" * 101) == '$["' + "k" * 100 + '\\u2026"]'
