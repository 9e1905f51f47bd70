-- Partitioned tables: range, list, hash, default, below each other, with indexes, keys and triggers of parents and leaves.
CREATE SCHEMA partitions;
SET search_path = partitions;

CREATE TABLE events (id bigint GENERATED ALWAYS AS IDENTITY, at date NOT NULL, kind text DEFAULT 'root', note text)
    PARTITION BY RANGE (at);
CREATE TABLE events_2020 PARTITION OF events (kind DEFAULT 'leaf', CONSTRAINT leaf_only CHECK (note <> 'never'))
    FOR VALUES FROM ('2020-01-01') TO ('2021-01-01') WITH (fillfactor = 80);
CREATE TABLE events_2021 PARTITION OF events FOR VALUES FROM ('2021-01-01') TO ('2022-01-01') PARTITION BY LIST (kind);
CREATE TABLE "events 2021 = a/b" PARTITION OF events_2021 FOR VALUES IN ('a', 'b', NULL);
CREATE TABLE events_2021_rest PARTITION OF events_2021 DEFAULT PARTITION BY HASH (id);
CREATE TABLE events_2021_rest_0 PARTITION OF events_2021_rest FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE UNLOGGED TABLE events_2021_rest_1 PARTITION OF events_2021_rest FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE events_old PARTITION OF events FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
CREATE TABLE late (gone integer, note text, kind text, at date NOT NULL, id bigint NOT NULL, more text);
ALTER TABLE late DROP COLUMN gone, DROP COLUMN more;
ALTER TABLE events ATTACH PARTITION late FOR VALUES FROM ('2022-01-01') TO (MAXVALUE);
INSERT INTO events (at, kind, note)
    SELECT '2019-06-01'::date + i * 5, (ARRAY['a', 'b', NULL, 'c', 'd'])[i % 5 + 1], CASE WHEN i % 4 = 0 THEN E'n\n' || i END
    FROM generate_series(1, 300) i;
CREATE UNIQUE INDEX events_id ON events (id, at, kind);
CREATE INDEX events_note ON ONLY events (note);
CREATE INDEX late_note ON late (note);
ALTER INDEX events_note ATTACH PARTITION late_note;
CREATE INDEX events_expression ON events ((upper(note))) WHERE note IS NOT NULL;
CREATE INDEX leaf_extra ON events_2020 (kind);
ALTER TABLE events_2020 ADD PRIMARY KEY (id);
ALTER TABLE events_2020 CLUSTER ON leaf_extra;

CREATE TABLE keyed (a integer, b text, c integer GENERATED ALWAYS AS (a * 10) STORED, PRIMARY KEY (a, b)) PARTITION BY LIST (b);
CREATE TABLE keyed_x PARTITION OF keyed FOR VALUES IN ('x');
CREATE TABLE keyed_other PARTITION OF keyed DEFAULT;
CREATE TABLE keyed_by (id integer PRIMARY KEY, a integer, b text, FOREIGN KEY (a, b) REFERENCES keyed ON DELETE CASCADE)
    PARTITION BY HASH (id);
CREATE TABLE keyed_by_0 PARTITION OF keyed_by FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE keyed_by_1 PARTITION OF keyed_by FOR VALUES WITH (MODULUS 3, REMAINDER 1);
CREATE TABLE keyed_by_2 PARTITION OF keyed_by FOR VALUES WITH (MODULUS 3, REMAINDER 2);
INSERT INTO keyed SELECT i, CASE WHEN i % 2 = 0 THEN 'x' ELSE 'y' || i END FROM generate_series(1, 40) i;
INSERT INTO keyed_by SELECT a, a, b FROM keyed;

CREATE TABLE by_expression (a integer, t text) PARTITION BY RANGE ((a % 10), lower(t) COLLATE "C");
CREATE TABLE by_expression_low PARTITION OF by_expression FOR VALUES FROM (MINVALUE, MINVALUE) TO (5, 'm');
CREATE TABLE by_expression_high PARTITION OF by_expression FOR VALUES FROM (5, 'm') TO (MAXVALUE, MAXVALUE);
INSERT INTO by_expression SELECT i, chr(65 + i) FROM generate_series(1, 25) i;
CREATE TABLE no_partitions (a integer) PARTITION BY LIST (a);

CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.note := NEW.note || ' noted'; RETURN NEW; END$$;
CREATE TRIGGER on_all BEFORE UPDATE ON events FOR EACH ROW EXECUTE FUNCTION noted();
ALTER TABLE events_2020 DISABLE TRIGGER on_all;
ALTER TABLE late ENABLE ALWAYS TRIGGER on_all;
CREATE TRIGGER on_leaf AFTER INSERT ON "events 2021 = a/b" FOR EACH STATEMENT EXECUTE FUNCTION noted();
CREATE STATISTICS events_statistics ON at, kind FROM events;
ALTER TABLE events_2021 OWNER TO nasty_owner;
GRANT SELECT ON events_2020 TO nasty_reader;
COMMENT ON TABLE events IS 'a partitioned table';
COMMENT ON INDEX events_note IS 'a partitioned index that misses most of its parts';
