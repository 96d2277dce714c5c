# serve: become the server. Dolt makes its administrator from DOLT_ROOT_PASSWORD before it listens, if there are no users yet.
serve() {
  [ -n "$(each_database "$databases")" ] || fail "the volume holds no database"
  # A stale one names a process and a secret of the server that the volume was copied from.
  rm -rf "$databases/.dolt/sql-server.info"
  export COPPICE_REMOTES_PORT=$((COPPICE_PORT + 1))
  printf '%s\n' "$COPPICE_SERVER_CONFIG" >"$HOME/server.yaml"
  # Not needed again, and so not left in the environment of a process that runs others' statements.
  if [ -f "$root/users/privileges.db" ]; then
    unset DOLT_ROOT_PASSWORD
  fi
  exec dolt sql-server --config "$HOME/server.yaml"
}
