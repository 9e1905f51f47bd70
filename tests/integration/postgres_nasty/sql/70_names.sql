-- Every odd character in the names of schemas, tables, columns, constraints, indexes and sequences.
CREATE PROCEDURE pg_temp.make(place text, word text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I', place);
    EXECUTE format('CREATE TABLE %I.%I (%I integer PRIMARY KEY, %I text DEFAULT %L, g text GENERATED ALWAYS AS (%I || ''!'') STORED, s serial)',
        place, word, word, '2' || word, word, '2' || word);
    EXECUTE format('ALTER TABLE %I.%I ADD CONSTRAINT %I CHECK (%I > 0)', place, word, 'check ' || word, word);
    EXECUTE format('INSERT INTO %I.%I VALUES (1, %L), (2, DEFAULT)', place, word, place || word);
    EXECUTE format('COMMENT ON TABLE %I.%I IS %L', place, word, word);
    EXECUTE format('CREATE INDEX %I ON %I.%I (%I)', 'i ' || word, place, word, '2' || word);
END $$;
DO $do$
DECLARE
    word text;
BEGIN
    FOR i IN 1..127 LOOP
        CONTINUE WHEN chr(i) ~ '[a-zA-Z0-9]' OR (i < 32 AND i NOT IN (1, 8, 9, 10, 13, 27));
        CALL pg_temp.make('names', chr(i));
    END LOOP;
    FOREACH word IN ARRAY ARRAY['..', 'a/b', '../../etc/passwd', '%2F', '%%', '.hidden', '@witness.json', 'a.b', 'x.sql',
        'Case', 'case', 'CASE', 'select', 'table', 'user', 'é', E'e\u0301', '漢字', '😀', E'new\nline', E'cr\r\nlf', E'a\n\\.\nb', '\.', '\N', ':x', ':"x"', '$1', '$$', '--', '/*',
        '*/', E'; DROP TABLE x; --', '''quoted''', '"quoted"', ' leading', 'trailing ', '  ', '[a]', '{a,b}', 'a=b', 'a b=c d', '~/x', '$HOME', '`id`', '**',
        'con', 'a:b', '#x', '!x', '-x', '--help', '|x', '<x>', E'\u00a0', E'\u200b', E'\ufeff', repeat('é', 31) || 'x', repeat('/', 61)] LOOP
        CALL pg_temp.make('names', word);
    END LOOP;
    FOREACH word IN ARRAY ARRAY['..', '.', 'a/b', 'a.b', '%', '@witness.json', 'Select', E'new\nline', '"', '''', '\', 'schéma = [x]', ' ', 'NAMES', repeat('%', 63)] LOOP
        CALL pg_temp.make(word, 't');
        CALL pg_temp.make(word, '/');
    END LOOP;
    CALL pg_temp.make('a', 'b.c');
    CALL pg_temp.make('a.b', 'c');
    EXECUTE 'CREATE TABLE names."every character" (' || (SELECT string_agg(format('%I integer', 'c' || chr(i)), ', ') FROM generate_series(1, 127) i WHERE i NOT BETWEEN 65 AND 90) || ')';
    INSERT INTO names."every character" DEFAULT VALUES;
END $do$;
CREATE TYPE names."ty ""pe"" = [x]/y.%\" AS ENUM ('a');
CREATE TABLE names.of_odd_type (a names."ty ""pe"" = [x]/y.%\" DEFAULT 'a', b names."ty ""pe"" = [x]/y.%\"[] DEFAULT '{a}');
INSERT INTO names.of_odd_type DEFAULT VALUES;
