"""AMQP's methods and properties: what a line of a transcript says, as bytes, and the other way round.

    queue.declare queue=$q durable arguments={x-expires: 1000}

Fields are named as in the specification. One that a line leaves out is empty, zero or false, and those are
not written, except for numbers.
"""

from __future__ import annotations

import struct

from transcripts.values import (
    Bytes,
    Reader,
    TranscriptError,
    longstr,
    readable,
    shortstr,
    written,
    written_table,
)

CATALOGUE = """
10 10 connection.start version-major:octet version-minor:octet server-properties:table mechanisms:longstr \
locales:longstr
10 11 connection.start-ok client-properties:table mechanism:shortstr response:longstr locale:shortstr
10 20 connection.secure challenge:longstr
10 21 connection.secure-ok response:longstr
10 30 connection.tune channel-max:short frame-max:long heartbeat:short
10 31 connection.tune-ok channel-max:short frame-max:long heartbeat:short
10 40 connection.open virtual-host:shortstr capabilities:shortstr insist:bit
10 41 connection.open-ok known-hosts:shortstr
10 50 connection.close reply-code:short reply-text:shortstr class-id:short method-id:short
10 51 connection.close-ok
10 60 connection.blocked reason:shortstr
10 61 connection.unblocked
10 70 connection.update-secret new-secret:longstr reason:shortstr
10 71 connection.update-secret-ok
20 10 channel.open out-of-band:shortstr
20 11 channel.open-ok channel-id:longstr
20 20 channel.flow active:bit
20 21 channel.flow-ok active:bit
20 40 channel.close reply-code:short reply-text:shortstr class-id:short method-id:short
20 41 channel.close-ok
30 10 access.request realm:shortstr exclusive:bit passive:bit active:bit write:bit read:bit
30 11 access.request-ok ticket:short
40 10 exchange.declare ticket:short exchange:shortstr type:shortstr passive:bit durable:bit auto-delete:bit \
internal:bit no-wait:bit arguments:table
40 11 exchange.declare-ok
40 20 exchange.delete ticket:short exchange:shortstr if-unused:bit no-wait:bit
40 21 exchange.delete-ok
40 30 exchange.bind ticket:short destination:shortstr source:shortstr routing-key:shortstr no-wait:bit \
arguments:table
40 31 exchange.bind-ok
40 40 exchange.unbind ticket:short destination:shortstr source:shortstr routing-key:shortstr no-wait:bit \
arguments:table
40 51 exchange.unbind-ok
50 10 queue.declare ticket:short queue:shortstr passive:bit durable:bit exclusive:bit auto-delete:bit \
no-wait:bit arguments:table
50 11 queue.declare-ok queue:shortstr message-count:long consumer-count:long
50 20 queue.bind ticket:short queue:shortstr exchange:shortstr routing-key:shortstr no-wait:bit \
arguments:table
50 21 queue.bind-ok
50 30 queue.purge ticket:short queue:shortstr no-wait:bit
50 31 queue.purge-ok message-count:long
50 40 queue.delete ticket:short queue:shortstr if-unused:bit if-empty:bit no-wait:bit
50 41 queue.delete-ok message-count:long
50 50 queue.unbind ticket:short queue:shortstr exchange:shortstr routing-key:shortstr arguments:table
50 51 queue.unbind-ok
60 10 basic.qos prefetch-size:long prefetch-count:short global:bit
60 11 basic.qos-ok
60 20 basic.consume ticket:short queue:shortstr consumer-tag:shortstr no-local:bit no-ack:bit exclusive:bit \
no-wait:bit arguments:table
60 21 basic.consume-ok consumer-tag:shortstr
60 30 basic.cancel consumer-tag:shortstr no-wait:bit
60 31 basic.cancel-ok consumer-tag:shortstr
60 40 basic.publish ticket:short exchange:shortstr routing-key:shortstr mandatory:bit immediate:bit
60 50 basic.return reply-code:short reply-text:shortstr exchange:shortstr routing-key:shortstr
60 60 basic.deliver consumer-tag:shortstr delivery-tag:longlong redelivered:bit exchange:shortstr \
routing-key:shortstr
60 70 basic.get ticket:short queue:shortstr no-ack:bit
60 71 basic.get-ok delivery-tag:longlong redelivered:bit exchange:shortstr routing-key:shortstr \
message-count:long
60 72 basic.get-empty cluster-id:shortstr
60 80 basic.ack delivery-tag:longlong multiple:bit
60 90 basic.reject delivery-tag:longlong requeue:bit
60 100 basic.recover-async requeue:bit
60 110 basic.recover requeue:bit
60 111 basic.recover-ok
60 120 basic.nack delivery-tag:longlong multiple:bit requeue:bit
85 10 confirm.select no-wait:bit
85 11 confirm.select-ok
90 10 tx.select
90 11 tx.select-ok
90 20 tx.commit
90 21 tx.commit-ok
90 30 tx.rollback
90 31 tx.rollback-ok
"""
PROPERTIES = (  # from the highest bit of the property flags down
    ("content-type", "shortstr"),
    ("content-encoding", "shortstr"),
    ("headers", "table"),
    ("delivery-mode", "octet"),
    ("priority", "octet"),
    ("correlation-id", "shortstr"),
    ("reply-to", "shortstr"),
    ("expiration", "shortstr"),
    ("message-id", "shortstr"),
    ("timestamp", "longlong"),
    ("type", "shortstr"),
    ("user-id", "shortstr"),
    ("app-id", "shortstr"),
    ("cluster-id", "shortstr"),
)
NUMBERS = {"octet": ">B", "short": ">H", "long": ">I", "longlong": ">Q"}
CONTENT = {"basic.publish", "basic.return", "basic.deliver", "basic.get-ok"}  # methods that a content follows

IDS: dict[str, tuple[int, int]] = {}  # name -> class and method id
FIELDS: dict[str, list[tuple[str, str]]] = {}  # name -> names and types of its fields
for _line in CATALOGUE.strip().splitlines():
    _class_id, _method_id, _name, *_fields = _line.split()
    IDS[_name] = (int(_class_id), int(_method_id))
    FIELDS[_name] = [(field.partition(":")[0], field.partition(":")[2]) for field in _fields]
NAMES = {ids: name for name, ids in IDS.items()}


def read_fields(
    reader: Reader, types: list[tuple[str, str]] | tuple[tuple[str, str], ...]
) -> dict[str, bytes]:
    """Read `name=value` and flags up to a colon or the end of the line, and encode the values."""
    known = dict(types)
    values: dict[str, bytes] = {}
    while not reader.at_end() and not reader.text.startswith(": ", reader.position):
        name = reader.word()
        if name not in known:
            raise TranscriptError(f"no field {name} in {reader.text!r}")
        kind = known[name]
        if kind == "bit":
            values[name] = b"\1"
        elif not reader.sees("="):
            raise TranscriptError(f"{name} needs a value in {reader.text!r}")
        else:
            values[name] = _read_value(reader, kind)
    return values


def _read_value(reader: Reader, kind: str) -> bytes:
    if kind in NUMBERS:
        return struct.pack(NUMBERS[kind], int(reader.word(r"\d+")))
    if kind == "table":
        return reader.table()
    return (shortstr if kind == "shortstr" else longstr)(reader.string())


def encoded_method(name: str, values: dict[str, bytes]) -> bytes:
    """Make the payload of a method frame."""
    payload = struct.pack(">HH", *IDS[name])
    bits: list[bool] = []
    for field, kind in FIELDS[name]:
        if kind == "bit":
            bits.append(field in values)
            continue
        payload += _packed(bits) + values.get(field, _empty(kind))
        bits = []
    return payload + _packed(bits)


def _packed(bits: list[bool]) -> bytes:
    return bytes([sum(bit << place for place, bit in enumerate(bits))]) if bits else b""


def _empty(kind: str) -> bytes:
    return bytes({"table": 4, "longstr": 4, "shortstr": 1}.get(kind) or struct.calcsize(NUMBERS[kind]))


def encoded_properties(values: dict[str, bytes]) -> bytes:
    """Make the property flags and the properties of a content header."""
    flags = sum(1 << 15 - place for place, (name, _) in enumerate(PROPERTIES) if name in values)
    return struct.pack(">H", flags) + b"".join(values[name] for name, _ in PROPERTIES if name in values)


def written_method(name: str, arguments: bytes) -> str:
    """Write a method."""
    data = Bytes(arguments)
    values: list[tuple[str, str, object]] = []
    bits = 0
    byte = 0
    for field, kind in FIELDS[name]:
        if kind == "bit":
            byte = data.number(">B") if bits % 8 == 0 else byte
            values.append((field, kind, bool(byte >> bits % 8 & 1)))
            bits += 1
            continue
        bits = 0
        values.append((field, kind, _taken(data, kind)))
    if data.position != len(arguments):
        raise TranscriptError(f"the broker sent bytes behind {name}")
    if name in ("connection.close", "channel.close"):
        code, text, class_id, method_id = (value for _, _, value in values)
        assert isinstance(text, bytes)
        return f"{name} {code} {readable(text, quoted=False)} ({class_id},{method_id})"
    return " ".join([name, *filter(None, (_written(field, kind, value) for field, kind, value in values))])


def _taken(data: Bytes, kind: str) -> object:
    if kind in NUMBERS:
        return data.number(NUMBERS[kind])
    if kind == "table":
        return data.table()
    return data.shortstr() if kind == "shortstr" else data.longstr()


def _written(field: str, kind: str, value: object, empty: bool = False) -> str:
    match value:
        case bool():
            return field if value else ""
        case int():
            return f"{field}={value}"
        case bytes():
            return f"{field}={written(value)}" if value or empty else ""
        case list():
            return f"{field}={written_table(value)}" if value or empty else ""
    raise TypeError(kind)


def written_properties(data: bytes) -> str:
    """Write the properties of a content header, `data` being everything behind the body size."""
    source = Bytes(data)
    flags = source.number(">H")
    parts = [
        _written(name, kind, _taken(source, kind), empty=True)
        for place, (name, kind) in enumerate(PROPERTIES)
        if flags >> 15 - place & 1
    ]
    if rest := source.data[source.position :]:
        parts.append(f"rest={written(rest)}")
    return " ".join(parts)
