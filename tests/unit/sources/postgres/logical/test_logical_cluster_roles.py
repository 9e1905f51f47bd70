"""Which roles a restore makes, and that it never touches one that is there."""

from __future__ import annotations

from holdfast.sources.postgres.logical.cluster_roles import RoleRules, plan_roles

GLOBALS = """
SET standard_conforming_strings = on;
CREATE ROLE app;
ALTER ROLE app WITH NOSUPERUSER INHERIT LOGIN NOREPLICATION PASSWORD 'SCRAM-SHA-256$4096:x' VALID UNTIL '2099-01-01';
CREATE ROLE "gr oup";
ALTER ROLE "gr oup" WITH NOSUPERUSER NOLOGIN REPLICATION BYPASSRLS;
CREATE ROLE postgres;
ALTER ROLE postgres WITH SUPERUSER LOGIN PASSWORD 'SCRAM-SHA-256$4096:y';
CREATE ROLE other;
ALTER ROLE other WITH LOGIN;
COMMENT ON ROLE app IS 'the; application';
ALTER ROLE app SET work_mem TO '1MB';
ALTER ROLE postgres SET work_mem TO '9MB';
GRANT "gr oup" TO app WITH ADMIN OPTION GRANTED BY postgres;
GRANT app TO other GRANTED BY postgres;
GRANT pg_read_all_data TO app GRANTED BY postgres;
"""
THERE = ("postgres", "other", "pg_read_all_data")


def test_a_missing_role_is_made_with_its_groups_and_without_its_password() -> None:
    plan = plan_roles(GLOBALS, ["app", "postgres"], THERE, RoleRules())
    assert plan.names == ("app", "gr oup")
    assert plan.statements == (
        "CREATE ROLE app;",
        "ALTER ROLE app WITH NOSUPERUSER INHERIT LOGIN NOREPLICATION VALID UNTIL '2099-01-01';",
        'CREATE ROLE "gr oup";',
        'ALTER ROLE "gr oup" WITH NOSUPERUSER NOLOGIN REPLICATION BYPASSRLS;',
        "COMMENT ON ROLE app IS 'the; application';",
        "ALTER ROLE app SET work_mem TO '1MB';",
        'GRANT "gr oup" TO app WITH ADMIN OPTION;',
        "GRANT pg_read_all_data TO app;",
    )


def test_a_password_comes_along_only_when_asked_for() -> None:
    plan = plan_roles(GLOBALS, ["app"], THERE, RoleRules(with_passwords=True))
    assert any("PASSWORD 'SCRAM-SHA-256$4096:x'" in statement for statement in plan.statements)


def test_a_role_that_is_there_gets_no_membership_it_had_not() -> None:
    plan = plan_roles(GLOBALS, ["app"], THERE, RoleRules())
    assert not any("TO other" in statement for statement in plan.statements)
    assert plan.notes == ("existing roles are not touched; not done: GRANT app TO other;",)


def test_nothing_is_done_where_every_role_is_there() -> None:
    assert plan_roles(GLOBALS, ["app", "gr oup"], ("app", "gr oup"), RoleRules()).statements == ()


def test_who_is_no_superuser_makes_roles_without_what_only_superusers_give_and_says_so() -> None:
    plan = plan_roles(GLOBALS, ["gr oup"], THERE, RoleRules(is_superuser=False))
    assert 'ALTER ROLE "gr oup" WITH NOLOGIN;' in plan.statements
    assert 'GRANT "gr oup" TO CURRENT_USER' in plan.statements
    assert "role gr oup is made without REPLICATION, BYPASSRLS: only a superuser may give that" in plan.notes
