# What every PostgreSQL script starts with, after volume.sh.
export LC_ALL=C
root=$volume/postgresql
stage=$volume/.loading
data=$root/data
bootstrap=coppice_bootstrap

# Debian and Red Hat keep a version's programs out of the PATH.
if ! command -v postgres >/dev/null 2>&1; then
  for programs in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin; do
    [ ! -x "$programs/postgres" ] || PATH=$programs:$PATH
  done
  export PATH
fi

# known ARGUMENT...: a program that does not run for a user without a name, which the owner of somebody else's volume may be. The official image
# has this library for that, too.
known() (
  if ! id -un >/dev/null 2>&1; then
    for wrapper in /usr/lib/*/libnss_wrapper.so /usr/lib/libnss_wrapper.so; do
      [ ! -e "$wrapper" ] || export LD_PRELOAD="$wrapper" NSS_WRAPPER_PASSWD="$HOME/passwd" NSS_WRAPPER_GROUP="$HOME/group"
    done
    printf 'postgres:x:%s:%s::%s:/bin/false\n' "$(id -u)" "$(id -g)" "$HOME" >"$HOME/passwd"
    printf 'postgres:x:%s:\n' "$(id -g)" >"$HOME/group"
  fi
  "$@"
)

# The process numbers in postmaster.pid mean nothing in another container. This lock does: every process of a server holds it to its end.
exec 9<"$volume"
flock -n 9 || fail "another server has the volume"

# running_major: the major version of the image's programs.
running_major() {
  postgres --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/'
}

# expect_major: the image's programs read the data, as those of the same major version do and no others.
expect_major() {
  major=$(cat "$data/PG_VERSION")
  running=$(running_major)
  [ "$major" = "$running" ] || fail "the data are of PostgreSQL $major, and this image is $running: only one of the same major version reads them"
}

# words FILE: what a server or program says went wrong; its first line only, for DETAIL and CONTEXT may hold rows.
words() {
  sed -n 's/^.*\(ERROR\|FATAL\|PANIC\|error\): */\1: /p' "$1" | head -n 1 | cut -c 1-300
}

# single DATA_DIR DATABASE ARGUMENT...: run statements from standard input, one a line, with no server and no listener. It ends well whatever the
# statements say, so that its words count. Files of the source's that could load libraries or open doors are not read.
single() (
  where=$1 database=$2
  shift 2
  rm -f "$where/postmaster.pid"
  known postgres --single -D "$where" -c "config_file=$HOME/empty.conf" -c "hba_file=$HOME/empty.conf" -c "ident_file=$HOME/empty.conf" \
    -c log_min_messages=error -c log_min_error_statement=panic -c log_error_verbosity=terse -c password_encryption=scram-sha-256 \
    -c search_path=pg_catalog -c max_prepared_transactions=200 "$@" "$database" >"$HOME/output" 2>"$HOME/errors" || return 1
  ! grep -q 'ERROR:\|FATAL:\|PANIC:' "$HOME/errors"
)
: >"$HOME/empty.conf"

# quoted TEXT: as an SQL string.
quoted() {
  printf "'%s'" "$(printf '%s' "$1" | sed "s/'/''/g")"
}

# start_private DATA_DIR SETTING...: a server that only this script can reach, by a socket in HOME. Nothing in it acts by itself: no archiving,
# no replication, no scheduler.
start_private() {
  where=$1
  shift
  printf 'local all all trust\n' >"$HOME/private.conf"
  rm -f "$where/postmaster.pid"
  set -- "hba_file=$HOME/private.conf" "ident_file=$HOME/empty.conf" listen_addresses= "unix_socket_directories=$HOME" port=5432 ssl=off \
    archive_mode=off max_logical_replication_workers=0 max_wal_senders=0 wal_level=minimal autovacuum=off fsync=off wal_recycle=off \
    max_prepared_transactions=200 max_locks_per_transaction=1024 max_connections=20 shared_buffers=32MB checkpoint_timeout=1h \
    dynamic_shared_memory_type=sysv logging_collector=off log_destination=stderr log_min_messages=error log_min_error_statement=panic \
    log_error_verbosity=terse log_statement=none "$@"
  arguments=
  for setting; do
    arguments="$arguments -c $(quoted "$setting")"
  done
  eval "exec postgres -D \"\$where\" $arguments" >"$HOME/server.log" 2>&1 &
  server=$!
  # It does not outlive this script, however that ends.
  trap 'kill -INT "$server" 2>/dev/null && wait "$server"' EXIT
  # Nor does an event trigger of somebody's who was a superuser run, on login above all. Older versions have neither those nor the setting.
  [ "$(running_major)" -lt 17 ] || own_session="$own_session -c event_triggers=off"
  until as_admin template1 -c 'SELECT 1' >/dev/null 2>&1; do
    kill -0 "$server" 2>/dev/null || fail "the server does not start: $(words "$HOME/server.log")"
    sleep 0.05
  done
}

stop_private() {
  trap - EXIT
  kill -INT "$server"
  wait "$server" || fail "the server does not stop: $(words "$HOME/server.log")"
}

# What holds in a session of the administrator, whatever the database or a role sets for its own: no function or operator that somebody has made
# in the database stands in for the server's (CVE-2018-1058), nothing is cut off, and everything may be written.
own_session='-c search_path=pg_catalog,pg_temp -c role=none -c default_transaction_read_only=off -c statement_timeout=0 -c lock_timeout=0
  -c idle_in_transaction_session_timeout=0 -c row_security=off'

# as_admin DATABASE ARGUMENT...: psql on the private server.
as_admin() {
  PGOPTIONS="$own_session ${PGOPTIONS-}" as_loader "$@"
}

# as_loader DATABASE ARGUMENT...: the same in a session as the database has it, for what its owners have written.
as_loader() (
  database=$1
  shift
  psql -X -q -A -t -w -h "$HOME" -p 5432 -U coppice_admin -v ON_ERROR_STOP=1 -v admin=coppice_admin -v app=app -d "$database" "$@"
)

# run_sql DATABASE STATEMENTS: run them; what they print goes to standard output.
run_sql() {
  printf '%s\n' "$2" | as_admin "$1" -f - 2>"$HOME/errors" || fail "a statement fails in the database $1" "$(words "$HOME/errors")"
}

# databases: the names of all databases but those that a new server has as templates, one a line.
databases() {
  run_sql template1 "SELECT datname FROM pg_database WHERE datname NOT IN ('template0', 'template1') ORDER BY datname"
}
