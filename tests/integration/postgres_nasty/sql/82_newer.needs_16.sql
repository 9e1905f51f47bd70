-- What came with PostgreSQL 16, where both servers are at least that.
CREATE SCHEMA since_16;
SET search_path = since_16;
CREATE TABLE stored (a text STORAGE external COMPRESSION pglz, b text STORAGE default);
CREATE VIEW json AS SELECT JSON_OBJECT('a': 1 ABSENT ON NULL RETURNING jsonb) AS o, JSON_ARRAY(1, NULL NULL ON NULL) AS a, '1' IS JSON SCALAR AS s;
CREATE VIEW literals AS SELECT 0x1F AS hex, 1_000 AS grouped, ANY_VALUE(n) AS n FROM (VALUES (1)) v(n);
CREATE SUBSCRIPTION since_16 CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false, slot_name = NONE, enabled = false,
    create_slot = false, origin = none, streaming = parallel, password_required = false, run_as_owner = true, disable_on_error = true);
GRANT nasty_owner TO nasty_reader WITH INHERIT FALSE, SET TRUE;
