"""What a database holds, as its catalogs tell it within one snapshot.

Source: PostgreSQL's documentation, "System Catalogs"; pg_dump's rules for what of an extension is data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from holdfast.sources.postgres.connection import Row, Session
from holdfast.sources.postgres.logical.names import dotted, quote_identifier
from holdfast.sources.postgres.logical.witness import Column, SequenceWitness

SEQUENCES_PER_QUERY = 200
_SYSTEM = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"

_TABLES = f"""
SELECT c.oid, n.nspname, c.relname, c.relpersistence, c.relfilenode,
       coalesce(x.condition, ''), r.oid, r.nspname, r.relname
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN (SELECT u.oid, e.extcondition[u.place] AS condition
           FROM pg_catalog.pg_extension e, unnest(e.extconfig) WITH ORDINALITY AS u(oid, place)) x ON x.oid = c.oid
LEFT JOIN LATERAL (
    SELECT o.oid, m.nspname, o.relname FROM pg_catalog.pg_class o
    JOIN pg_catalog.pg_namespace m ON m.oid = o.relnamespace
    WHERE c.relispartition AND o.oid = pg_catalog.pg_partition_root(c.oid) AND EXISTS (
        SELECT 1 FROM pg_catalog.pg_partition_ancestors(c.oid) a
        JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = a.relid
        JOIN pg_catalog.pg_opclass k ON k.oid = ANY (p.partclass)
        WHERE p.partstrat = 'h' AND k.opcname = 'enum_ops' AND k.opcnamespace = 'pg_catalog'::regnamespace)) r ON true
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND {_SYSTEM}
  AND (x.condition IS NOT NULL OR NOT EXISTS (
      SELECT 1 FROM pg_catalog.pg_depend d
      WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'))
ORDER BY n.nspname, c.relname"""

_COLUMNS = f"""
SELECT a.attrelid, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod)
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm', 'p') AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND {_SYSTEM}
ORDER BY a.attrelid, a.attnum"""

# Whatever a view reads, directly or through others, has fewer below it than the view itself.
_VIEWS = f"""
WITH RECURSIVE reads(reader, oid) AS (
    SELECT r.ev_class, d.refobjid FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_depend d
      ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
     AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid <> r.ev_class AND d.refobjid >= 16384),
  reaches AS (
    SELECT reader, oid FROM reads UNION SELECT e.reader, d.oid FROM reaches e JOIN reads d ON d.reader = e.oid)
SELECT c.oid, n.nspname, c.relname, c.relispopulated
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'm' AND {_SYSTEM} AND NOT EXISTS (
      SELECT 1 FROM pg_catalog.pg_depend d
      WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY (SELECT count(*) FROM reaches e WHERE e.reader = c.oid), n.nspname, c.relname"""

_SEQUENCES = f"""
SELECT n.nspname, c.relname, c.relpersistence
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND {_SYSTEM}
  AND (c.oid IN (SELECT unnest(extconfig) FROM pg_catalog.pg_extension) OR NOT EXISTS (
      SELECT 1 FROM pg_catalog.pg_depend d
      WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'))
ORDER BY n.nspname, c.relname"""

# Everything with a name of its own, but for what another listed thing brings along: indexes of constraints stay, for
# they can be missing; toast tables, row types, array types and the triggers of foreign keys cannot.
_OBJECTS = f"""
WITH listed(classid, objid) AS (
  SELECT 'pg_class'::regclass, c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE {_SYSTEM} AND c.relkind IN ('v', 'm', 'i', 'I', 'p', 'f', 'c') AND c.relpersistence <> 't'
      AND NOT EXISTS (SELECT 1 FROM pg_index x
                      WHERE x.indexrelid = c.oid AND NOT (x.indisready AND (x.indisvalid OR c.relkind = 'I')))
  UNION ALL SELECT 'pg_proc'::regclass, p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE {_SYSTEM}
  UNION ALL SELECT 'pg_type'::regclass, t.oid FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE {_SYSTEM} AND t.typtype IN ('d', 'e', 'r', 'b')
      AND NOT EXISTS (SELECT 1 FROM pg_type o WHERE o.typarray = t.oid)
  UNION ALL SELECT 'pg_constraint'::regclass, c.oid FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
    WHERE {_SYSTEM} AND c.contype IN ('c', 'f', 'p', 'u', 'x') AND (c.conrelid <> 0 OR c.contypid <> 0)
      AND c.conparentid = 0
  UNION ALL SELECT 'pg_trigger'::regclass, oid FROM pg_trigger WHERE NOT tgisinternal
  UNION ALL SELECT 'pg_policy'::regclass, oid FROM pg_policy
  UNION ALL SELECT 'pg_rewrite'::regclass, r.oid FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_SYSTEM} AND r.rulename <> '_RETURN'
  UNION ALL SELECT 'pg_operator'::regclass, o.oid FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
    WHERE {_SYSTEM}
  UNION ALL SELECT 'pg_opclass'::regclass, o.oid FROM pg_opclass o JOIN pg_namespace n ON n.oid = o.opcnamespace
    WHERE {_SYSTEM}
  UNION ALL SELECT 'pg_opfamily'::regclass, o.oid FROM pg_opfamily o JOIN pg_namespace n ON n.oid = o.opfnamespace
    WHERE {_SYSTEM}
  UNION ALL SELECT 'pg_collation'::regclass, o.oid FROM pg_collation o JOIN pg_namespace n ON n.oid = o.collnamespace
    WHERE {_SYSTEM}
  UNION ALL SELECT 'pg_conversion'::regclass, o.oid FROM pg_conversion o JOIN pg_namespace n ON n.oid = o.connamespace
    WHERE {_SYSTEM}
  UNION ALL SELECT 'pg_statistic_ext'::regclass, o.oid FROM pg_statistic_ext o
    JOIN pg_namespace n ON n.oid = o.stxnamespace WHERE {_SYSTEM}
  UNION ALL SELECT 'pg_ts_config'::regclass, o.oid FROM pg_ts_config o JOIN pg_namespace n ON n.oid = o.cfgnamespace
    WHERE {_SYSTEM}
  UNION ALL SELECT 'pg_ts_dict'::regclass, o.oid FROM pg_ts_dict o JOIN pg_namespace n ON n.oid = o.dictnamespace
    WHERE {_SYSTEM}
  UNION ALL SELECT 'pg_namespace'::regclass, n.oid FROM pg_namespace n WHERE {_SYSTEM}
  UNION ALL SELECT 'pg_event_trigger'::regclass, oid FROM pg_event_trigger
  UNION ALL SELECT 'pg_publication'::regclass, oid FROM pg_publication
  UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid FROM pg_foreign_data_wrapper
  UNION ALL SELECT 'pg_foreign_server'::regclass, oid FROM pg_foreign_server
  UNION ALL SELECT 'pg_cast'::regclass, oid FROM pg_cast WHERE oid >= 16384
  UNION ALL SELECT 'pg_language'::regclass, oid FROM pg_language WHERE oid >= 16384
  UNION ALL SELECT 'pg_am'::regclass, oid FROM pg_am WHERE oid >= 16384)
SELECT o.type, array_to_string(o.object_names, '.') ||
       coalesce('(' || array_to_string(nullif(o.object_args, '{{}}'), ', ') || ')', '')
FROM listed l, LATERAL pg_identify_object_as_address(l.classid, l.objid, 0) o
WHERE o.type IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = l.classid AND d.objid = l.objid AND d.deptype = 'e')
ORDER BY 1, 2"""

_SETTINGS = """
SELECT coalesce((SELECT rolname FROM pg_catalog.pg_roles r WHERE r.oid = s.setrole), ''), unnest(s.setconfig)
FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
WHERE d.datname = pg_catalog.current_database() ORDER BY 1, 2"""

_DATABASE = """
SELECT pg_catalog.pg_encoding_to_char(encoding), pg_catalog.pg_get_userbyid(datdba),
       (SELECT count(*) FROM pg_catalog.pg_largeobject_metadata)
FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()"""

_ROLES = """
SELECT r.rolname, concat_ws(' ', CASE WHEN rolsuper THEN 'superuser' END, CASE WHEN rolcreatedb THEN 'createdb' END,
       CASE WHEN rolcreaterole THEN 'createrole' END, CASE WHEN rolcanlogin THEN 'login' END,
       CASE WHEN rolreplication THEN 'replication' END, CASE WHEN rolbypassrls THEN 'bypassrls' END,
       CASE WHEN NOT rolinherit THEN 'noinherit' END,
       CASE WHEN rolconnlimit >= 0 THEN 'limit ' || rolconnlimit END,
       (SELECT 'member of ' || string_agg(g.rolname, ', ' ORDER BY g.rolname) FROM pg_catalog.pg_auth_members m
        JOIN pg_catalog.pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid))
FROM pg_catalog.pg_roles r WHERE r.rolname !~ '^pg_' ORDER BY 1"""


@dataclass(frozen=True, slots=True)
class Table:
    """A table with rows of its own. ``file`` changes whenever it is truncated or rewritten.

    ``condition`` is what a SELECT adds to read only the data of an extension's configuration table. ``root`` is the
    schema and name of the partitioned table that rows must be loaded by: the hash of an enum's value is another in
    another database, and so is the partition. ``columns`` are in the root's order then.
    ``is_filled`` is only False for a materialised view that cannot be read yet.
    """

    oid: str
    schema: str
    name: str
    columns: tuple[Column, ...]
    is_unlogged: bool
    file: str
    size_bytes: int
    condition: str
    root: tuple[str, str] | None = None
    is_filled: bool = True

    @property
    def title(self) -> str:
        """Its name for people."""
        return dotted(self.schema, self.name)

    @property
    def sql(self) -> str:
        """Its name in SQL."""
        return f"{quote_identifier(self.schema)}.{quote_identifier(self.name)}"

    @property
    def load_sql(self) -> str:
        """The name in SQL of the table that its rows are loaded into."""
        schema, name = self.root or (self.schema, self.name)
        return f"{quote_identifier(schema)}.{quote_identifier(name)}"

    @property
    def column_list(self) -> str:
        """Its columns in SQL; empty for a table without columns, of which COPY then takes what there is."""
        names = ", ".join(quote_identifier(column.name) for column in self.columns)
        return f" ({names})" if names else ""


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """A database but for its rows. ``views`` are the materialised ones, each after those it reads."""

    name: str
    encoding: str
    owner: str
    large_objects: int
    tables: tuple[Table, ...]
    views: tuple[Table, ...]
    sequences: tuple[SequenceWitness, ...]
    unread_sequences: tuple[str, ...]
    extensions: tuple[tuple[str, str], ...]
    settings: tuple[str, ...]
    objects: tuple[tuple[str, tuple[str, ...]], ...]


def _text(value: str | None) -> str:
    return value or ""


def _columns(session: Session) -> dict[str, list[Column]]:
    columns: dict[str, list[Column]] = {}
    for row in session.query(_COLUMNS):
        oid, name, type_name = map(_text, row)
        columns.setdefault(oid, []).append(Column(name, type_name))
    return columns


def read_tables(session: Session) -> tuple[Table, ...]:
    """Return every table whose rows are to be kept, as the session's snapshot sees them, without their sizes.

    Waits for no lock.
    """
    columns = _columns(session)
    return tuple(_table(row, columns) for row in session.query(_TABLES))


def with_sizes(session: Session, tables: tuple[Table, ...]) -> tuple[Table, ...]:
    """Return the tables with their sizes; each must be locked by the session, for asking takes a lock too."""
    listed = ", ".join(table.oid for table in tables)
    if not listed:
        return ()
    query = f"SELECT oid, pg_catalog.pg_table_size(oid) FROM pg_catalog.pg_class WHERE oid IN ({listed})"
    sizes = {oid: int(size or 0) for oid, size in session.query(query)}
    return tuple(replace(table, size_bytes=sizes.get(table.oid, 0)) for table in tables)


def _view(row: Row, columns: dict[str, list[Column]]) -> Table:
    oid, schema, name, is_filled = row
    return Table(
        oid=_text(oid),
        schema=_text(schema),
        name=_text(name),
        columns=tuple(columns.get(_text(oid), ())),
        is_unlogged=False,
        file="",
        size_bytes=0,
        condition="",
        is_filled=is_filled == "t",
    )


def _table(row: Row, columns: dict[str, list[Column]]) -> Table:
    oid, schema, name, persistence, file, condition, root, root_schema, root_name = row
    return Table(
        oid=_text(oid),
        schema=_text(schema),
        name=_text(name),
        columns=tuple(columns.get(_text(root or oid), ())),
        is_unlogged=persistence == "u",
        file=_text(file),
        size_bytes=0,
        condition=_text(condition),
        root=(_text(root_schema), _text(root_name)) if root else None,
    )


@dataclass(frozen=True, slots=True)
class Sequences:
    """Where sequences stand; ``unread`` are the unlogged ones of a standby."""

    values: tuple[SequenceWitness, ...]
    unread: tuple[str, ...]


def read_facts(session: Session, name: str, tables: tuple[Table, ...], sequences: Sequences) -> DatabaseFacts:
    """Return all else about the database the session is in."""
    columns = _columns(session)
    encoding, owner, large_objects = map(_text, session.query(_DATABASE)[0])
    objects: dict[str, list[str]] = {}
    with_path = session.query(f"SET search_path = pg_catalog; {_OBJECTS}")
    for kind, identity in with_path:
        objects.setdefault(_text(kind), []).append(_text(identity))
    return DatabaseFacts(
        name=name,
        encoding=encoding,
        owner=owner,
        large_objects=int(large_objects),
        tables=tables,
        views=tuple(_view(row, columns) for row in session.query(_VIEWS)),
        sequences=sequences.values,
        unread_sequences=sequences.unread,
        extensions=tuple(
            (_text(extension), _text(version))
            for extension, version in session.query(
                "SELECT extname, extversion FROM pg_catalog.pg_extension ORDER BY 1"
            )
        ),
        settings=tuple(f"{role}: {setting}" if role else _text(setting) for role, setting in session.query(_SETTINGS)),
        objects=tuple((kind, tuple(names)) for kind, names in sorted(objects.items())),
    )


def read_sequences(session: Session) -> Sequences:
    """Return where every sequence stands; each is locked against being dropped until the transaction ends."""
    rows = session.query(_SEQUENCES)
    in_recovery = session.query("SELECT pg_catalog.pg_is_in_recovery()")[0][0] == "t"
    readable = [(_text(schema), _text(name)) for schema, name, kept in rows if not (in_recovery and kept == "u")]
    unread = tuple(dotted(_text(schema), _text(name)) for schema, name, kept in rows if in_recovery and kept == "u")
    found: list[SequenceWitness] = []
    for start in range(0, len(readable), SEQUENCES_PER_QUERY):
        batch = readable[start : start + SEQUENCES_PER_QUERY]
        values = session.query(
            " UNION ALL ".join(
                f"SELECT {place}, last_value, is_called FROM {quote_identifier(schema)}.{quote_identifier(name)}"
                for place, (schema, name) in enumerate(batch)
            )
        )
        for place, value, is_called in values:
            schema, name = batch[int(place or 0)]
            found.append(SequenceWitness(schema, name, int(value or 0), is_called == "t"))
    return Sequences(tuple(sorted(found, key=lambda each: (each.schema, each.name))), unread)


def has_large_objects(session: Session) -> bool:
    """Tell whether the database has any large objects."""
    return session.query("SELECT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)")[0][0] == "t"


def read_roles(session: Session) -> tuple[tuple[str, str], ...]:
    """Return every role of the cluster with its attributes in words."""
    return tuple((_text(name), _text(words)) for name, words in session.query(_ROLES))
