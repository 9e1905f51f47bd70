-- Text in LATIN1: names, values and comments that are not UTF-8.
CREATE SCHEMA "schéma";
CREATE TABLE "schéma"."täble" ("cölumn" text DEFAULT 'ß', n integer);
INSERT INTO "schéma"."täble" SELECT chr(i), i FROM generate_series(1, 255) i;
INSERT INTO "schéma"."täble" (n) VALUES (0);
COMMENT ON TABLE "schéma"."täble" IS 'ÿ comment';
CREATE TYPE "énum" AS ENUM ('ä', 'ö');
CREATE TABLE of_enum (e "énum" PRIMARY KEY);
INSERT INTO of_enum VALUES ('ä');
CREATE SEQUENCE "séquence";
SELECT nextval('"séquence"');
CREATE FUNCTION "fönction"() RETURNS text LANGUAGE sql AS 'SELECT ''ü''::text';
CREATE TABLE "große Tabelle" ("spälte" text);
INSERT INTO "große Tabelle" SELECT repeat(chr(i % 96 + 160), 100) || E'\t' || i FROM generate_series(1, 45000) i;
