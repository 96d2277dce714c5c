# Makes a server's volume of a dump that lies on it. What the dump defines is run here, by a server that nobody else can reach.
report() {
  {
    read -r database
    read -r at
    read -r version
    read -r tables
    read -r filled
  } <"$1"
  printf '{"phase": "Done", "at": "%s", "version": "%s", "database": "%s", "tables": %s, "filled": %s, "findings": [%s]}\n' \
    "$at" "$(names "$version")" "$database" "$tables" "$filled" "$(sed 1,5d "$1" | paste -sd , -)"
}

if has_marker "$root"; then
  rm -rf "$kept"
  report "$root/mirror"
  exit 0
fi
refuse_strangers
has_marker "$kept" || fail "the volume holds no finished dump of this refresh: delete the claim to have it made again"
rm -rf "$stage"
mkdir -p "$stage"
cp "$kept/facts" "$stage/mirror"
tell Restoring
database=$(head -n 1 "$kept/facts")
tables=$(sed -n 4p "$kept/facts")
filled=$(sed -n 5p "$kept/facts")
initialise full_page_writes=off max_wal_size=2GB "maintenance_work_mem=$(($(buffers) / COPPICE_JOBS + 1024))kB" max_worker_processes=16

# restore DATABASE ARGUMENT...
restore() {
  into=$1
  shift
  PGOPTIONS=$own_session pg_restore --host="$HOME" --port=5432 --username=coppice_admin --no-password --dbname="$into" --no-owner \
    --no-privileges --no-tablespaces --no-publications --no-subscriptions --no-security-labels "$@" "$dump"
}

# found REASON TEXT
found() {
  printf '{"reason": "%s", "message": "%s"}\n' "$1" "$(names "$2")" >>"$stage/mirror"
}

# attempt STATEMENT: what the database is made by; the image may not know all of it.
attempt() {
  printf '%s\n' "$1" | as_admin template1 -f - >/dev/null 2>"$log"
}

# The database as it was made there: with its encoding, its settings, and in its order of letters. Where the image does not know that, in the order of
# bytes. Of an empty list pg_restore takes what belongs to the database itself, and nothing else.
: >"$kept/nothing"
pg_restore --create --no-owner --no-privileges --no-tablespaces --use-list="$kept/nothing" --file="$kept/database" "$dump" 2>"$log" ||
  fail_with RestoreFailed "$log"
run_sql template1 "DROP DATABASE IF EXISTS $(name_of "$database")"
if ! attempt "$(grep '^CREATE DATABASE ' "$kept/database")"; then
  found LocaleReplaced "the image lacks the locale of the source, and texts are ordered by their bytes; $(words "$log")"
  run_sql template1 "CREATE DATABASE $(name_of "$database") TEMPLATE template0"
fi
sed -n 's/^ALTER DATABASE .* SET \("*[A-Za-z0-9_.]*"*\) .*/\1 &/p' "$kept/database" | while read -r setting statement; do
  attempt "$statement" || found SettingsLeftOut "a setting of the database that the image does not take: $setting"
done
for setting in session_preload_libraries local_preload_libraries; do
  run_sql template1 "ALTER DATABASE $(name_of "$database") RESET $setting"
done

watched Restoring "$tables" restore "$database" --jobs="$COPPICE_JOBS" --exit-on-error --verbose || fail_with RestoreFailed "$log"

tell Checking
run_sql "$database" "$COPPICE_OWN_SQL \\gexec"
there=$(run_sql "$database" "SELECT format('SELECT 1 WHERE EXISTS (SELECT FROM ONLY %s)', c.oid::regclass)
  FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
  WHERE relkind = 'r' AND nspname !~ '^pg_' AND nspname <> 'information_schema' \\gexec" | grep -c 1 || true)
[ "$there" -ge "$filled" ] || give_up RestoreFailed "$filled tables have rows in the dump, and $there in the copy"
# Once, for all copies: none of them has to look at every row again to know that it can be seen.
PGOPTIONS=$own_session vacuumdb --host="$HOME" --port=5432 --username=coppice_admin --no-password --jobs="$COPPICE_JOBS" --freeze --analyze --quiet \
  "$database" >/dev/null 2>"$log" || fail_with RestoreFailed "$log"
run_sql template1 "$COPPICE_ADMIN_SQL"
run_sql template1 CHECKPOINT
finish
rm -rf "$kept"
report "$root/mirror"
