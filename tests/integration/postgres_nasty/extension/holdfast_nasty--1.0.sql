-- Tables whose rows are dumped wholly, in part, and not at all.
CREATE TYPE kind AS ENUM ('small', 'large');
CREATE TABLE preferences (id integer PRIMARY KEY, value text);
CREATE TABLE "Mixed = rows" (id serial PRIMARY KEY, name text UNIQUE, builtin boolean NOT NULL DEFAULT false);
INSERT INTO "Mixed = rows" (name, builtin) VALUES ('from the extension', true), ('this too', true);
CREATE TABLE not_configuration (a integer PRIMARY KEY, t text);
INSERT INTO not_configuration VALUES (7, 'comes again with the extension');
CREATE SEQUENCE ticket;
CREATE FUNCTION answer() RETURNS integer LANGUAGE sql AS 'SELECT 42';
SELECT pg_catalog.pg_extension_config_dump('preferences', '');
SELECT pg_catalog.pg_extension_config_dump('"Mixed = rows"', 'WHERE NOT builtin');
SELECT pg_catalog.pg_extension_config_dump('"Mixed = rows_id_seq"', '');
SELECT pg_catalog.pg_extension_config_dump('ticket', '');
