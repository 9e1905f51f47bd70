-- Functions, procedures, aggregates, a language of our own, transforms, access methods, conversions.
CREATE SCHEMA routines;
SET search_path = routines;

CREATE FUNCTION add(a integer, b integer DEFAULT 1 + 1, VARIADIC rest integer[] DEFAULT '{}') RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE LEAKPROOF COST 3 AS 'SELECT a + b + coalesce(sum(r), 0)::integer FROM unnest(rest) r';
CREATE FUNCTION add(a text) RETURNS text LANGUAGE sql RETURN a || 'ü';
CREATE FUNCTION "odd = ""f"" [x]/y.%"(INOUT "a B" anyelement, OUT "out" anyarray) LANGUAGE sql AS 'SELECT $1, ARRAY[$1]';
CREATE FUNCTION rows_of(n integer) RETURNS TABLE (i integer, "t T" text) LANGUAGE plpgsql STABLE ROWS 7 STRICT AS $body$
DECLARE
    q text := $q$it's $$ quoted$q$;  -- E'\\'
BEGIN
    RETURN QUERY SELECT g, q || g FROM pg_catalog.generate_series(1, n) g;
END $body$;
CREATE FUNCTION atomic(a integer) RETURNS SETOF integer LANGUAGE sql
    BEGIN ATOMIC
        SELECT a;
        SELECT i FROM routines.rows_of(a);
    END;
CREATE FUNCTION with_settings() RETURNS text LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = routines, pg_temp SET "work_mem" = '3MB' SET DateStyle = 'German' SET my.parameter = 'it''s' AS
    $$BEGIN RETURN current_setting('my.parameter'); END$$;
CREATE FUNCTION carriage() RETURNS text LANGUAGE sql AS E'SELECT ''a\\b''\r\n||\t''\u00e9''';
CREATE FUNCTION windowed() RETURNS bigint LANGUAGE internal WINDOW IMMUTABLE AS 'window_row_number';
CREATE FUNCTION series(integer, integer) RETURNS SETOF integer LANGUAGE internal IMMUTABLE STRICT
    SUPPORT generate_series_int4_support AS 'generate_series_int4';
CREATE FUNCTION of_type(types.mood) RETURNS types.pair LANGUAGE sql AS $$SELECT ROW(1, $1::text, ARRAY[$1], 2)::types.pair$$;
SET check_function_bodies = off;
CREATE FUNCTION of_what_is_not_there() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM nowhere.nothing';
RESET check_function_bodies;
CREATE PROCEDURE walk(INOUT n integer, step integer DEFAULT 1) LANGUAGE plpgsql AS $$BEGIN n := n + step; COMMIT; END$$;
CREATE PROCEDURE atomic_walk() LANGUAGE sql BEGIN ATOMIC SELECT routines.add(1); END;

CREATE AGGREGATE total(integer) (SFUNC = int4_sum, STYPE = bigint, INITCOND = '0', PARALLEL = SAFE, COMBINEFUNC = int8pl);
CREATE AGGREGATE average(numeric) (SFUNC = numeric_avg_accum, STYPE = internal, SSPACE = 128, FINALFUNC = numeric_avg,
    FINALFUNC_MODIFY = READ_ONLY, COMBINEFUNC = numeric_avg_combine, SERIALFUNC = numeric_avg_serialize,
    DESERIALFUNC = numeric_avg_deserialize, MSFUNC = numeric_avg_accum, MINVFUNC = numeric_accum_inv, MSTYPE = internal,
    MSSPACE = 128, MFINALFUNC = numeric_avg, PARALLEL = SAFE);
CREATE FUNCTION smaller(integer, integer) RETURNS integer LANGUAGE sql IMMUTABLE STRICT AS 'SELECT least($1, $2)';
CREATE AGGREGATE smallest(integer) (SFUNC = smaller, STYPE = integer, SORTOP = OPERATOR(pg_catalog.<));
CREATE AGGREGATE "any count"(*) (SFUNC = int8inc, STYPE = bigint, INITCOND = '0');
CREATE AGGREGATE share(float8 ORDER BY anyelement) (SFUNC = ordered_set_transition, STYPE = internal,
    FINALFUNC = percentile_disc_final, FINALFUNC_EXTRA, FINALFUNC_MODIFY = SHAREABLE);
CREATE AGGREGATE place(VARIADIC "any" ORDER BY VARIADIC "any") (SFUNC = ordered_set_transition_multi, STYPE = internal,
    FINALFUNC = rank_final, FINALFUNC_EXTRA, HYPOTHETICAL);

CREATE FUNCTION mine_call() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
CREATE FUNCTION mine_inline(internal) RETURNS void LANGUAGE c STRICT AS '$libdir/plpgsql', 'plpgsql_inline_handler';
CREATE FUNCTION mine_check(oid) RETURNS void LANGUAGE c STRICT AS '$libdir/plpgsql', 'plpgsql_validator';
CREATE TRUSTED LANGUAGE "Mine PL" HANDLER mine_call INLINE mine_inline VALIDATOR mine_check;
CREATE FUNCTION in_mine() RETURNS integer LANGUAGE "Mine PL" AS 'BEGIN RETURN 42; END';
CREATE TRANSFORM FOR integer LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal), TO SQL WITH FUNCTION int4recv(internal));
CREATE FUNCTION transformed(integer) RETURNS integer LANGUAGE sql TRANSFORM FOR TYPE integer AS 'SELECT $1';
CREATE ACCESS METHOD "Heap 2" TYPE TABLE HANDLER heap_tableam_handler;
CREATE ACCESS METHOD gist2 TYPE INDEX HANDLER gisthandler;
CREATE OPERATOR CLASS box_ops2 DEFAULT FOR TYPE box USING gist2 AS
    OPERATOR 3 &&, OPERATOR 7 @>, OPERATOR 8 <@, FUNCTION 1 gist_box_consistent(internal, box, smallint, oid, internal),
    FUNCTION 2 gist_box_union(internal, internal), FUNCTION 5 gist_box_penalty(internal, internal, internal),
    FUNCTION 6 gist_box_picksplit(internal, internal), FUNCTION 7 gist_box_same(box, box, internal);
CREATE CONVERSION "to Latin" FOR 'UTF8' TO 'LATIN1' FROM utf8_to_iso8859_1;
CREATE DEFAULT CONVERSION from_latin FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;

REVOKE ALL ON FUNCTION with_settings() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION with_settings() TO nasty_reader WITH GRANT OPTION;
SET ROLE nasty_reader;
GRANT EXECUTE ON FUNCTION routines.with_settings() TO nasty_writer;
RESET ROLE;
GRANT EXECUTE ON PROCEDURE walk(integer, integer) TO nasty_writer;
GRANT USAGE ON LANGUAGE "Mine PL" TO nasty_owner;
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_sleep(double precision) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_reload_conf() TO nasty_writer;
ALTER FUNCTION add(integer, integer, integer[]) OWNER TO nasty_owner;
ALTER PROCEDURE walk(integer, integer) OWNER TO nasty_owner;
COMMENT ON FUNCTION add(text) IS 'a function';
COMMENT ON PROCEDURE walk(integer, integer) IS 'a procedure';
COMMENT ON AGGREGATE place(VARIADIC "any" ORDER BY VARIADIC "any") IS 'a hypothetical-set aggregate';
COMMENT ON AGGREGATE "any count"(*) IS 'an aggregate';
COMMENT ON LANGUAGE "Mine PL" IS 'a language';
COMMENT ON TRANSFORM FOR integer LANGUAGE sql IS 'a transform';
COMMENT ON ACCESS METHOD gist2 IS 'an access method';
COMMENT ON CONVERSION "to Latin" IS 'a conversion';
