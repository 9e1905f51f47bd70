-- What touches every later session: event triggers; and the database's own comment, limit and settings.
CREATE SCHEMA last;
SET search_path = last;
CREATE TABLE ddl_log (tag text);
CREATE FUNCTION log_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO last.ddl_log VALUES (tg_tag); END$$;
CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'refused: %', tg_tag; END$$;
CREATE EVENT TRIGGER "log = ddl" ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE') EXECUTE FUNCTION log_ddl();
CREATE EVENT TRIGGER no_drop ON sql_drop WHEN TAG IN ('DROP TABLE', 'DROP SCHEMA') EXECUTE FUNCTION refuse();
CREATE EVENT TRIGGER no_rewrite ON table_rewrite EXECUTE FUNCTION refuse();
CREATE EVENT TRIGGER replica_only ON ddl_command_start EXECUTE FUNCTION refuse();
CREATE EVENT TRIGGER switched_off ON ddl_command_start EXECUTE FUNCTION refuse();
ALTER EVENT TRIGGER no_drop ENABLE ALWAYS;
ALTER EVENT TRIGGER replica_only ENABLE REPLICA;
ALTER EVENT TRIGGER switched_off DISABLE;
ALTER EVENT TRIGGER no_rewrite OWNER TO CURRENT_USER;
COMMENT ON EVENT TRIGGER no_drop IS 'an event trigger';

COMMENT ON DATABASE :"DBNAME" IS E'a database''s\n"comment"';
ALTER DATABASE :"DBNAME" CONNECTION LIMIT 33;
ALTER DATABASE :"DBNAME" SET default_toast_compression = 'lz4';
ALTER DATABASE :"DBNAME" SET my.parameter = E'it''s \\ "odd"\nindeed';
ALTER ROLE nasty_reader IN DATABASE :"DBNAME" SET work_mem = '2MB';
ALTER ROLE "Rôle = [""x""]/y.z%'\ " IN DATABASE :"DBNAME" SET search_path = types, "a.b";
