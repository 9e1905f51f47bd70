"""What the reference page of the commands says beside the commands: exit codes, errors, JSON."""

# ruff: noqa: E501  a row of a table in Markdown is one line

from __future__ import annotations

HEAD = """\
# Commands

This page is generated from the command line. `holdfast --help` and `holdfast COMMAND --help` say the same.
"""
ENDS = """\
## Exit codes

| code | means |
|---|---|
| 0 | done |
| 1 | failed; `doctor`: something is broken |
| 2 | usage or configuration: unknown source, backup, command or option, a target that is not empty, a missing passphrase variable |
| 3 | partly done: some sources failed while others did not, a backup is damaged at its source, a copy was not brought along |
| 10 | there is no repository |
| 11 | another run holds the lease |
| 12 | the key is missing or wrong |
| 13 | integrity is broken; `check`: something was found |
| 130 | interrupted |
| 141 | whoever read the output went away (`holdfast cat ... \\| head`) |

`backup` of several sources ends with 3 where some failed, and with the code of the first error where all did.

## Errors

An error is two lines on standard error, `error: ...` and `hint: ...`: what is wrong, and what to do. With `--json` it
is one line with one object:

```json
{"error": {"kind": "key_invalid", "message": "...", "hint": "...", "exit_code": 12}}
```

`kind` is one of `usage`, `config_invalid`, `not_found`, `repository_absent`, `already_exists`, `denied`, `key_invalid`,
`unavailable`, `outcome_unknown`, `out_of_space`, `conflict`, `lease_held`, `integrity_broken`, `source_failed`,
`interrupted`, `partly_done` and `failed`.

SIGINT (Ctrl-C) or SIGTERM asks a command to stop: it leaves nothing half done and ends with 130. A second one ends it at
once; what was stored so far is found again by the next run.

## Ids

Ids of backups, runs and key slots may be shortened to what is unambiguous. For backups and runs `latest` is the newest;
where several sources have backups, name the source with it.

## JSON

Times are ISO 8601 in UTC, sizes are bytes. Keys are added, never renamed; read past those you do not know.

`backup`, `restore`, `check` and `demo` print JSON Lines; everything else prints one document. Every line has an `event`:

| event | printed by | keys |
|---|---|---|
| `progress` | all of them, about once a second | `verb`, `source`, `done_bytes`, `expected_bytes`, `stored_bytes`, `percent`, `bytes_per_second`, `seconds_left` (null while unknown) |
| `notice` | all of them | `message`: a retry, or something worth knowing |
| `backup` | `backup`, last, one for each source | the keys of `backups`, and `notices`, `damage` [`path`, `count`, `detail`], `duration_seconds`, `error` (null, or an error; then `id` is null) |
| `plan` | `restore`, first, one for each source | `source`, `backup` (as in `backups`), `repository`, `target`, `delta`, `tablespaces` [`from`, `to`] |
| `restore` | `restore`, last, one for each source | `source`, `id`, `target`, `tablespaces`, `files`, `size_bytes`, `written_bytes`, `kept_bytes`, `removed`, `duration_seconds`, `start`, `notes`, `error` |
| `check` | `check`, last | `sound`, `read_percent`, `touched` (full ids of the backups that damage touches), `areas` [`title`, `backups`, `packs`, `stored_bytes`, `read_bytes`, `index_rebuilt`, `findings` [`subject`, `message`, `backups`]] |
| `step`, `line`, `table` | `demo` | what it tells |
| `demo` | `demo`, last | `measured`, `proofs`, `transactions`, `retries`, `duration_seconds`, `folder` |

| command | prints |
|---|---|
| `backups` | a list, newest last: `id`, `source`, `kind`, `tier`, `form`, `started_at`, `ended_at`, `size_bytes`, `stored_bytes`, `verified`, `held`, `expires_at` (null: never), `position`, `damaged`, `parent` |
| `ls` | `backup`, `entries` [`path`, `type`, `mode`, `size_bytes`, `modified_at` (seconds since 1970), `link`] |
| `runs` | a list, oldest first: `id`, `source`, `verb`, `tier`, `form`, `started_at`, `ended_at`, `outcome` (done, partly, failed, interrupted), `exit_code`, `figures`, `messages`, `error`; with an id that run alone |
| `doctor` | `broken` (a count), `subjects` [`subject`, `findings` [`topic`, `severity` (ok, notice, warning, broken), `message`, `hint`]] |
| `init` | `config`, `config_written`, `repositories` [`name`, `url`, `id`, `made`], `key_file`, `notices`, `kit` |
| `key list` | a list: `id`, `kind`, `scope`, `created_at`, `opens`, `label`, `epochs` |
| `key add`, `remove`, `rotate`, `export` | `slots`, `epoch`, `left_behind`, `failures` [`repository`, `error`], `kit` |
| `config check` | `path`, `application`, `repositories`, `sources`, `warnings` |
| `config schema` | a JSON Schema |
"""
