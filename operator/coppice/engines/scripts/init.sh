# The first boot of a store: everything is made beside the place where it will be, and one rename makes it so.
stage=$volume/.loading

begin() {
  [ ! -e "$root" ] || fail "the volume holds $root without its marker: it is damaged; restore it from a snapshot"
  strange=$(strange_files "$volume" .loading lost+found)
  [ -z "$strange" ] || fail "the volume is not empty and not a Coppice store; it holds $strange"
  rm -rf "$stage"
  mkdir -p "$stage/databases"
}

create() {
  printf 'CREATE DATABASE %s;\n' "$(quote "$1")" | offline "$stage/databases" >"$HOME/output" 2>&1 ||
    fail "cannot make the database $1: $(tail -n 1 "$HOME/output" | cut -c 1-300)"
}

publish() {
  # What DROP DATABASE keeps for undrop, and Dolt's own files of the data directory, are no part of a store.
  rm -rf "$stage/databases/.dolt_dropped_databases" "$stage/databases/.dolt" "$stage/databases/.doltcfg"
  printf 'store\n' >"$stage/marker"
  sync -f "$stage"
  mv "$stage" "$root"
  sync -f "$volume"
}
