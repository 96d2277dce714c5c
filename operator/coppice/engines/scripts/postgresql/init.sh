# The first boot of a PostgreSQL store.

# initialise [SETTING...]: a new server without a database, which this script alone can reach.
# shellcheck disable=SC2120
initialise() {
  known initdb --pgdata="$stage/data" --username="$bootstrap" --auth=reject --encoding=UTF8 --locale=C.UTF-8 --data-checksums --no-sync \
    >"$HOME/output" 2>&1 || fail "initdb: $(tail -n 1 "$HOME/output" | cut -c 1-300)"
  # The names that dumps expect: a role that owns, without a login.
  printf 'CREATE ROLE coppice_admin SUPERUSER LOGIN\nCREATE ROLE postgres\nCREATE ROLE app\n' | single "$stage/data" template1 ||
    fail "cannot make the roles" "$(words "$HOME/errors")"
  start_private "$stage/data" "$@"
}

create() {
  initialise
  run_sql template1 "CREATE DATABASE $(name_of "$1") OWNER app"
}

# name_of TEXT: as an SQL identifier.
name_of() {
  printf '"%s"' "$(printf '%s' "$1" | sed 's/"/""/g')"
}

finish() {
  stop_private
  publish
}
