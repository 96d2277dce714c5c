# The first boot of a Dolt store.
create() {
  mkdir -p "$stage/databases"
  printf 'CREATE DATABASE %s;\n' "$(quote "$1")" | offline "$stage/databases" >"$HOME/output" 2>&1 ||
    fail "cannot make the database $1" "$(tail -n 1 "$HOME/output" | cut -c 1-300)"
}

publish_databases() {
  # What DROP DATABASE keeps for undrop, and Dolt's own files of the data directory, are no part of a store.
  rm -rf "$stage/databases/.dolt_dropped_databases" "$stage/databases/.dolt" "$stage/databases/.doltcfg"
  publish
}
