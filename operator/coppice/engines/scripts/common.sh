# What every Dolt script starts with, after volume.sh.
# Dolt keeps settings (SET PERSIST, remotes' credentials, telemetry) under its HOME: never on a volume that will be copied.
export DOLT_ROOT_PATH="$COPPICE_RUN" DOLT_DISABLE_EVENT_FLUSH=1
root=$volume/dolt
stage=$volume/.loading
databases=$root/databases

mkdir -p "$HOME/.dolt"
printf '%s\n' "$COPPICE_CLI_CONFIG" >"$HOME/.dolt/config_global.json"

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
