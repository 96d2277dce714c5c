# Reads a database elsewhere into a directory on the new volume. There, nothing is written: every session is read-only, waits for no lock for long, and
# ends with this script. Here, nothing of what is read is run.
if has_marker "$root" || has_marker "$kept"; then
  tell Done
  exit 0
fi
refuse_strangers
rm -rf "$kept"
mkdir -p "$kept"
tell Connecting

# of KEY [DEFAULT]: what the Secret says.
of() {
  if [ -f "$COPPICE_SOURCE/$1" ]; then cat "$COPPICE_SOURCE/$1"; else printf '%s' "${2-}"; fi
}

PGHOST=$(of host) PGPORT=$(of port "$COPPICE_PORT") PGUSER=$(of username) PGPASSWORD=$(of password) PGSSLMODE=$(of sslmode)
database=$(of database)
# Where the Secret says nothing of sslmode the server proves who it is: by its certificate, or by what it knows of the password, bound to this very
# connection. PGREQUIREAUTH is of PostgreSQL 16: a server that has proved nothing is shown no password.
PGCHANNELBINDING=prefer PGREQUIREAUTH=scram-sha-256
if [ -f "$COPPICE_SOURCE/ca.crt" ]; then
  cp "$COPPICE_SOURCE/ca.crt" "$HOME/ca.crt"
  export PGSSLROOTCERT="$HOME/ca.crt"
  : "${PGSSLMODE:=verify-full}"
fi
case $PGSSLMODE in
'') PGSSLMODE=require PGCHANNELBINDING=require ;;
verify-*) unset PGREQUIREAUTH ;;
esac
export PGHOST PGPORT PGUSER PGPASSWORD PGSSLMODE PGCHANNELBINDING PGREQUIREAUTH PGCONNECT_TIMEOUT=15 PGAPPNAME=coppice PGGSSENCMODE=disable
export PGOPTIONS='-c default_transaction_read_only=on -c idle_in_transaction_session_timeout=0'
connection="dbname=$database keepalives_idle=30 keepalives_interval=10 keepalives_count=6"

# ask STATEMENT: at the source; what it says of the catalog only.
ask() {
  psql -X -q -A -t -w -v ON_ERROR_STOP=1 -d "$connection" -c 'SET search_path = pg_catalog' -c "$1" 2>"$HOME/errors"
}

# login_failed FILE: give up, for there is no session.
login_failed() {
  case $(cat "$1") in
  *'password authentication failed'* | *'no password supplied'* | *'no pg_hba.conf entry'* | *'not permitted to log in'* | *'does not exist'* | \
    *'permission denied for database'*)
    fail_with SourceRefusesLogin "$1"
    ;;
  *'SSL error'* | *'support SSL'* | *'channel binding'* | *'certificate'* | *'authentication method'*) fail_with SourceNotGuarded "$1" ;;
  esac
  fail_with SourceUnreachable "$1"
}

version=$(ask "SELECT split_part(current_setting('server_version'), ' ', 1)") || login_failed "$HOME/errors"
running=$(pg_dump --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
[ "${version%%[!0-9]*}" -le "$running" ] || give_up SourceTooNew "$version"

# What cannot be made here need not be read there.
shares=
for folder in "$(dirname "$(readlink -f "$(command -v postgres)")")/../share" /usr/share/postgresql/"$running"; do
  for place in "$folder/extension" "$folder/postgresql/extension"; do
    [ ! -d "$place" ] || shares="$shares $place"
  done
done
missing=
for extension in $(ask 'SELECT extname FROM pg_extension ORDER BY extname'); do
  found=
  for place in $shares; do
    [ ! -e "$place/$extension.control" ] || found=yes
  done
  [ -n "$found" ] || [ -z "$shares" ] || missing="${missing:+$missing, }$extension"
done
[ -z "$missing" ] || give_up ExtensionsMissing "$missing"

total=$(ask "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
  WHERE relkind = 'r' AND nspname !~ '^pg_' AND nspname <> 'information_schema'") || login_failed "$HOME/errors"
# By this clock, and before the dump has its moment: what was committed until then is in it.
at=$(date -u +%Y-%m-%dT%H:%M:%SZ)
if ! watched Dumping "$total" pg_dump -d "$connection" --format=directory --file="$dump" --jobs="$COPPICE_JOBS" --compress=1 --verbose --no-password \
  --no-owner --no-privileges --no-tablespaces --no-publications --no-subscriptions --no-security-labels --lock-wait-timeout=30s --no-sync; then
  forbidden=$(sed -n 's/^.*\(permission denied for [a-z ]* [A-Za-z0-9_.]*\).*/\1/p;s/^.*\(query would be affected by row-level security policy for table "[^"]*"\).*/\1/p' "$log" | head -n 1)
  [ -z "$forbidden" ] || give_up ReadForbidden "$forbidden"
  # It has sessions of its own, and the source may have gone since it was asked.
  ! grep -q '^pg_dump: error: connection to server' "$log" || login_failed "$log"
  # pg_dump waits for locks by statement_timeout, and has none otherwise.
  ! grep -q 'canceling statement due to statement timeout\|could not obtain lock on relation' "$log" || give_up SourceLocked
  fail_with DumpFailed "$log"
fi

pg_restore --list "$dump" >"$kept/list" 2>"$HOME/errors" || fail_with DumpFailed "$HOME/errors"
sed -n 's/^\([0-9]*\); [0-9]* [0-9]* TABLE DATA .*/\1/p' "$kept/list" >"$kept/tables"
tables=0 filled=0
while read -r number; do
  tables=$((tables + 1))
  # Two bytes and a line's end stand for the end of the rows.
  [ "$(gzip -dc "$dump/$number.dat.gz" 2>/dev/null | head -n 1)" = '\.' ] || filled=$((filled + 1))
done <"$kept/tables"
[ "$filled" -gt 0 ] || [ -z "$COPPICE_EXPECTS_ROWS" ] || give_up SourceEmpty "$database"
printf '%s\n' "$database" "$at" "$version" "$tables" "$filled" >"$kept/facts"
sync -f "$kept"
printf '%s\n' "$COPPICE_MARKER" >"$kept/marker.new"
mv "$kept/marker.new" "$kept/marker"
sync -f "$kept"
tell Done
