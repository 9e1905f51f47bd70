#!/usr/bin/env bash
# Sets up all that holdfast needs on Debian or Ubuntu: system packages, .venv, locked packages, the project itself.
#
#   scripts/setup.sh          for running it (make setup, make demo)
#   scripts/setup.sh test     for its tests too (make test)
#   scripts/setup.sh bench    for its benchmarks too (make bench)
#
# May be repeated; what is there is left alone. Never starts, stops or changes a PostgreSQL cluster of the machine.
set -euo pipefail
cd "$(dirname "$0")/.."

PURPOSE=${1:-run}
PYTHON_OLDEST=3.11
POSTGRES_OLDEST=15
POSTGRES_NEWEST=18
LOG=.cache/setup.log
NO_CLUSTER=/etc/postgresql-common/createcluster.d/holdfast-setup.conf

say() { printf 'set-up: %s\n' "$*"; }

die() {
    printf 'set-up: %s\n' "$1" >&2
    shift
    for line in "$@"; do printf '  hint: %s\n' "$line" >&2; done
    exit 1
}

# Runs a command without its chatter, and shows the end of it when it fails.
quietly() {
    printf '\n$ %s\n' "$*" >>"$LOG"
    "$@" >>"$LOG" 2>&1 </dev/null || {
        tail -n 30 "$LOG" >&2
        die "failed: $*" "The whole output is in $LOG."
    }
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        quietly env DEBIAN_FRONTEND=noninteractive "$@"
    else
        quietly sudo -n env DEBIAN_FRONTEND=noninteractive "$@"
    fi
}

# --- what is here -----------------------------------------------------------------------------------------------

find_python() {
    local name
    for name in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
        if "$name" -c "import ensurepip, sys, venv; sys.exit(sys.version_info < (${PYTHON_OLDEST/./, }))" 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    return 1
}

has_postgres() {
    local major
    for ((major = POSTGRES_NEWEST; major >= POSTGRES_OLDEST; major--)); do
        local programs=/usr/lib/postgresql/$major/bin
        if [ -x $programs/postgres ] && [ -x $programs/pgbench ] && [ -x $programs/pg_amcheck ] &&
            [ -e /usr/share/postgresql/$major/extension/amcheck.control ]; then
            return 0
        fi
    done
    return 1
}

missing_packages() {
    find_python >/dev/null || echo python3 python3-venv
    has_postgres || echo postgresql postgresql-client postgresql-contrib
    if [ "$PURPOSE" = bench ]; then
        command -v pgbackrest >/dev/null || echo pgbackrest
        command -v restic >/dev/null || echo restic
    fi
}

# --- system packages --------------------------------------------------------------------------------------------

install_packages() {
    local packages
    packages=$(missing_packages | tr '\n' ' ')
    [ -n "$packages" ] || return 0
    command -v apt-get >/dev/null || die "missing here: $packages" \
        "This script knows Debian and Ubuntu. Install Python $PYTHON_OLDEST or newer with its venv module, and PostgreSQL" \
        "$POSTGRES_OLDEST to $POSTGRES_NEWEST (server, client, contrib), then run it again."
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || die "missing here: $packages" "As root: apt-get install $packages"
        sudo -v || die "sudo was refused" "As root: apt-get install $packages"
    fi
    say "installing system packages: $packages"
    as_root apt-get update -q
    require_new_enough_postgres "$packages"
    prevent_cluster
    # shellcheck disable=SC2086 # several words
    as_root apt-get install -q -y --no-install-recommends -o Dpkg::Use-Pty=0 $packages
    allow_cluster
    find_python >/dev/null || install_newer_python
}

candidate_of() { apt-cache policy "$1" 2>/dev/null | awk '/Candidate:/ && $2 != "(none)" { print $2 }'; }

require_new_enough_postgres() {
    case $1 in *postgresql*) ;; *) return 0 ;; esac
    local major
    major=$(candidate_of postgresql)
    major=${major%%[!0-9]*}
    [ "${major:-0}" -ge $POSTGRES_OLDEST ] || die \
        "the newest PostgreSQL of this distribution is ${major:-none}; holdfast needs $POSTGRES_OLDEST to $POSTGRES_NEWEST" \
        "Ubuntu 24.04 and Debian 12 are new enough. Here, add the PostgreSQL project's own packages:" \
        "apt-get install postgresql-common && /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh" \
        "then apt-get install postgresql-17, and run this again."
}

install_newer_python() {
    local newer=python$PYTHON_OLDEST
    [ -n "$(candidate_of $newer-venv)" ] || die \
        "this distribution's Python is $(python3 --version 2>&1 || true); holdfast needs $PYTHON_OLDEST or newer" \
        "Ubuntu 22.04: enable the component universe (add-apt-repository universe), which has $newer and $newer-venv;" \
        "elsewhere install a newer Python and name it: PYTHON=/path/to/python3.12 make setup"
    say "installing $newer beside the distribution's own Python"
    as_root apt-get install -q -y --no-install-recommends -o Dpkg::Use-Pty=0 $newer $newer-venv
}

# Debian's package makes and starts a cluster named main when a server is installed. Nobody asked for one here, so it
# is told not to while we install; afterwards the machine's configuration is as it was.
prevent_cluster() {
    trap allow_cluster EXIT
    as_root mkdir -p "$(dirname $NO_CLUSTER)"
    as_root sh -c "echo create_main_cluster = false >$NO_CLUSTER"
}

allow_cluster() {
    trap - EXIT
    as_root rm -f $NO_CLUSTER
}

# --- .venv ------------------------------------------------------------------------------------------------------

make_venv() {
    local python
    python=$(find_python) || die "no Python $PYTHON_OLDEST or newer with its venv module" \
        "Install one and name it: PYTHON=/path/to/python3.12 make setup"
    if [ -e .venv/pyvenv.cfg ] && venv_is_sound; then
        return 0
    fi
    if [ -e .venv ]; then
        [ -e .venv/pyvenv.cfg ] || die ".venv is not a Python environment" "Move it away, then run this again."
        say "making .venv anew: it is of another folder or another Python"
        rm -rf .venv
    fi
    say "making .venv with $("$python" --version)"
    quietly "$python" -m venv .venv
}

venv_is_sound() {
    .venv/bin/python -c "import sys; sys.exit(sys.version_info < (${PYTHON_OLDEST/./, }))" 2>/dev/null &&
        head -n 3 .venv/bin/pip 2>/dev/null | grep -qF "$PWD/.venv/"
}

pip_install() {
    quietly .venv/bin/python -m pip --disable-pip-version-check --no-input install --progress-bar off "$@"
}

is_done() { [ "$(cat ".venv/.done-$1" 2>/dev/null)" = "$(sha256sum <"$1")" ]; }
mark_done() { sha256sum <"$1" >".venv/.done-$1"; }

install_locked() {
    is_done "$1" && return 0
    say "installing the packages of $1 (every file checked by its hash)"
    pip_install --require-hashes --only-binary :all: --no-deps -r "$1"
    mark_done "$1"
}

install_project() {
    is_done pyproject.toml && .venv/bin/python -c "import holdfast" 2>/dev/null && return 0
    say "installing holdfast itself into .venv"
    pip_install --no-deps --no-build-isolation --editable .
    mark_done pyproject.toml
}

mkdir -p .cache
: >"$LOG"
install_packages
make_venv
case $PURPOSE in
    run) is_done requirements-dev.lock || install_locked requirements.lock ;;
    test | bench) install_locked requirements-dev.lock ;;
    *) die "unknown purpose: $PURPOSE" "Say nothing, test or bench." ;;
esac
install_project
say "ready: .venv/bin/holdfast"
