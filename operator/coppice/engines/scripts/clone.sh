# A clone's server, on a copy of a prepared volume.
: "${DOLT_ROOT_PASSWORD:?coppice: the administrator password is empty}"
expect_copy

if [ ! -f "$root/clone" ]; then
  # Preparation has removed the source's users. This volume has had no server of its own yet, so nobody else's may be here either.
  rm -rf "$root/users"
  [ -d "$databases/$COPPICE_DATABASE/.dolt/noms" ] || fail "the volume holds no database $COPPICE_DATABASE"
  if [ -n "$COPPICE_CUT" ]; then
    printf '%s\n' "$COPPICE_CUT" | offline "$databases" >"$HOME/output" 2>&1 ||
      fail "cannot cut the branch" "$(tail -n 1 "$HOME/output" | cut -c 1-300)"
  fi
  # Dolt opens a database on the branch named here; it is what an app gets that names no branch.
  printf '%s\n' "$COPPICE_REPO_STATE" >"$root/repo_state.json"
  # The file alone: syncing a file system that many clones share would make each wait for all.
  sync "$root/repo_state.json"
  mv "$root/repo_state.json" "$databases/$COPPICE_DATABASE/.dolt/repo_state.json"
  : >"$root/clone"
fi
serve
