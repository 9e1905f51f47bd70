"""What the harness asks a server, in SQL of its own."""

from __future__ import annotations

BY_ENUM = """
WITH RECURSIVE by_enum AS (
    SELECT p.partrelid AS root, p.partrelid AS relid FROM pg_catalog.pg_partitioned_table p WHERE p.partstrat = 'h'
    AND EXISTS (
        SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = p.partrelid AND a.attnum = ANY (p.partattrs) AND t.typtype = 'e'
    )
    UNION ALL
    SELECT b.root, i.inhrelid FROM by_enum b JOIN pg_catalog.pg_inherits i ON i.inhparent = b.relid
)
"""
TABLES_QUERY = (
    BY_ENUM
    + """
SELECT format('%I.%I', n.nspname, c.relname), format('COPY (SELECT %s FROM %s %I.%I) TO STDOUT',
    (SELECT string_agg(format('%I', a.attname), ', ' ORDER BY a.attname) FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    CASE WHEN c.relkind = 'r' THEN 'ONLY' ELSE '' END, n.nspname, c.relname)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)' AND (
    (c.relkind = 'r' AND c.oid NOT IN (SELECT relid FROM by_enum)) OR (c.relkind = 'm' AND c.relispopulated)
    OR (c.relkind = 'p' AND c.oid IN (SELECT root FROM by_enum)))
ORDER BY 1
"""
)
SEQUENCES_QUERY = """
SELECT format('SELECT %L, last_value::text, is_called::text FROM %I.%I',
    format('sequence %I.%I', n.nspname, c.relname), n.nspname, c.relname)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'S' AND n.nspname !~ '^pg_temp' ORDER BY 1
"""
DATABASE_QUERY = """
SELECT 'database', pg_catalog.pg_get_userbyid(d.datdba), pg_catalog.pg_encoding_to_char(d.encoding),
    d.datcollate, d.datctype, d.datconnlimit::text, d.datallowconn::text,
    pg_catalog.shobj_description(d.oid, 'pg_database'),
    (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(d.datacl) a), ''
FROM pg_catalog.pg_database d WHERE d.datname = current_database()
UNION ALL
SELECT 'setting', coalesce(r.rolname, ''), c, '', '', '', '', '', '', ''
FROM pg_catalog.pg_db_role_setting s
    JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase AND d.datname = current_database()
    LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) c
"""
LARGE_OBJECTS_QUERY = """
SELECT 'large object', m.oid::text, pg_catalog.pg_get_userbyid(m.lomowner), md5(lo_get(m.oid)),
    length(lo_get(m.oid))::text, (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(m.lomacl) a),
    obj_description(m.oid, 'pg_largeobject')
FROM pg_catalog.pg_largeobject_metadata m
"""
GLOBAL_QUERIES = (
    """
    SELECT 'role', r.rolname, concat_ws(',', r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin,
        r.rolreplication, r.rolbypassrls), r.rolconnlimit::text, r.rolvaliduntil::text, r.rolconfig::text,
        shobj_description(r.oid, 'pg_authid')
    FROM pg_catalog.pg_roles r WHERE r.rolname !~ '^pg_' ORDER BY 2
    """,
    """
    SELECT 'member', pg_catalog.pg_get_userbyid(m.roleid), pg_catalog.pg_get_userbyid(m.member), m.admin_option::text
    FROM pg_catalog.pg_auth_members m WHERE m.member >= 16384 ORDER BY 2, 3
    """,
    """
    SELECT 'parameter', parname, (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(paracl) a)
    FROM pg_catalog.pg_parameter_acl ORDER BY 2
    """,
)
