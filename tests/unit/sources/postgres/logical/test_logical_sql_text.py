"""Reading what PostgreSQL's programs write: statements, names of roles, a database under another name."""

from __future__ import annotations

from holdfast.sources.postgres.logical.sql_text import (
    database_script,
    named_things,
    statements,
    without_tablespace,
)

SCRIPT = r"""
\restrict abc
SET standard_conforming_strings = off;
-- Name: shop; Type: DATABASE; Owner: al ice
CREATE DATABASE shop WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE = 'C' TABLESPACE = fast;
ALTER DATABASE shop OWNER TO "al ice";
\connect -reuse-previous=on "dbname='shop'"
COMMENT ON DATABASE shop IS 'it''s; \\ ALTER DATABASE shop OWNER TO bob;
two lines';
ALTER DATABASE shop CONNECTION LIMIT = 33;
ALTER DATABASE shop SET my.parameter TO 'x;y';
ALTER DATABASE shop SET work_mem TO '2MB';
ALTER ROLE shop IN DATABASE shop SET work_mem TO '3MB';
REVOKE CONNECT,TEMPORARY ON DATABASE shop FROM PUBLIC;
GRANT CREATE ON DATABASE shop TO shop;
ALTER DATABASE shop2 SET work_mem TO '9MB';
"""


def test_statements_end_at_semicolons_outside_literals_bodies_and_comments() -> None:
    script = "SELECT ';'; -- a; comment\nCREATE FUNCTION f() AS $x$ a; b $x$;\n\\connect x;\nSELECT \"a;b\";"
    assert statements(script) == [
        "SELECT ';';",
        "CREATE FUNCTION f() AS $x$ a; b $x$;",
        'SELECT "a;b";',
    ]


def test_a_database_gets_another_name_in_every_statement_about_it_and_in_no_text() -> None:
    script = database_script(SCRIPT, "shop", 'new "one"')
    assert script.create.startswith('CREATE DATABASE "new ""one""" WITH TEMPLATE = template0')
    assert script.early == (
        'ALTER DATABASE "new ""one""" OWNER TO "al ice";',
        'ALTER DATABASE "new ""one""" SET my.parameter TO \'x;y\';',
    )
    assert script.late == (
        'ALTER DATABASE "new ""one""" CONNECTION LIMIT = 33;',
        'ALTER DATABASE "new ""one""" SET work_mem TO \'2MB\';',
        'ALTER ROLE shop IN DATABASE "new ""one""" SET work_mem TO \'3MB\';',
        'REVOKE CONNECT,TEMPORARY ON DATABASE "new ""one""" FROM PUBLIC;',
        'GRANT CREATE ON DATABASE "new ""one""" TO shop;',
    )


def test_a_comment_keeps_its_text_and_the_script_its_kind_of_strings() -> None:
    script = database_script(SCRIPT, "shop", "other")
    assert script.comment == "'it''s; \\\\ ALTER DATABASE shop OWNER TO bob;\ntwo lines'"
    assert script.strings == "off"


def test_a_database_without_a_comment_gets_none() -> None:
    assert database_script("CREATE DATABASE a WITH TEMPLATE = template0;", "a", "b").comment == "NULL"


def test_a_tablespace_the_target_lacks_is_left_out_of_the_creation() -> None:
    create = "CREATE DATABASE x WITH TEMPLATE = template0 TABLESPACE = \"f ast\" ENCODING = 'UTF8';"
    assert without_tablespace(create, {"f ast"}) == create
    assert without_tablespace(create, {"pg_default"}) == (
        "CREATE DATABASE x WITH TEMPLATE = template0 ENCODING = 'UTF8';"
    )


def test_roles_are_found_where_sql_names_them_and_not_in_text() -> None:
    sql = """
    ALTER TABLE public.orders OWNER TO "o wner";
    GRANT SELECT ON TABLE public.orders TO reader;
    CREATE POLICY p ON t TO one, "t,wo" USING (x = 'TO three');
    ALTER DEFAULT PRIVILEGES FOR ROLE giver GRANT SELECT ON TABLES TO taker;
    CREATE USER MAPPING FOR mapped SERVER s;
    -- TO four
    CREATE FUNCTION f() AS $$ GRANT a TO five $$;
    """
    found = named_things(sql)
    assert {"o wner", "reader", "one", "t,wo", "giver", "taker", "mapped"} <= found.roles
    assert not {"three", "four", "five", "orders"} & found.roles
    assert found.owners == {"o wner"}


def test_tablespaces_and_the_systems_collations_are_found() -> None:
    sql = """
    SET default_tablespace = '';
    SET default_tablespace = "f ast";
    CREATE INDEX i ON t USING btree (a COLLATE pg_catalog."de_DE");
    CREATE TABLE t (a text COLLATE mine."x");
    """
    found = named_things(sql)
    assert found.tablespaces == {"f ast"}
    assert found.collations == {"de_DE"}
