# arm: give the administrator its password, once, while nobody can reach the server. A volume that was prepared, or just made, knows none at all.
arm() {
  [ ! -f "$root/armed" ] || return 0
  printf 'ALTER ROLE coppice_admin SUPERUSER LOGIN PASSWORD %s\n' "$(quoted "$COPPICE_ADMIN_PASSWORD")" | single "$data" template1 -c fsync=off ||
    fail "cannot set the administrator's password" "$(words "$HOME/errors")"
  rm -f "$HOME/output" "$HOME/errors"
  : >"$root/armed"
  # The file alone: syncing a file system that many clones share would make each wait for all.
  sync "$root/armed"
}

# note_reboot: a server without fsync outlives its process and its Pod, but not its node. One that was not stopped before another boot of a node may
# have lost what it had acknowledged, in any of its files; it says so to whoever would keep what it holds (prepare.sh).
note_reboot() {
  case $COPPICE_SETTINGS in *fsync=off*) ;; *) return 0 ;; esac
  boot=$(cat /proc/sys/kernel/random/boot_id)
  if [ -f "$root/armed" ] && [ "$boot" != "$(cat "$root/boot" 2>/dev/null)" ]; then
    pg_controldata -D "$data" | grep -q '^Database cluster state: *shut down' || : >"$root/torn"
  fi
  printf '%s\n' "$boot" >"$root/boot"
}

# buffers: a quarter of the memory that the container may have, whatever the source had; in kB.
buffers() {
  limit=
  for file in /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; do
    [ ! -r "$file" ] || limit=$(cat "$file")
  done
  case $limit in
  '' | *[!0-9]* | ????????????????*) limit=536870912 ;;
  esac
  echo $((limit / 4096))
}

# serve: become the server, with Coppice's own rules of who may connect. What stands on the command line is stronger than any file on the volume.
serve() {
  [ -f "$data/PG_VERSION" ] || fail "the volume holds no database"
  # Kubelet lets the group in where it sets the owner of a volume, and PostgreSQL refuses such a directory.
  chmod 0700 "$data"
  arm
  rm -f "$data/postmaster.pid"
  printf 'host all all all scram-sha-256\n' >"$HOME/hba.conf"
  set -- -c "listen_addresses=$COPPICE_HOST" -c "port=$COPPICE_PORT" -c "unix_socket_directories=$HOME" -c "hba_file=$HOME/hba.conf" \
    -c "ident_file=$HOME/empty.conf" -c "shared_buffers=$(buffers)kB"
  while IFS= read -r setting; do
    set -- "$@" -c "$setting"
  done <<SETTINGS
$COPPICE_SETTINGS
SETTINGS
  # Not needed again, and so not left in the environment of a process that runs others' statements.
  unset COPPICE_ADMIN_PASSWORD
  exec postgres -D "$data" "$@"
}
