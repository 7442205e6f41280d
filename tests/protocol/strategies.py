"""What hypothesis makes for the protocol tests: field values of every type, tables, property lists."""

from __future__ import annotations

import struct

from hypothesis import strategies as st

from leveret.protocol.tables import Field, Table

RANGES = {
    "b": (-(1 << 7), (1 << 7) - 1),
    "B": (0, (1 << 8) - 1),
    "s": (-(1 << 15), (1 << 15) - 1),
    "u": (0, (1 << 16) - 1),
    "I": (-(1 << 31), (1 << 31) - 1),
    "i": (0, (1 << 32) - 1),
    "l": (-(1 << 63), (1 << 63) - 1),
    "L": (-(1 << 63), (1 << 63) - 1),
    "T": (0, (1 << 64) - 1),
}  # tag -> smallest and largest value


def surrogate_escaped(data: bytes) -> str:
    """Return the text that stands for any bytes."""
    return data.decode("utf-8", "surrogateescape")


def _tagged(tag: str, values: st.SearchStrategy[object]) -> st.SearchStrategy[Field]:
    return values.map(lambda value: Field(tag, value))


names = st.binary(max_size=40).map(surrogate_escaped)  # anything RabbitMQ takes as a key or a name
utf8_names = st.text(max_size=40).filter(lambda text: len(text.encode("utf-8", "surrogatepass")) <= 255)

scalars: st.SearchStrategy[Field] = st.one_of(
    *(_tagged(tag, st.integers(low, high)) for tag, (low, high) in RANGES.items()),
    _tagged("t", st.booleans()),
    _tagged("d", st.floats(allow_nan=False)),
    _tagged("f", st.floats(width=32, allow_nan=False)),
    _tagged("D", st.tuples(st.integers(0, 255), st.integers(0, (1 << 32) - 1))),
    _tagged("S", st.binary(max_size=40)),
    _tagged("x", st.binary(max_size=40)),
    _tagged("V", st.none()),
)


def _containers(inside: st.SearchStrategy[Field]) -> st.SearchStrategy[Field]:
    return _tagged("A", st.lists(inside, max_size=4)) | _tagged(
        "F", st.dictionaries(names, inside, max_size=4)
    )


fields: st.SearchStrategy[Field] = st.recursive(scalars, _containers, max_leaves=12)
field_tables: st.SearchStrategy[Table] = st.dictionaries(names, fields, max_size=5)

# Plain values of which pamqp keeps the value, if not always the type: floats that fit 32 bits, UTF-8 text.
plain_scalars: st.SearchStrategy[object] = st.one_of(
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.integers(-(1 << 20), 1 << 20).map(
        lambda number: struct.unpack(">f", struct.pack(">f", number / 4))[0]
    ),
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.none(),
)
plain_keys = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=20)
plain_tables: st.SearchStrategy[dict[str, object]] = st.dictionaries(
    plain_keys,
    st.recursive(
        plain_scalars,
        lambda inside: st.lists(inside, max_size=3) | st.dictionaries(plain_keys, inside, max_size=3),
        max_leaves=8,
    ),
    max_size=5,
)
