-- Roles with odd names, memberships, settings. They are the cluster's: made once for each server.
SELECT NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'nasty_owner') AS is_first \gset
\if :is_first
CREATE ROLE nasty_owner NOLOGIN CREATEDB;
CREATE ROLE nasty_reader LOGIN PASSWORD 'reader''s "secret"' CONNECTION LIMIT 7;
CREATE ROLE nasty_writer LOGIN NOINHERIT VALID UNTIL '2099-12-31 23:59:59+00';
CREATE ROLE "Rôle = [""x""]/y.z%'\ " NOLOGIN BYPASSRLS;
CREATE ROLE "select" NOLOGIN REPLICATION;
GRANT nasty_reader TO nasty_writer WITH ADMIN OPTION;
GRANT "Rôle = [""x""]/y.z%'\ " TO nasty_owner;
GRANT pg_read_all_data TO nasty_reader;
ALTER ROLE nasty_reader SET search_path = '$user', "odd schema, with comma", public;
ALTER ROLE nasty_writer SET work_mem = '1234kB';
GRANT SET, ALTER SYSTEM ON PARAMETER work_mem TO nasty_writer WITH GRANT OPTION;
COMMENT ON ROLE nasty_owner IS E'owner''s\nrole "of" \\ much';
\endif
ALTER DATABASE :"DBNAME" OWNER TO nasty_owner;
