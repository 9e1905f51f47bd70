-- Row security, privileges of every sort, default privileges, foreign data, large objects, publications, subscriptions.
CREATE SCHEMA secure AUTHORIZATION nasty_owner;
CREATE SCHEMA "odd schema, with comma";
SET search_path = secure;

SET ROLE nasty_owner;
CREATE TABLE accounts (id integer PRIMARY KEY, owner name DEFAULT CURRENT_USER, balance numeric, secret text);
INSERT INTO accounts VALUES (1, 'nasty_reader', 10, 's1'), (2, 'nasty_writer', -5, 's2'), (3, 'nobody', 0, NULL);
ALTER TABLE accounts ENABLE ROW LEVEL SECURITY;
ALTER TABLE accounts FORCE ROW LEVEL SECURITY;
CREATE POLICY "own = [rows]" ON accounts USING (owner = CURRENT_USER) WITH CHECK (balance >= 0);
CREATE POLICY limiting ON accounts AS RESTRICTIVE FOR UPDATE TO nasty_reader, nasty_writer USING (id < 100);
CREATE POLICY inserting ON accounts FOR INSERT TO PUBLIC WITH CHECK (EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = owner));
COMMENT ON POLICY limiting ON accounts IS 'a policy';
CREATE TABLE no_policies (a integer);
INSERT INTO no_policies VALUES (1), (2);
ALTER TABLE no_policies ENABLE ROW LEVEL SECURITY;
ALTER TABLE no_policies FORCE ROW LEVEL SECURITY;
CREATE TABLE policies_off (a integer);
CREATE POLICY unused ON policies_off USING (false);
RESET ROLE;

GRANT USAGE ON SCHEMA secure TO nasty_reader;
GRANT SELECT (id, owner), UPDATE (secret) ON accounts TO nasty_reader WITH GRANT OPTION;
GRANT SELECT, INSERT ON accounts TO nasty_writer;
GRANT SELECT (secret) ON accounts TO PUBLIC;
SET ROLE nasty_reader;
GRANT SELECT (id) ON secure.accounts TO "select";
RESET ROLE;
REVOKE ALL ON no_policies FROM nasty_owner;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER ON ALL TABLES IN SCHEMA tables TO "Rôle = [""x""]/y.z%'\ ";
GRANT USAGE, UPDATE ON SEQUENCE tables.seq_free TO nasty_writer;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO PUBLIC;
GRANT CREATE ON SCHEMA "odd schema, with comma" TO nasty_writer WITH GRANT OPTION;
GRANT CREATE, CONNECT ON DATABASE :"DBNAME" TO nasty_writer WITH GRANT OPTION;
REVOKE TEMPORARY ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT SELECT ON pg_catalog.pg_authid TO nasty_writer;
GRANT SELECT (rolpassword) ON pg_catalog.pg_authid TO nasty_reader;

ALTER DEFAULT PRIVILEGES FOR ROLE nasty_owner GRANT SELECT ON TABLES TO nasty_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE nasty_owner IN SCHEMA secure GRANT INSERT, UPDATE ON TABLES TO nasty_writer WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE nasty_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE "Rôle = [""x""]/y.z%'\ " GRANT USAGE ON SEQUENCES TO "select";
ALTER DEFAULT PRIVILEGES FOR ROLE nasty_writer REVOKE USAGE ON TYPES FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE nasty_writer GRANT USAGE ON SCHEMAS TO nasty_reader;

CREATE FOREIGN DATA WRAPPER "dummy = fdw" OPTIONS (a 'it''s', "b B" '');
CREATE SERVER "dummy server" TYPE 'odd "type"' VERSION '1''2' FOREIGN DATA WRAPPER "dummy = fdw" OPTIONS (host 'h''o\st');
CREATE USER MAPPING FOR PUBLIC SERVER "dummy server";
CREATE USER MAPPING FOR nasty_reader SERVER "dummy server" OPTIONS (password 'se''cret');
CREATE FOREIGN TABLE far_away (id integer OPTIONS (column_name 'i''d') NOT NULL, t text DEFAULT 'x', CHECK (id > 0)) SERVER "dummy server" OPTIONS ("table" 'x y');
ALTER FOREIGN TABLE far_away ALTER t SET STATISTICS 5;
CREATE EXTENSION postgres_fdw SCHEMA secure;
CREATE SERVER remote FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1', dbname 'nowhere');
CREATE USER MAPPING FOR CURRENT_USER SERVER remote OPTIONS (user 'u', password 'p');
CREATE FOREIGN TABLE unreachable (a integer, b text GENERATED ALWAYS AS ('x') STORED) SERVER remote;
CREATE TABLE with_foreign (a integer, b text) PARTITION BY LIST (a);
CREATE TABLE with_foreign_here PARTITION OF with_foreign FOR VALUES IN (1);
CREATE FOREIGN TABLE with_foreign_there PARTITION OF with_foreign FOR VALUES IN (2) SERVER remote;
INSERT INTO with_foreign VALUES (1, 'here');
CREATE TABLE inherits_foreign () INHERITS (far_away);
INSERT INTO inherits_foreign VALUES (5, 'local');
GRANT USAGE ON FOREIGN DATA WRAPPER "dummy = fdw" TO nasty_writer;
GRANT USAGE ON FOREIGN SERVER "dummy server" TO nasty_reader WITH GRANT OPTION;
GRANT SELECT ON far_away TO nasty_reader;
COMMENT ON FOREIGN DATA WRAPPER "dummy = fdw" IS 'a wrapper';
COMMENT ON SERVER "dummy server" IS 'a server';
COMMENT ON FOREIGN TABLE far_away IS 'a foreign table';

SELECT lo_from_bytea(4000000001, '\x'), lo_from_bytea(4000000002, decode(repeat('00ff5c0a27', 100000), 'hex')), lo_from_bytea(4000000003, 'x');
ALTER LARGE OBJECT 4000000002 OWNER TO nasty_owner;
GRANT SELECT ON LARGE OBJECT 4000000002 TO nasty_reader WITH GRANT OPTION;
GRANT UPDATE ON LARGE OBJECT 4000000003 TO PUBLIC;
COMMENT ON LARGE OBJECT 4000000001 IS E'an empty one''s\ncomment';
SELECT lo_put(4000000003, 5000, 'after a hole');

CREATE PUBLICATION "all = tables" FOR ALL TABLES WITH (publish = 'insert, delete', publish_via_partition_root = true);
CREATE PUBLICATION some_tables FOR TABLE tables.indexed (id, f) WHERE (id > 5 AND f <> 3), TABLE ONLY tables.parent, partitions.keyed;
CREATE PUBLICATION of_schema FOR TABLES IN SCHEMA types, "odd schema, with comma", TABLE views.triggered;
CREATE PUBLICATION empty_publication;
ALTER PUBLICATION some_tables OWNER TO nasty_owner;
COMMENT ON PUBLICATION some_tables IS 'a publication';
CREATE SUBSCRIPTION "sub = scription" CONNECTION 'host=127.0.0.1 port=1 dbname=''no where'' password=s''' PUBLICATION "all = tables", p2
    WITH (connect = false, slot_name = NONE, enabled = false, create_slot = false, binary = true, streaming = true, synchronous_commit = 'remote_apply', two_phase = false);
COMMENT ON SUBSCRIPTION "sub = scription" IS 'a subscription';
