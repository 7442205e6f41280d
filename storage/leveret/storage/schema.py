"""The tables of the data file, and how a file of an older version becomes one of this version.

`application_id` in the file's header says that it is ours, `user_version` which schema it has. When the
format changes: raise `SCHEMA_VERSION`, add the statements that lead to it under the version they start from
in `MIGRATIONS`, change `TABLES` or `VIEWS` so that a new file is the same as a migrated one, keep a file of
the old version in tests/storage/fixtures, and tell it in docs/reference/data-file.md. Views hold no data:
every migration makes them anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leveret.storage.changes import MAX_POSITION
from leveret.storage.store import NewerSchemaError, NotAStoreError, StoreError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping
    from pathlib import Path

APPLICATION_ID: Final = 0x4C565254  # "LVRT"
SCHEMA_VERSION: Final = 5
PERSISTENT: Final = 1  # in the column of this name; 0 for a transient message
STREAMED: Final = 3  # one in a stream, kept whatever its delivery mode; it came at `expires_at_ms`
DELAYED: Final = 2  # one that waits in an exchange, and is kept whatever its delivery mode
MESSAGES: Final = "messages"  # the table of the messages of all queues
BLOCKS: Final = 16  # tables beside it for long queues (blocks.py)
PAGE_BYTES: Final = 8192  # measured: 13 % less CPU than 4096 for messages of 1 KiB, the same for small ones
POSITION_BITS: Final = MAX_POSITION.bit_length()


def block_table(number: int) -> str:
    """Return the name of one of the tables for long queues, which are numbered from 1."""
    return f"messages_{number}"


_COLUMNS: Final = f"""\
    id INTEGER PRIMARY KEY,  -- queue_id << {POSITION_BITS} | position
    persistent INTEGER NOT NULL,
    dead_lettered INTEGER NOT NULL,
    expires_at_ms INTEGER,
    checksum INTEGER NOT NULL,  -- CRC-32 of exchange, routing_key, properties and body, one after another
    exchange NOT NULL,
    routing_key NOT NULL,
    properties BLOB NOT NULL,
    properties_json TEXT,
    body NOT NULL  -- TEXT if it is text, else BLOB
"""
_BLOCK_TABLES: Final = (
    """\
CREATE TABLE settled_ranges (  -- of messages that are gone, though their rows are still in a block
    block INTEGER NOT NULL,
    first_id INTEGER NOT NULL,
    last_id INTEGER NOT NULL,
    PRIMARY KEY (block, first_id)
) WITHOUT ROWID""",
    *(
        statement
        for number in range(1, BLOCKS + 1)
        for statement in (
            f"CREATE TABLE {block_table(number)} (\n{_COLUMNS})",
            f"CREATE INDEX transient_{block_table(number)}"
            f" ON {block_table(number)} (persistent) WHERE persistent = 0",
        )
    ),
)

_ACCESS_TABLES: Final = (
    """\
CREATE TABLE vhosts (
    vhost_id INTEGER PRIMARY KEY,
    name NOT NULL UNIQUE,
    description NOT NULL,
    tags TEXT NOT NULL,  -- a JSON array
    default_queue_type TEXT NOT NULL
)""",
    """\
CREATE TABLE users (
    user_id INTEGER PRIMARY KEY,
    name NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    hashing_algorithm TEXT NOT NULL,
    tags TEXT NOT NULL,  -- a JSON array
    limits TEXT NOT NULL  -- a JSON object
)""",
    """\
CREATE TABLE permissions (
    permission_id INTEGER PRIMARY KEY,
    user NOT NULL,
    vhost NOT NULL,
    configure NOT NULL,
    write NOT NULL,
    read NOT NULL,
    UNIQUE (user, vhost)
)""",
    """\
CREATE TABLE topic_permissions (
    permission_id INTEGER PRIMARY KEY,
    user NOT NULL,
    vhost NOT NULL,
    exchange NOT NULL,
    write NOT NULL,
    read NOT NULL,
    UNIQUE (user, vhost, exchange)
)""",
    """\
CREATE TABLE parameters (  -- policies, limits
    parameter_id INTEGER PRIMARY KEY,
    vhost NOT NULL,
    component TEXT NOT NULL,
    name NOT NULL,
    value TEXT NOT NULL,  -- JSON
    UNIQUE (vhost, component, name)
)""",
)

_EXCHANGE_TABLES: Final = (
    """\
CREATE TABLE exchange_queues (  -- what exchanges keep: messages that wait for their time, keys
    queue_id INTEGER PRIMARY KEY,
    vhost NOT NULL,
    exchange NOT NULL,
    UNIQUE (vhost, exchange)
)""",
    """\
CREATE TABLE deduplication_keys (
    key_id INTEGER PRIMARY KEY,  -- in the order in which they came
    queue_id INTEGER NOT NULL,
    key BLOB NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    UNIQUE (queue_id, key)
)""",
    f"""\
CREATE INDEX delayed_messages_due
    ON messages (id >> {POSITION_BITS}, expires_at_ms) WHERE persistent = {DELAYED}""",
)

_STREAM_TABLES: Final = (
    """\
CREATE TABLE stream_segments (  -- runs of messages that retention removes together, but for the last run
    queue_id INTEGER NOT NULL,
    last_position INTEGER NOT NULL,
    first_position INTEGER NOT NULL,
    body_bytes INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    PRIMARY KEY (queue_id, last_position)
) WITHOUT ROWID""",
    """\
CREATE TABLE stream_offsets (  -- how far consumers have read
    queue_id INTEGER NOT NULL,
    consumer_tag NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (queue_id, consumer_tag)
) WITHOUT ROWID""",
)

_RETURNED_TABLES: Final = (
    """\
CREATE TABLE returned_messages (  -- what is known of messages that came back from consumers
    id INTEGER PRIMARY KEY,  -- of the message
    delivery_count INTEGER NOT NULL,
    acquired_count INTEGER NOT NULL,
    retry_at_ms INTEGER NOT NULL  -- 0 if it does not wait
)""",
)

_PRIORITY_TABLES: Final = (
    """\
CREATE TABLE priority_levels (  -- queues with priorities keep the messages of each but the lowest apart
    queue_id INTEGER PRIMARY KEY,  -- of the level, as if it were a queue
    of_queue_id INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    delivered_up_to INTEGER NOT NULL DEFAULT 0,
    UNIQUE (of_queue_id, priority)
)""",
)

# Names are TEXT, or BLOB where their bytes are not UTF-8. `..._json` columns are only for people to read.
TABLES: Final = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
    "INSERT INTO meta VALUES ('epoch', 0)",
    """\
CREATE TABLE exchanges (
    exchange_id INTEGER PRIMARY KEY,
    vhost NOT NULL,
    name NOT NULL,
    type NOT NULL,
    auto_delete INTEGER NOT NULL,
    internal INTEGER NOT NULL,
    arguments BLOB NOT NULL,
    arguments_json TEXT,
    UNIQUE (vhost, name)
)""",
    """\
CREATE TABLE queues (
    queue_id INTEGER PRIMARY KEY,
    vhost NOT NULL,
    name NOT NULL,
    auto_delete INTEGER NOT NULL,
    delivered_up_to INTEGER NOT NULL DEFAULT 0,
    arguments BLOB NOT NULL,
    arguments_json TEXT,
    UNIQUE (vhost, name)
)""",
    """\
CREATE TABLE bindings (
    binding_id INTEGER PRIMARY KEY,
    vhost NOT NULL,
    source NOT NULL,
    destination NOT NULL,
    to_exchange INTEGER NOT NULL,
    binding_key NOT NULL,
    arguments BLOB NOT NULL,
    arguments_json TEXT,
    UNIQUE (vhost, source, destination, to_exchange, binding_key, arguments)
)""",
    # The messages of a queue lie side by side, in order, and need no second index. The body comes last, so
    # that nothing else lies behind a long one.
    f"""\
CREATE TABLE messages (
{_COLUMNS})""",
    "CREATE INDEX transient_messages ON messages (persistent) WHERE persistent = 0",
    """\
CREATE TABLE queue_counts (
    queue_id INTEGER PRIMARY KEY,
    messages INTEGER NOT NULL,
    body_bytes INTEGER NOT NULL
)""",
    """\
CREATE TABLE removed_ranges (  -- of messages that are gone; their rows are deleted little by little
    first_id INTEGER PRIMARY KEY,
    last_id INTEGER NOT NULL
)""",
    *_ACCESS_TABLES,
    *_EXCHANGE_TABLES,
    *_STREAM_TABLES,
    *_RETURNED_TABLES,
    *_PRIORITY_TABLES,
    *_BLOCK_TABLES,
)

NOT_REMOVED: Final = (
    "NOT EXISTS (SELECT 1 FROM removed_ranges WHERE messages.id BETWEEN first_id AND last_id)"
)


def not_settled(number: int, rows: str) -> str:
    """Return the condition for a row of a block that is not settled; `rows` is what its table is called."""
    return (
        f"NOT EXISTS (SELECT 1 FROM settled_ranges WHERE block = {number}"
        f" AND {rows}.id BETWEEN first_id AND last_id)"
    )


# Table of messages -> condition for a row of a message that is there, if the table is called "rows"
STORED: Final = {MESSAGES: NOT_REMOVED.replace("messages.id", "rows.id")} | {
    block_table(number): not_settled(number, "rows") for number in range(1, BLOCKS + 1)
}

# Whatever has a queue id, and may have messages
OWNERS: Final = (
    "SELECT queue_id FROM queues UNION ALL SELECT queue_id FROM exchange_queues"
    " UNION ALL SELECT queue_id FROM priority_levels"
)


def _queue_messages(table: str, is_there: str) -> str:
    """Return what of the view queue_messages is in a table, in order."""
    return f"""\
SELECT
    places.vhost,
    places.name AS queue,
    places.priority,
    rows.id & {MAX_POSITION} AS position,
    rows.exchange,
    rows.routing_key,
    rows.properties_json AS properties,
    CASE typeof(rows.body) WHEN 'text' THEN rows.body END AS body,
    CASE typeof(rows.body)
        WHEN 'text' THEN length(CAST(rows.body AS BLOB))
        ELSE length(rows.body)
    END AS body_bytes,
    rows.persistent != 0 AS persistent,
    CASE WHEN rows.persistent != {STREAMED}
        THEN strftime('%Y-%m-%d %H:%M:%f', rows.expires_at_ms / 1000.0, 'unixepoch')
    END AS expires_at
FROM (
    SELECT queue_id, queue_id AS id, vhost, name, 0 AS priority FROM queues
    UNION ALL
    SELECT queues.queue_id, priority_levels.queue_id, vhost, name, priority
    FROM priority_levels JOIN queues ON queues.queue_id = of_queue_id
    ORDER BY 1, 5 DESC LIMIT -1  -- without a limit SQLite leaves the order out
) AS places
CROSS JOIN {table} AS rows ON rows.id
    BETWEEN places.id << {POSITION_BITS} AND places.id << {POSITION_BITS} | {MAX_POSITION}
WHERE {is_there}"""


VIEWS: Final = {
    "queue_messages": "\nUNION ALL\n".join(
        _queue_messages(table, is_there) for table, is_there in STORED.items()
    ),
    "stored_messages": "\nUNION ALL\n".join(
        f"SELECT * FROM {table} AS rows WHERE {is_there}" for table, is_there in STORED.items()
    ),
    "stream_messages": f"""\
SELECT
    queues.vhost,
    queues.name AS queue,
    (messages.id & {MAX_POSITION}) - 1 AS "offset",
    strftime('%Y-%m-%d %H:%M:%f', messages.expires_at_ms / 1000.0, 'unixepoch') AS came_at,
    messages.exchange,
    messages.routing_key,
    messages.properties_json AS properties,
    CASE typeof(messages.body) WHEN 'text' THEN messages.body END AS body,
    CASE typeof(messages.body)
        WHEN 'text' THEN length(CAST(messages.body AS BLOB))
        ELSE length(messages.body)
    END AS body_bytes
FROM queues
JOIN messages ON messages.id
    BETWEEN queues.queue_id << {POSITION_BITS} AND queues.queue_id << {POSITION_BITS} | {MAX_POSITION}
WHERE messages.persistent = {STREAMED} AND {NOT_REMOVED}""",
    "delayed_messages": f"""\
SELECT
    exchange_queues.vhost,
    exchange_queues.exchange AS waits_in,
    strftime('%Y-%m-%d %H:%M:%f', messages.expires_at_ms / 1000.0, 'unixepoch') AS due_at,
    messages.exchange,
    messages.routing_key,
    messages.properties_json AS properties,
    CASE typeof(messages.body) WHEN 'text' THEN messages.body END AS body,
    CASE typeof(messages.body)
        WHEN 'text' THEN length(CAST(messages.body AS BLOB))
        ELSE length(messages.body)
    END AS body_bytes
FROM exchange_queues
JOIN messages ON messages.id >> {POSITION_BITS} = exchange_queues.queue_id
WHERE messages.persistent = {DELAYED} AND {NOT_REMOVED}
ORDER BY messages.expires_at_ms, messages.id""",
    "list_queues": """\
SELECT
    vhost,
    name,
    coalesce(sum(messages), 0) AS messages,
    coalesce(sum(body_bytes), 0) AS body_bytes,
    auto_delete,
    arguments_json AS arguments
FROM queues LEFT JOIN queue_counts ON queue_counts.queue_id = queues.queue_id
    OR queue_counts.queue_id IN (SELECT queue_id FROM priority_levels WHERE of_queue_id = queues.queue_id)
GROUP BY queues.queue_id""",
    "list_exchanges": """\
SELECT vhost, name, type, auto_delete, internal, arguments_json AS arguments
FROM exchanges""",
    "list_bindings": """\
SELECT
    vhost,
    source,
    destination,
    CASE WHEN to_exchange THEN 'exchange' ELSE 'queue' END AS destination_kind,
    binding_key,
    arguments_json AS arguments
FROM bindings""",
}

# version -> statements that make the next version of it
MIGRATIONS: Final[Mapping[int, tuple[str, ...]]] = {
    1: _ACCESS_TABLES + _EXCHANGE_TABLES + _STREAM_TABLES,
    2: _RETURNED_TABLES + _PRIORITY_TABLES,
    3: (),  # a version that knows no redo log must not open a file that has one
    4: _BLOCK_TABLES,
}


def prepare(
    connection: sqlite3.Connection,
    path: Path,
    migrations: Mapping[int, tuple[str, ...]] = MIGRATIONS,
    version: int = SCHEMA_VERSION,
) -> None:
    """Make the tables in an empty file, or bring those of an older version up to this one, in one
    transaction.

    Raises:
        NotAStoreError: the file has something else in it.
        NewerSchemaError: a later version wrote it.
    """
    found = check(connection, path, version)
    if found == version:
        return
    connection.execute("BEGIN IMMEDIATE")
    if found:
        for view in VIEWS:
            connection.execute(f"DROP VIEW IF EXISTS {view}")
        for step in range(found, version):
            if step not in migrations:
                raise StoreError(
                    f"{path} has the data format {step}, which this version cannot read any more"
                )
            for statement in migrations[step]:
                connection.execute(statement)
    else:
        for statement in TABLES:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    for view, select in VIEWS.items():
        connection.execute(f"CREATE VIEW {view} AS\n{select}")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.execute("COMMIT")


def check(connection: sqlite3.Connection, path: Path, version: int = SCHEMA_VERSION) -> int:
    """Return the schema version of a file; 0 if it is empty. Changes nothing.

    Raises:
        NotAStoreError: the file has something else in it.
        NewerSchemaError: a later version wrote it.
    """
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application_id == APPLICATION_ID:
        if found > version:
            raise NewerSchemaError(
                f"{path} has the data format {found}, and this version knows formats up to {version}: install"
                " the version that wrote it, or use another file"
            )
        return int(found)
    if application_id or found or objects:
        raise NotAStoreError(f"{path} is an SQLite database of another program: use another file")
    return 0
