# What every Dolt script starts with. COPPICE_DATA, COPPICE_RUN, COPPICE_LOAD, COPPICE_HOST and COPPICE_PORT come from the environment.
umask 077
# Dolt keeps settings (SET PERSIST, remotes' credentials, telemetry) under its HOME: never on a volume that will be copied.
export HOME="$COPPICE_RUN" DOLT_ROOT_PATH="$COPPICE_RUN" TMPDIR="$COPPICE_RUN" DOLT_DISABLE_EVENT_FLUSH=1 TZ=UTC
volume=$COPPICE_DATA
root=$volume/dolt
databases=$root/databases

fail() {
  printf 'coppice: %s\n' "$*" >&2
  exit 1
}

mkdir -p "$HOME/.dolt"
printf '%s\n' "$COPPICE_CLI_CONFIG" >"$HOME/.dolt/config_global.json"
cd "$HOME" || exit 1

# offline DATA_DIR ARGUMENT...: dolt sql on databases that no server has open; the users it knows or makes are thrown away with HOME.
offline() (
  directory=$1
  shift
  dolt --data-dir "$directory" --doltcfg-dir "$HOME/offline" sql "$@"
)

# quote NAME: as an SQL identifier.
quote() {
  # shellcheck disable=SC2016 # backticks are SQL's quotes
  printf '`%s`' "$(printf '%s' "$1" | sed 's/`/``/g')"
}

# each_database DATA_DIR: the names of the databases in a data directory, one a line.
each_database() (
  for entry in "$1"/*; do
    if [ -d "$entry/.dolt/noms" ]; then
      printf '%s\n' "${entry##*/}"
    fi
  done
)

# strange_files DIRECTORY NAME...: the entries of a directory that are none of these names.
strange_files() (
  where=$1
  shift
  for entry in "$where"/* "$where"/.[!.]* "$where"/..?*; do
    [ -e "$entry" ] || [ -L "$entry" ] || continue
    known=
    for name; do
      [ "${entry##*/}" != "$name" ] || known=yes
    done
    [ -n "$known" ] || printf '%s\n' "$entry"
  done
)
