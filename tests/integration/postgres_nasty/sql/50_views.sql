-- Views, rules, materialised views, triggers of every sort.
CREATE SCHEMA views;
SET search_path = views;

CREATE VIEW plain AS SELECT id, name AS "n = N", total FROM tables.left_side WHERE name IS NOT NULL ORDER BY id DESC;
CREATE VIEW barrier WITH (security_barrier = true) AS SELECT * FROM tables.parent WHERE id > 0;
CREATE VIEW invoker WITH (security_invoker = true, check_option = local) AS SELECT id, name FROM tables.parent WHERE id > 1;
CREATE VIEW cascaded AS SELECT * FROM invoker WHERE name <> 'y' WITH CASCADED CHECK OPTION;
CREATE RECURSIVE VIEW counted (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM counted WHERE n < 5;
CREATE VIEW by_key AS SELECT id, name, count(*) FROM tables.parent GROUP BY id;  -- depends on the primary key
CREATE VIEW no_columns_view AS SELECT FROM tables.no_columns;
CREATE VIEW with_default AS SELECT id, name FROM tables.parent;
ALTER VIEW with_default ALTER COLUMN name SET DEFAULT 'by the view';
CREATE VIEW many AS
    SELECT l.id, r.back, row_number() OVER w AS place, (r.a, r.b)::text AS pair, ARRAY(SELECT n FROM counted) AS ns,
        CASE WHEN l.id IS DISTINCT FROM 7 THEN 'it''s' ELSE E'\\ \n' END AS word, x.*
    FROM tables.left_side l FULL JOIN tables.right_side r ON l.other = r.id
        CROSS JOIN LATERAL (SELECT l.id AS lateral_id, '1 day'::interval AS span) x
    WINDOW w AS (PARTITION BY r.b ORDER BY l.id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW EXCLUDE TIES);
CREATE VIEW sampled AS SELECT t.id FROM tables.indexed t TABLESAMPLE bernoulli (100) REPEATABLE (1)
    UNION SELECT n FROM counted EXCEPT ALL SELECT 3 ORDER BY 1 FETCH FIRST 10 ROWS WITH TIES;
-- a circle: the function returns the view's row, the view calls the function
CREATE VIEW ring AS SELECT 1 AS a, 2 AS b;
CREATE FUNCTION of_ring() RETURNS SETOF ring LANGUAGE sql AS 'SELECT 1, 2';
CREATE OR REPLACE VIEW ring AS SELECT a, b FROM (SELECT f.a, f.b FROM of_ring() f LIMIT 1) s;

CREATE MATERIALIZED VIEW material AS SELECT f, count(*) AS n, sum(id) AS s FROM tables.indexed GROUP BY f WITH DATA;
CREATE UNIQUE INDEX material_f ON material (f);
CREATE MATERIALIZED VIEW "material of = material" WITH (fillfactor = 80) AS SELECT max(n) AS most FROM material;
CREATE MATERIALIZED VIEW a_third_by_name_first AS SELECT most * 2 AS twice FROM "material of = material";
CREATE MATERIALIZED VIEW empty_material AS SELECT * FROM tables.parent WITH NO DATA;
CREATE MATERIALIZED VIEW of_empty AS SELECT count(*) FROM empty_material WITH NO DATA;
CREATE INDEX empty_material_id ON empty_material (id);
CREATE MATERIALIZED VIEW of_view AS SELECT n FROM counted;
ALTER MATERIALIZED VIEW material ALTER COLUMN n SET STATISTICS 99;
ALTER MATERIALIZED VIEW material CLUSTER ON material_f;
CREATE VIEW over_material AS SELECT * FROM material;

CREATE TABLE ruled (id integer, t text);
CREATE TABLE rule_log (id integer, what text);
INSERT INTO ruled VALUES (1, 'one'), (2, 'two');
CREATE RULE "log = it" AS ON INSERT TO ruled WHERE NEW.id > 5 DO ALSO INSERT INTO rule_log VALUES (NEW.id, 'it''s in');
CREATE RULE no_delete AS ON DELETE TO ruled DO INSTEAD NOTHING;
CREATE RULE several AS ON UPDATE TO ruled DO ALSO (INSERT INTO rule_log VALUES (OLD.id, 'old'); NOTIFY changed);
ALTER TABLE ruled DISABLE RULE several;
ALTER TABLE ruled ENABLE ALWAYS RULE "log = it";
ALTER TABLE ruled ENABLE REPLICA RULE no_delete;
CREATE RULE plain_insert AS ON INSERT TO plain DO INSTEAD
    INSERT INTO tables.left_side (name) VALUES (NEW."n = N") RETURNING id, name, total;

CREATE TABLE triggered (id integer PRIMARY KEY, t text, n integer);
CREATE TABLE trigger_log (what text);
INSERT INTO triggered VALUES (1, 'before', 0), (2, 'the triggers', 0);
CREATE FUNCTION log_it() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO views.trigger_log VALUES (TG_NAME || ' ' || TG_OP || ' ' || array_to_string(TG_ARGV, ','));
    RETURN NEW;
END $$;
CREATE FUNCTION upset() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'a restore must not fire me'; END$$;
CREATE TRIGGER "row = before" BEFORE INSERT OR UPDATE OF t, n ON triggered FOR EACH ROW
    WHEN (NEW.n IS DISTINCT FROM 5) EXECUTE FUNCTION log_it('it''s', 'b "q" \', '');
CREATE TRIGGER statement AFTER UPDATE ON triggered REFERENCING OLD TABLE AS "old = t" NEW TABLE AS new_t
    FOR EACH STATEMENT EXECUTE FUNCTION log_it();
CREATE TRIGGER truncated BEFORE TRUNCATE ON triggered EXECUTE FUNCTION log_it();
CREATE CONSTRAINT TRIGGER constrained AFTER INSERT ON triggered FROM tables.parent DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION log_it();
CREATE TRIGGER always_upset BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION upset();
CREATE TRIGGER replica_upset BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION upset();
CREATE TRIGGER disabled_upset BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION upset();
ALTER TABLE triggered ENABLE ALWAYS TRIGGER always_upset;
ALTER TABLE triggered ENABLE REPLICA TRIGGER replica_upset;
ALTER TABLE triggered DISABLE TRIGGER disabled_upset;
CREATE TRIGGER instead INSTEAD OF INSERT OR DELETE ON with_default FOR EACH ROW EXECUTE FUNCTION log_it();
CREATE TRIGGER told AFTER INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION words.triggered_change_notification('channel');

GRANT SELECT (id), UPDATE ("n = N"), REFERENCES (id) ON plain TO nasty_reader WITH GRANT OPTION;
ALTER VIEW barrier OWNER TO nasty_owner;
ALTER MATERIALIZED VIEW material OWNER TO nasty_owner;
GRANT SELECT ON tables.indexed TO nasty_owner;
COMMENT ON VIEW plain IS 'a view';
COMMENT ON COLUMN plain."n = N" IS 'a column of a view';
COMMENT ON MATERIALIZED VIEW material IS 'a materialised view';
COMMENT ON RULE "log = it" ON ruled IS 'a rule';
COMMENT ON TRIGGER "row = before" ON triggered IS 'a trigger';
