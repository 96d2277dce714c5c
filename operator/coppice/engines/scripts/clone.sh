# A clone's server, on a copy of a prepared volume.
: "${DOLT_ROOT_PASSWORD:?coppice: the administrator password is empty}"
# A copy that has written all of its own bytes takes not even a lock file. The operator knows this exit code and gives the clone a new Pod,
# for which the storage driver keeps some room.
if ! problem=$({ head -c 262144 /dev/zero >"$root/room"; } 2>&1); then
  case $problem in
  *quota*)
    printf 'coppice: the volume has written all of its own bytes: %s\n' "$problem" >&2
    exit 122
    ;;
  esac
fi
rm -f "$root/room"
[ -f "$root/marker" ] || fail "the volume is empty where a prepared copy was expected: delete the claim to have it made again"
marker=$(cat "$root/marker")
[ "$marker" = "$COPPICE_MARKER" ] || fail "the volume is a copy of another snapshot ($marker, not $COPPICE_MARKER)"

if [ ! -f "$root/clone" ]; then
  # Preparation has removed the source's users. This volume has had no server of its own yet, so nobody else's may be here either.
  rm -rf "$root/users"
  [ -d "$databases/$COPPICE_DATABASE/.dolt/noms" ] || fail "the volume holds no database $COPPICE_DATABASE"
  if [ -n "$COPPICE_CUT" ]; then
    printf '%s\n' "$COPPICE_CUT" | offline "$databases" >"$HOME/output" 2>&1 ||
      fail "cannot cut the branch: $(tail -n 1 "$HOME/output" | cut -c 1-300)"
  fi
  # Dolt opens a database on the branch named here; it is what an app gets that names no branch.
  printf '%s\n' "$COPPICE_REPO_STATE" >"$root/repo_state.json"
  # The file alone: syncing a file system that many clones share would make each wait for all.
  sync "$root/repo_state.json"
  mv "$root/repo_state.json" "$databases/$COPPICE_DATABASE/.dolt/repo_state.json"
  : >"$root/clone"
fi
serve
