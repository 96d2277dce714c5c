# What every TerminusDB script starts with, after volume.sh.
root=$volume/terminusdb
# Where TerminusDB's image has it, which is on nobody's PATH.
export PATH="$PATH:/app/terminusdb"
stage=$volume/.loading
# A plug-in of the image's optimizes by itself: it would rewrite, and so unshare, what a clone has from its snapshot.
export TERMINUSDB_SERVER_DB_PATH="$root/db" TERMINUSDB_FILE_STORAGE_PATH="$HOME/files" TERMINUSDB_SERVER_TMP_PATH="$HOME"
export TERMINUSDB_PLUGINS_PATH="$HOME/plugins" TERMINUSDB_SERVER_PORT="$COPPICE_PORT"
# At its usual level the server logs every request, with the names of documents; its web page asks for nothing that an app needs.
export TERMINUSDB_LOG_LEVEL=WARNING TERMINUSDB_ENABLE_DASHBOARD=false
mkdir -p "$HOME/files" "$HOME/plugins"

# terminus WORDS ARGUMENT...: a command on databases that no server has open; its output is in $HOME/output.
terminus() {
  words=$1
  shift
  terminusdb "$@" >"$HOME/output" 2>"$HOME/errors" || fail "$words" "$(tail -n 2 "$HOME/errors" | cut -c 1-300 | paste -sd ' ' -)"
}

# known_version: TerminusDB before 12.0.6 loses documents whose text is not ASCII, and says nothing.
known_version() {
  terminus "the image has no working terminusdb" --version
  version=$(sed -n 's/^TerminusDB v\([0-9.]*\).*/\1/p' "$HOME/output")
  [ -n "$version" ] || fail "terminusdb does not tell its version"
  if [ -z "$COPPICE_ANY_VERSION" ] && [ "$(printf '%s\n%s\n' "$COPPICE_OLDEST" "$version" | sort -V | head -n 1)" != "$COPPICE_OLDEST" ]; then
    fail "TerminusDB $version loses documents with text that is not ASCII, silently: use $COPPICE_OLDEST or later"
  fi
}

# check_labels: a label names the newest layer of a database, and is rewritten in place: emptied, then written. A copy that is taken in between has an
# empty one; the database does not open then, while the server says that it is well. Code 75 says that another copy may be whole.
check_labels() {
  found=
  for label in "$root/db"/*.label; do
    [ -f "$label" ] || continue
    found=yes
    number='' layer='' more=''
    { read -r number && read -r layer && ! read -r more; } <"$label" || torn "$label"
    case $number in '' | *[!0-9]*) torn "$label" ;; esac
    [ -z "$more" ] || torn "$label"
    # A database that was just begun has none.
    [ -n "$layer" ] || continue
    case $layer in *[!0-9a-f]*) torn "$label" ;; esac
    [ "${#layer}" -eq 40 ] || torn "$label"
    [ -s "$root/db/$(printf '%.3s' "$layer")/$layer.larch" ] || torn "$label"
  done
  [ -n "$found" ] || fail "the copy holds no database: there is no label"
}

torn() {
  printf 'coppice: the label %s is torn, or its layer is not there\n' "${1##*/}" >&2
  if [ -w "$COPPICE_REASON" ] && [ ! -s "$COPPICE_REASON" ]; then
    printf 'the label %s is torn, or its layer is not there: the copy was taken while it was written\n' "${1##*/}" >"$COPPICE_REASON"
  fi
  exit 75
}

# values KEY: the strings that a key has in the JSON of the last output, one a line; names with quotes in them are refused before.
values() {
  tr -d '\n' <"$HOME/output" | grep -o "\"$1\": *\"[^\"]*\"" | sed 's/^"[^"]*": *"\(.*\)"$/\1/' || true
}

# path NAME: a database's path; without an organisation it is the administrator's.
path() {
  case $1 in
  */*) printf '%s' "$1" ;;
  *) printf 'admin/%s' "$1" ;;
  esac
}

# arm: the administrator's password is that of the Secret. Before anything listens, and once: each time is a commit.
arm() {
  if [ ! -f "$root/armed" ]; then
    terminus "cannot set the administrator's password" user password admin "--password=$COPPICE_ADMIN_PASSWORD"
    : >"$root/armed"
    sync "$root/armed"
  fi
  unset COPPICE_ADMIN_PASSWORD
}

# serve: become the server. Nothing but the administrator's login, or one that he has made, opens it.
serve() {
  arm
  exec terminusdb serve
}
