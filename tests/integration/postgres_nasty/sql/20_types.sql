-- Types of every sort: enum, composite, domain, range, multirange, base and shell; and values of them.
CREATE SCHEMA types AUTHORIZATION nasty_owner;
SET search_path = types;

CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy', '', 'it''s "odd" \ , {x}');
ALTER TYPE mood ADD VALUE 'between' BEFORE 'ok';
ALTER TYPE mood ADD VALUE 'between too' AFTER 'between';
ALTER TYPE mood RENAME VALUE 'happy' TO 'HAPPY';
CREATE TYPE "Odd ""Enum""" AS ENUM ();
CREATE TYPE ghost;

CREATE TYPE pair AS (a integer, gone text, "b B" text COLLATE "C", m mood[]);
ALTER TYPE pair DROP ATTRIBUTE gone;
ALTER TYPE pair ADD ATTRIBUTE nested numeric(10, 2);
CREATE TYPE empty_pair AS ();
CREATE TYPE outer_pair AS (inside pair, many pair[]);

CREATE DOMAIN positive AS integer DEFAULT 1 CONSTRAINT above_zero CHECK (VALUE > 0);
CREATE DOMAIN small_positive AS positive NOT NULL CONSTRAINT "below = ten" CHECK (VALUE < 10);
CREATE DOMAIN label AS text COLLATE "POSIX" DEFAULT E'tab\there' CHECK (VALUE !~ E'^\\s' AND length(VALUE) < 5000);
CREATE DOMAIN numbers AS integer[] CHECK (cardinality(VALUE) < 100);
CREATE DOMAIN pair_domain AS pair CHECK (VALUE IS NULL OR (VALUE).a IS NOT NULL);
CREATE DOMAIN loose AS integer;
CREATE TABLE loose_values (v loose);
INSERT INTO loose_values VALUES (-5), (5);
ALTER DOMAIN loose ADD CONSTRAINT not_checked CHECK (VALUE > 0) NOT VALID;

CREATE TYPE celsius;
CREATE FUNCTION celsius_in(cstring) RETURNS celsius LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'int4in';
CREATE FUNCTION celsius_out(celsius) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'int4out';
CREATE FUNCTION celsius_recv(internal) RETURNS celsius LANGUAGE internal IMMUTABLE STRICT AS 'int4recv';
CREATE FUNCTION celsius_send(celsius) RETURNS bytea LANGUAGE internal IMMUTABLE STRICT AS 'int4send';
CREATE TYPE celsius (
    INPUT = celsius_in, OUTPUT = celsius_out, RECEIVE = celsius_recv, SEND = celsius_send,
    INTERNALLENGTH = 4, PASSEDBYVALUE, ALIGNMENT = int4, STORAGE = plain, CATEGORY = 'X', DEFAULT = '21', DELIMITER = ';'
);
CREATE FUNCTION celsius_lt(celsius, celsius) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'int4lt';
CREATE FUNCTION celsius_le(celsius, celsius) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'int4le';
CREATE FUNCTION celsius_eq(celsius, celsius) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'int4eq';
CREATE FUNCTION celsius_ne(celsius, celsius) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'int4ne';
CREATE FUNCTION celsius_ge(celsius, celsius) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'int4ge';
CREATE FUNCTION celsius_gt(celsius, celsius) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'int4gt';
CREATE FUNCTION celsius_eq_int(celsius, integer) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'int4eq';
CREATE FUNCTION celsius_cmp(celsius, celsius) RETURNS integer LANGUAGE internal IMMUTABLE STRICT AS 'btint4cmp';
CREATE FUNCTION celsius_cmp_int(celsius, integer) RETURNS integer LANGUAGE internal IMMUTABLE STRICT AS 'btint4cmp';
CREATE FUNCTION celsius_hash(celsius) RETURNS integer LANGUAGE internal IMMUTABLE STRICT AS 'hashint4';
CREATE FUNCTION celsius_hash_seeded(celsius, bigint) RETURNS bigint LANGUAGE internal IMMUTABLE STRICT AS 'hashint4extended';
CREATE FUNCTION celsius_minus(celsius, celsius) RETURNS float8 LANGUAGE sql IMMUTABLE STRICT
    AS 'SELECT $1::text::float8 - $2::text::float8';
CREATE FUNCTION negate(celsius) RETURNS celsius LANGUAGE internal IMMUTABLE STRICT AS 'int4um';

CREATE OPERATOR < (FUNCTION = celsius_lt, LEFTARG = celsius, RIGHTARG = celsius, COMMUTATOR = >, NEGATOR = >=,
    RESTRICT = scalarltsel, JOIN = scalarltjoinsel);
CREATE OPERATOR <= (FUNCTION = celsius_le, LEFTARG = celsius, RIGHTARG = celsius, COMMUTATOR = >=, NEGATOR = >);
CREATE OPERATOR = (FUNCTION = celsius_eq, LEFTARG = celsius, RIGHTARG = celsius, COMMUTATOR = =, NEGATOR = <>,
    RESTRICT = eqsel, JOIN = eqjoinsel, HASHES, MERGES);
CREATE OPERATOR <> (FUNCTION = celsius_ne, LEFTARG = celsius, RIGHTARG = celsius, COMMUTATOR = <>, NEGATOR = =);
CREATE OPERATOR >= (FUNCTION = celsius_ge, LEFTARG = celsius, RIGHTARG = celsius, COMMUTATOR = <=, NEGATOR = <);
CREATE OPERATOR > (FUNCTION = celsius_gt, LEFTARG = celsius, RIGHTARG = celsius, COMMUTATOR = <, NEGATOR = <=);
CREATE OPERATOR = (FUNCTION = celsius_eq_int, LEFTARG = celsius, RIGHTARG = integer, RESTRICT = eqsel);
CREATE OPERATOR !@#%^&|`? (FUNCTION = negate, RIGHTARG = celsius);

CREATE OPERATOR FAMILY celsius_family USING btree;
CREATE OPERATOR CLASS celsius_ops DEFAULT FOR TYPE celsius USING btree FAMILY celsius_family AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 celsius_cmp(celsius, celsius);
ALTER OPERATOR FAMILY celsius_family USING btree ADD
    OPERATOR 3 = (celsius, integer), FUNCTION 1 celsius_cmp_int(celsius, integer);
CREATE OPERATOR CLASS celsius_hash_ops DEFAULT FOR TYPE celsius USING hash AS
    OPERATOR 1 =, FUNCTION 1 celsius_hash(celsius), FUNCTION 2 celsius_hash_seeded(celsius, bigint);
CREATE OPERATOR FAMILY "lonely family" USING gist;
CREATE OPERATOR CLASS stored_ops FOR TYPE point USING gist AS
    OPERATOR 11 |>> (point, point), OPERATOR 15 <-> (point, point) FOR ORDER BY pg_catalog.float_ops,
    FUNCTION 1 gist_point_consistent(internal, point, smallint, oid, internal), FUNCTION 2 gist_box_union(internal, internal),
    FUNCTION 3 gist_point_compress(internal), FUNCTION 5 gist_box_penalty(internal, internal, internal),
    FUNCTION 6 gist_box_picksplit(internal, internal), FUNCTION 7 gist_box_same(box, box, internal),
    FUNCTION 8 gist_point_distance(internal, point, smallint, oid, internal), STORAGE box;

CREATE CAST (celsius AS integer) WITHOUT FUNCTION AS ASSIGNMENT;
CREATE FUNCTION to_celsius(numeric) RETURNS celsius LANGUAGE sql IMMUTABLE AS 'SELECT round($1)::text::types.celsius';
CREATE CAST (numeric AS celsius) WITH FUNCTION to_celsius(numeric) AS IMPLICIT;
CREATE CAST (celsius AS mood) WITH INOUT;

CREATE TYPE celsius_range AS RANGE (SUBTYPE = celsius, SUBTYPE_OPCLASS = celsius_ops, SUBTYPE_DIFF = celsius_minus,
    MULTIRANGE_TYPE_NAME = "Celsius Ranges");
CREATE TYPE text_range AS RANGE (SUBTYPE = text, COLLATION = "C");
CREATE TYPE step_range;
CREATE FUNCTION step_canonical(step_range) RETURNS step_range LANGUAGE internal IMMUTABLE STRICT AS 'int4range_canonical';
CREATE TYPE step_range AS RANGE (SUBTYPE = integer, CANONICAL = step_canonical, SUBTYPE_DIFF = int4range_subdiff);

CREATE TABLE of_types (
    id integer PRIMARY KEY, m mood, ms mood[], p pair, ps pair[], o outer_pair, d small_positive, l label DEFAULT 'x',
    n numbers, pd pair_domain, c celsius, cs celsius[], cr celsius_range, cm "Celsius Ranges", tr text_range, sr step_range,
    e "Odd ""Enum"""
);
CREATE INDEX of_types_c ON of_types (c);
CREATE INDEX of_types_h ON of_types USING hash (c);
CREATE INDEX of_types_cr ON of_types USING gist (cr);
CREATE TABLE points (p point);
CREATE INDEX points_stored ON points USING gist (p stored_ops);
INSERT INTO of_types VALUES
    (1, 'it''s "odd" \ , {x}', '{sad,NULL,"",between}', '(1,"b ""B"", \\ x",{ok},1.50)', ARRAY['(1,,,)'::pair, NULL],
     ROW(ROW(1, E'new\nline', NULL, 2)::pair, ARRAY[ROW(NULL, '', '{}', 3)::pair])::outer_pair, 9, E'no\\N',
     '[-3:-2]={7,NULL}', '(1,,,)', '-2147483648', '{1;2}', '[1,5)', '{[1,2),[5,)}', '["a,b","c""d")', '(1,5]', NULL),
    (2, NULL, '{}', NULL, '{}', NULL, 1, '', '{}', NULL, '0', NULL, 'empty', '{}', '(,)', 'empty', NULL);
INSERT INTO points SELECT point(i, -i) FROM generate_series(1, 50) i;
CREATE TABLE typed OF pair (a PRIMARY KEY, "b B" WITH OPTIONS DEFAULT 'typed');
INSERT INTO typed VALUES (1, DEFAULT, '{sad}', 0);

GRANT USAGE ON TYPE mood TO nasty_reader WITH GRANT OPTION;
REVOKE USAGE ON TYPE pair FROM PUBLIC;
GRANT USAGE ON DOMAIN positive TO nasty_writer;
ALTER TYPE mood OWNER TO nasty_owner;
ALTER DOMAIN label OWNER TO "Rôle = [""x""]/y.z%'\ ";
ALTER TABLE of_types OWNER TO nasty_owner;
COMMENT ON TYPE mood IS 'a type''s comment';
COMMENT ON COLUMN pair."b B" IS 'a column of a composite type';
COMMENT ON DOMAIN label IS E'line one\nline two; -- not a comment\n\\restrict';
COMMENT ON CONSTRAINT above_zero ON DOMAIN positive IS 'a constraint of a domain';
COMMENT ON OPERATOR < (celsius, celsius) IS 'an operator';
COMMENT ON OPERATOR CLASS celsius_ops USING btree IS 'an operator class';
COMMENT ON OPERATOR FAMILY celsius_family USING btree IS 'an operator family';
COMMENT ON CAST (celsius AS integer) IS 'a cast';
