"""The checks of the pages have teeth: what is wrong on a page is seen."""

from __future__ import annotations

import pytest
import typer
from tests.docs.pages import anchors, blocks, code_texts, links
from tests.docs.test_docs_pages import commands_in, problem_of
from tests.docs.test_docs_run import first_missing

from holdfast.interfaces.cli.main import new_app

PAGE = """
# A title, `code` and more

See [this](other.md#part) and [the web](https://example.org).

1. In a list:

   ```sh exit=13
   holdfast check
   ```

   ```text
   damaged ... packs
   ```

```text
shown by nobody
```

```sh no-run it needs a bucket
holdfast backup `name`
```
"""


def test_blocks_keep_what_they_show_and_what_they_end_with() -> None:
    first, second, third = blocks(PAGE)
    assert (first.text, first.exit_code, first.shows, first.runs) == ("holdfast check", 13, "damaged ... packs", True)
    assert (second.language, second.runs) == ("text", False)
    assert (third.runs, third.exit_code) == (False, 0)


def test_links_and_headings_are_found() -> None:
    assert links(PAGE) == ["other.md#part"]
    assert anchors(PAGE) == {"a-title-code-and-more"}
    assert "code" in code_texts(PAGE)


@pytest.mark.parametrize(
    ("shows", "missing"),
    [
        ("id ... state", None),
        ("one two", None),
        ("one  ...\nthree", None),
        ("three\none two", "one two"),
        ("two", "two"),
        ("four ...", "four ..."),
    ],
)
def test_what_a_page_shows_is_looked_for_in_order(shows: str, missing: str | None) -> None:
    assert first_missing(shows, "id  source  state\none   two\nthree\n") == missing


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("holdfast check --read-data 10 | tee log", None),
        ("30 2 * * 0 root /usr/local/bin/holdfast backup --tier full --quiet", None),
        ("holdfast key list --quiet", None),
        ("holdfast copy --to offsite", "there is no command copy"),
        ("holdfast key lose", "there is no command lose"),
        ("holdfast restore --then now", "there is no option --then"),
        ("X=1 holdfast backups --all", "there is no option --all"),
    ],
)
def test_a_command_or_option_that_does_not_exist_is_seen(line: str, problem: str | None) -> None:
    (words,) = commands_in(line)
    assert problem_of(typer.main.get_command(new_app()), words) == problem
