"""The typed boundary of user values: what an annotation promises is checked before a value is stored.

The check is the strictest one there is: the value is written, read back under the annotation, and what was read must
equal what was given. So a wrong field type, a wrong class or anything that its stored form would change is refused on
the caller's side, with its path, and not found out on another host during a replay.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import re
from typing import Any, Generic, NoReturn, TypeVar

import msgspec

from perdure.canonical import DEFAULT_LIMITS, Limits, child_path
from perdure.canonical import encode as encode_plain
from perdure.errors import InvalidDefinition, InvalidPayload

T = TypeVar("T")

_PLAIN_SCALARS = (type(None), bool, int, float, str)
_MESSAGE = re.compile(r"(?P<text>.*?)(?: - at `(?:key` in `)?(?P<path>\$[^`]*)`)?", re.DOTALL)
_EXPECTED = re.compile(r"Expected (?P<expected>.+), got (?P<found>.+)", re.DOTALL)
_PATH_STEP = re.compile(r"\[\.\.\.\]|\[(?P<index>\d+)\]|\.(?P<name>[^.\[]+)")


class ValueType(Generic[T]):
    """The stored form of one annotation; make it with `value_type`, once, and use it from any thread."""

    __slots__ = ("_decoder", "_plain", "annotation")

    annotation: Any

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(annotation, dec_hook=_from_plain)
        plain = type(None) if annotation is None else annotation
        self._plain: type | None = plain if plain in _PLAIN_SCALARS else None

    def encode(self, value: T, *, limits: Limits = DEFAULT_LIMITS, root: str = "$") -> bytes:
        """Return the canonical JSON text of the value.

        Raises InvalidPayload, with the path from `root`, when the value isn't what the annotation says, when it can't
        be stored (see `canonical.encode`), or when it would read back as something else. One leniency: a tuple may
        stand where a list is read back, because `Sequence` is read as a list. Under `Any` only plain JSON values pass.
        """
        if type(value) is self._plain:
            return encode_plain(value, limits=limits, root=root)
        text = encode_plain(self._reduce(value, root), limits=limits, root=root)
        read = self.decode(text, root=root)
        if read != value:
            _refuse_difference(value, read, root)
        return text

    def decode(self, text: bytes | msgspec.Raw, *, root: str = "$") -> T:
        """Return the value that the JSON text holds, without any coercion of types.

        Unknown keys are ignored, so that a reader survives a newer writer; a msgspec Struct refuses them with
        `forbid_unknown_fields`, a pydantic model with `extra="forbid"`. Text from outside goes through
        `canonical.canonicalize` first, which alone refuses repeated keys. Raises InvalidPayload with the path from
        `root`, what was found and what is allowed; of the exceptions of the user's own `__post_init__` or validators
        so only ValueError and TypeError, the others pass through.
        """
        try:
            return self._decoder.decode(text)
        except msgspec.ValidationError as error:
            self._refuse(bytes(text), error, root)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidPayload(root, f"text that is not JSON: {error}", "one JSON value") from None
        except RecursionError:
            raise InvalidPayload(root, "too many levels", "what canonical text allows") from None

    def json_schema(self) -> dict[str, Any]:
        """A JSON Schema (2020-12) of the stored form; named types stand under `$defs`. The dict is the caller's."""
        return _schema_of(self.annotation)

    def __repr__(self) -> str:
        return f"ValueType({_name_of(self.annotation)})"

    def _reduce(self, value: T, root: str) -> Any:
        def reduce_unknown(part: Any) -> Any:
            if _is_pydantic_model(type(part)):
                return part.model_dump(mode="json", by_alias=True, round_trip=True, warnings=False)
            problem = f"a value of type {_name_of(type(part))}"
            raise InvalidPayload(_path_of(part, value, root), problem, "values with a JSON form")

        try:
            return msgspec.to_builtins(value, str_keys=True, order="deterministic", enc_hook=reduce_unknown)
        except RecursionError:
            raise InvalidPayload(root, "a value that is nested too deeply or contains itself", "64 levels") from None
        except (TypeError, ValueError) as error:  # keys or sets whose elements have no order
            allowed = "keys that are strings or numbers, sets of elements that can be sorted"
            raise InvalidPayload(root, f"a value without a JSON form ({error})", allowed) from None

    def _refuse(self, text: bytes, error: msgspec.ValidationError, root: str) -> NoReturn:
        said, path = _parse_message(error)
        path = self._name_keys(text, error, path, root)
        if _is_pydantic_error(error.__cause__):
            first = error.__cause__.errors(include_url=False)[0]  # type: ignore[union-attr]
            for step in first["loc"]:
                path = child_path(path, step)
            allowed = first["msg"].removeprefix("Input should be ")
            raise InvalidPayload(path, f"found {_name_of(type(first['input']))}", allowed) from None
        expected = _EXPECTED.fullmatch(said)
        if expected is None:
            raise InvalidPayload(path, said, _name_of(self.annotation)) from None
        found = (
            f"a key, found {expected['found']}," if " - at `key` in " in str(error) else f"found {expected['found']}"
        )
        raise InvalidPayload(path, found, expected["expected"]) from None

    def _name_keys(self, text: bytes, error: msgspec.ValidationError, path: str, root: str) -> str:
        """Turn the decoder's path into ours, with the key for each `[...]`: it leaves out the keys of mappings.

        The first bad key is found by halving: the mapping cut down to some of its keys fails with the same words, or
        doesn't.
        """
        try:
            whole = part = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # broken behind the offence
            return root + path[1:]
        for step in _PATH_STEP.finditer(path):
            key: str | int
            if step["index"] is not None:
                key = int(step["index"])
            elif step["name"] is not None:
                key = step["name"]
            elif type(part) is dict:
                key = self._first_bad_key(whole, part, str(error))
            else:
                return root + path[1:]
            root = child_path(root, key)
            if type(part) is dict:
                part = part.get(key)
            else:
                part = part[key] if type(part) is list and isinstance(key, int) else None
        return root

    def _first_bad_key(self, whole: Any, mapping: dict[str, Any], message: str) -> str:
        suspects = list(mapping.items())
        while len(suspects) > 1:
            half = suspects[: len(suspects) // 2]
            mapping.clear()
            mapping.update(half)
            try:
                self._decoder.decode(msgspec.json.encode(whole))
            except msgspec.ValidationError as again:
                fails = str(again) == message
            else:
                fails = False
            suspects = half if fails else suspects[len(half) :]
        mapping.clear()
        mapping.update(suspects)
        return suspects[0][0]


def value_type(annotation: type[T] | Any, *, definition: str | None = None) -> ValueType[Any]:
    """Return the stored form of an annotation.

    Supported: None, builtins, dataclasses, msgspec Structs, TypedDict, NamedTuple, enums, unions, containers, dates,
    UUID, Decimal, Any, and pydantic v2 models, also inside the others. What a model's own JSON form hides (SecretStr)
    is refused when a value is stored. Raises InvalidDefinition, in the name of `definition` (by default the
    annotation), for types without a JSON form.
    """
    name = definition or _name_of(annotation)
    try:
        made: ValueType[Any] = ValueType(annotation)
        made.json_schema()  # the decoder takes classes it can't decode; the schema of each must be known
    except Exception as error:  # resolving annotations runs the user's names: NameError, AttributeError, anything
        said = str(error).splitlines()[-1] if str(error) else type(error).__name__
        raise InvalidDefinition(
            name, f"values of type {_name_of(annotation)} can't be stored: {said}. Use a type with a JSON form"
        ) from error
    return made


# --- pydantic, known by its attributes and never imported -------------------------------------------------------


def _is_pydantic_model(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "__pydantic_core_schema__") and hasattr(kind, "model_validate_json")


def _is_pydantic_error(error: BaseException | None) -> bool:
    return error is not None and type(error).__module__.startswith("pydantic") and hasattr(error, "errors")


def _from_plain(kind: Any, plain: Any) -> Any:
    if _is_pydantic_model(kind):
        return kind.model_validate_json(msgspec.json.encode(plain), strict=True)
    raise TypeError(f"values of type {_name_of(kind)} have no JSON form")


def _schema_of(annotation: Any) -> dict[str, Any]:
    definitions: dict[str, Any] = {}

    def of_custom(kind: Any) -> dict[str, Any]:
        if not _is_pydantic_model(kind):
            raise TypeError(f"{_name_of(kind)} has no JSON form")
        names = f"{kind.__name__}."
        schema: dict[str, Any] = kind.model_json_schema(ref_template=f"#/$defs/{names}{{model}}")
        definitions.update({names + name: inner for name, inner in schema.pop("$defs", {}).items()})
        return schema

    schema = msgspec.json.schema(annotation, schema_hook=of_custom)
    if definitions:
        schema["$defs"] = schema.get("$defs", {}) | definitions
    return schema


# --- where, in a value ------------------------------------------------------------------------------------------


def _refuse_difference(given: Any, read: Any, path: str) -> None:
    """Refuse the first part that reads back as something else; classes without equality are compared by their parts."""
    if type(given) is type(read) or (type(given) is tuple and type(read) is list):
        given_parts, read_parts = _parts_of(given), _parts_of(read)
        if given_parts is not None and read_parts is not None:
            for key, part in given_parts.items():
                if key not in read_parts:
                    where = child_path(path, _key(key))
                    problem = f"a key of type {_name_of(type(key))} that is not read back"
                    raise InvalidPayload(where, problem, "the keys the annotation declares (under Any: strings)")
                if part != read_parts[key]:
                    _refuse_difference(part, read_parts[key], child_path(path, _key(key)))
            return
        raise InvalidPayload(path, f"found {_shown(given)}", f"what reads back equal (this gives {_shown(read)})")
    raise InvalidPayload(path, f"found {_name_of(type(given))}", _name_of(type(read)))


def _path_of(part: Any, whole: Any, root: str) -> str:
    seen = {id(whole)}
    level = [(whole, root)]
    while level:
        deeper = []
        for value, path in level:
            if value is part:
                return path
            for key, inner in (_parts_of(value) or {}).items():
                if id(inner) not in seen:
                    seen.add(id(inner))
                    deeper.append((inner, child_path(path, _key(key))))
        level = deeper
    return root


def _parts_of(value: Any) -> dict[Any, Any] | None:
    """The members of a value by key, index or field, or None for one without members of its own."""
    if isinstance(value, dict):
        return value
    fields: tuple[str, ...]
    if isinstance(value, msgspec.Struct):
        fields = value.__struct_fields__
    elif dataclasses.is_dataclass(value):
        fields = tuple(field.name for field in dataclasses.fields(value))
    elif _is_pydantic_model(type(value)):
        fields = tuple(type(value).model_fields)
    elif isinstance(value, (list, tuple)):
        fields = getattr(value, "_fields", ())
        if not fields:
            return dict(enumerate(value))
    else:
        return None
    return {name: getattr(value, name) for name in fields if hasattr(value, name)}


def _key(key: Any) -> str | int:
    return key if isinstance(key, (str, int)) else str(key)


def _shown(value: Any) -> str:
    """Its type, and for numbers and times its value; text may be a secret and stays out of messages."""
    shows = isinstance(value, (float, decimal.Decimal, datetime.datetime, datetime.timedelta))
    return f"{_name_of(type(value))} {value}" if shows else _name_of(type(value))


def _parse_message(error: Exception) -> tuple[str, str]:
    match = _MESSAGE.fullmatch(str(error))
    assert match is not None
    return match["text"].replace("`", ""), match["path"] or "$"


def _name_of(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else repr(annotation)
