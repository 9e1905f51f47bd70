-- Values at the ends of every built-in type, and text that looks like something else.
CREATE SCHEMA extremes;
SET search_path = extremes;

CREATE TABLE numbers (i2 smallint, i4 integer, i8 bigint, f4 real, f8 double precision, n numeric, n2 numeric(1000, 999), m money, o oid);
INSERT INTO numbers VALUES
    (-32768, -2147483648, -9223372036854775808, '-Infinity', '-Infinity', '-Infinity', 0.1, '-92233720368547758.08', 0),
    (32767, 2147483647, 9223372036854775807, 'Infinity', 'Infinity', 'Infinity', -9.9, '92233720368547758.07', 4294967295),
    (0, 0, 0, 'NaN', 'NaN', 'NaN', 'NaN', '0.01', 1), (1, -1, 1, '-0', '-0', '-0.000', 0, NULL, NULL),
    (1, 1, 1, 1e-45, 4.9e-324, ('1' || repeat('0', 20000) || '.' || repeat('9', 16383))::numeric, NULL, NULL, NULL),
    (1, 1, 1, 3.4028235e38, 1.7976931348623157e308, 1e-16383, 1e-999, NULL, NULL),
    (1, 1, 1, 0.1, 0.1, 0.10, NULL, NULL, NULL), (1, 1, 1, 1.17549435e-38, 2.2250738585072014e-308, 1.0 / 3, NULL, NULL, NULL);
CREATE TABLE times (d date, t time, tz timetz, ts timestamp, tstz timestamptz, i interval, t3 timestamp(3), iy interval year to month);
INSERT INTO times VALUES
    ('4714-11-24 BC', '00:00:00', '00:00:00+15:59:59', '4714-11-24 00:00:00 BC', '4714-11-24 00:00:00+00 BC', '-178000000 years', '2000-01-01 00:00:00.9996', '-5 years'),
    ('5874897-12-31', '24:00:00', '24:00:00-15:59:59', '294276-12-31 23:59:59.999999', '294276-12-31 23:59:59.999999+00', '178000000 years', '1999-12-31 23:59:59.999', '5 years 3 mons'),
    ('infinity', '23:59:59.999999', '12:00:00.000001+05:30', 'infinity', 'infinity', '1 mon -1 day +00:00:00.000001', NULL, NULL),
    ('-infinity', '00:00:00.000001', NULL, '-infinity', '-infinity', '-1 mon 1 day -25:00:00.5', NULL, NULL),
    ('0001-01-01 BC', NULL, NULL, '0044-03-15 12:00 BC', '1883-11-18 12:03:57.5-05', '@ 0', NULL, NULL),
    ('2021-03-28', NULL, NULL, '2021-03-28 02:30', '2021-03-28 01:30:00.123456+00', '2147483647 days -2147483648 hours', NULL, NULL);
CREATE TABLE texts (id integer PRIMARY KEY, t text, v varchar(20), c char(10), n name, q "char");
INSERT INTO texts VALUES (1, '', '', '', '', ''), (2, NULL, NULL, NULL, NULL, NULL), (3, '\N', '\.', E'\\', E'\t', '\'),
    (4, E'\\.', E'\n\\.\n', E'a\r\n', 'A', E'\001'), (5, 'COPY x FROM stdin;', '-- c', '/* c', ':var', ':'),
    (6, E'\b\f\v\x01\x1b\x7f', 'é', 'ﬀ', '😀', '"'), (7, 'NULL', 'null', ' x ', '"q"', ''''),
    (8, E'e\u0301 \u00e9 \U0001F9D1\u200D\U0001F680 \ufeff \u2028', '𝒳', '漢字', 'ß', 'x'),
    (9, repeat(E'long \\ line\t', 90000), NULL, NULL, NULL, NULL), (10, repeat(E'\n', 5000), NULL, NULL, NULL, NULL);
INSERT INTO texts (id, t) SELECT 100 + i, chr(i) || 'x' || chr(i) FROM generate_series(1, 300) i;
INSERT INTO texts (id, q) SELECT 1000 + i, i::"char" FROM generate_series(-128, 127) i;
CREATE TABLE bytes (id integer, b bytea);
INSERT INTO bytes SELECT i, set_byte('\x00'::bytea, 0, i) FROM generate_series(0, 255) i;
INSERT INTO bytes VALUES (-1, ''), (-2, NULL), (-3, decode((SELECT string_agg(lpad(to_hex(i), 2, '0'), '') FROM generate_series(0, 255) i), 'hex')),
    (-4, decode(repeat('5c00ff0a', 50000), 'hex'));
CREATE TABLE documents (x xml, j json, jb jsonb, jp jsonpath, v tsvector, q tsquery);
INSERT INTO documents VALUES
    (xml '<a b="c">&lt;é<!-- c --></a>', '{"a" : 1, "a":2,  "\u0041":"\\\n"}', '{"b": 1e400, "a": [null, true, "\" \\ \u00e9", {}]}', '$.a[*] ? (@ > 1 && @."b c" like_regex "^x\\d")', '''a b'':1A,2B c''d', '''a b'':*A & !c <2> d'),
    (XMLPARSE(CONTENT 'text <b/> and <c/>'), '  []  ', '0', 'strict $', '', ''),
    (XMLPARSE(CONTENT ''), 'null', 'null', '$', NULL, NULL), (NULL, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE nets (i inet, c cidr, m macaddr, m8 macaddr8, b bit(5), vb bit varying, b0 bit varying(64), u uuid, l pg_lsn);
INSERT INTO nets VALUES
    ('255.255.255.255/0', '0.0.0.0/0', 'ff:ff:ff:ff:ff:ff', '00:00:00:00:00:00:00:00', '10101', '', repeat('1', 64)::bit(64), '00000000-0000-0000-0000-000000000000', '0/0'),
    ('::ffff:1.2.3.4/127', '2001:db8::/32', '00-00-00-00-00-00', 'ff:ff:ff:ff:ff:ff:ff:ff', '00000', repeat('01', 4000)::varbit, '', 'ffffffff-ffff-ffff-ffff-ffffffffffff', 'FFFFFFFF/FFFFFFFF');
CREATE TABLE shapes (p point, l line, s lseg, b box, pa path, po polygon, c circle);
INSERT INTO shapes VALUES
    ('(1e-310,-0)', '{1,-1,0.1}', '[(0,0),(1,1)]', '((2,2),(1,1))', '[(0,0),(1,1),(2,0)]', '((0,0),(1,1),(2,0))', '<(0,0),0>'),
    ('(Infinity,NaN)', '{0,-1,1e300}', '[(-1e308,1e308),(0,0)]', '((0,0),(0,0))', '((0,0))', '((0.1,0.2))', '<(0.1,-0.1),1e308>');
CREATE TABLE inside (x xid, x8 xid8, c cid, t tid, s pg_snapshot, ts txid_snapshot, a aclitem, iv int2vector, ov oidvector, rc refcursor);
INSERT INTO inside VALUES ('4294967295', '18446744073709551615', '4294967295', '(4294967295,65535)', '10:20:10,14,15', '10:20:10,14,15',
    'nasty_reader=r*w/nasty_owner', '1 2 -3', '1 4294967295', 'cursor "x"');
CREATE TABLE ranges (i int4range, b int8range, n numrange, d daterange, t tsrange, z tstzrange, mi int4multirange, mz tstzmultirange);
INSERT INTO ranges VALUES
    ('[1,5]', '(,9223372036854775806]', '(-Infinity,NaN]', '[4714-11-24 BC,infinity)', '["2000-01-01 00:00:00",infinity]', '(,2021-03-28 01:30+02]', '{[1,2),[5,)}', '{[2000-01-01 00:00+00,2001-01-01 00:00+00)}'),
    ('empty', '(,)', '[0.10,0.1]', 'empty', '(,)', 'empty', '{}', '{(,)}');
CREATE TABLE arrays (i integer[], t text[], d date[], f float8[], j jsonb[], b bytea[], n numeric[][], x xml[], bx box[]);
INSERT INTO arrays VALUES
    ('[-2:0][5:6]={{1,NULL},{3,4},{5,6}}', ARRAY['NULL', NULL, '', '"', '\', '{', ',', E'\n', ' '], '{infinity,"0044-03-15 BC"}', '{NaN,-0,Infinity}',
     ARRAY['{"a": "\\"}'::jsonb], ARRAY['\x00'::bytea, ''], '{{NaN,1.0},{Infinity,2}}', ARRAY['<a/>'::xml], '{(1,1),(0,0);(2,2),(0,0)}'),
    ('{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}');
-- shown by name, qualified or not as the search path has it
CREATE TABLE names (c regclass, t regtype, p regproc, pr regprocedure, o regoper, op regoperator, r regrole, n regnamespace, f regconfig, d regdictionary, co regcollation);
INSERT INTO names VALUES ('extremes.names', 'types.pair', 'routines.carriage', 'routines.add(text)', '||/', 'types.<(types.celsius,types.celsius)',
    'nasty_owner', 'types', 'words.copied', 'words."my dictionary"', 'words."halves ="'),
    ('pg_class', 'text', 'now', 'now()', '||/', '+(int4,int4)', 'pg_read_all_data', 'pg_catalog', 'english', 'simple', '"C"'),
    ('-', '-', '-', '-', '0', '0', '-', '-', '-', '-', '-');
CREATE TABLE wide (id integer);
DO $$BEGIN
    FOR i IN 1..1500 LOOP EXECUTE format('ALTER TABLE extremes.wide ADD COLUMN %I boolean', 'c' || i); END LOOP;
END$$;
INSERT INTO wide (id, c1, c1500) VALUES (1, true, false), (2, NULL, true);
-- large enough to be worth a process of its own, under a name that is hard on scripts
CREATE TABLE "big = ""b"" [x]/y.%'\ :z ; --
\.
COPY" (id integer, "t :""T""
\." text, b bytea);
INSERT INTO "big = ""b"" [x]/y.%'\ :z ; --
\.
COPY" SELECT i, CASE i % 5 WHEN 0 THEN '\.' WHEN 1 THEN md5(i::text) || E'\t\\\n' || repeat('é', i % 50) WHEN 2 THEN NULL ELSE repeat(chr(i % 3000 + 1), 60) END,
    decode(lpad(to_hex(i), 8, '0') || repeat('5c', i % 90), 'hex') FROM generate_series(1, 50000) i;
