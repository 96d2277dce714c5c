# Makes a raw copy of a server's volume safe to hand out. Everything that is not the databases goes: what is not listed here does not leave.
[ -f "$root/marker" ] || fail "the copy is empty or not a Dolt volume: the snapshot does not hold what its store holds"

for strange in "$(strange_files "$volume" dolt lost+found)" "$(strange_files "$root" databases marker)"; do
  printf '%s\n' "$strange"
done | while read -r entry; do
  [ -z "$entry" ] || rm -rf "$entry"
done

for entry in "$databases"/* "$databases"/.[!.]* "$databases"/..?*; do
  [ -e "$entry" ] || [ -L "$entry" ] || continue
  state=$entry/.dolt/repo_state.json
  # Users, branch control, a server's secret, dropped databases, links and stray files.
  if [ -L "$entry" ] || [ ! -d "$entry/.dolt/noms" ]; then
    rm -rf "$entry"
    continue
  fi
  # Temporary files and, of a database's settings, all but its branch: remotes, backups and upstreams are here, persisted variables in config.json.
  { strange_files "$entry" .dolt; strange_files "$entry/.dolt" noms stats repo_state.json; } | while read -r strange; do
    rm -rf "$strange"
  done
  head=$(sed -n 's/^ *"head": \("refs\/heads\/.*"\),*$/\1/p' "$state")
  [ -n "$head" ] || fail "the database ${entry##*/} has no branch checked out: $state is damaged"
  printf '{\n  "head": %s,\n  "remotes": {},\n  "backups": {},\n  "branches": {}\n}\n' "$head" >"$state.new"
  mv "$state.new" "$state"
  printf '{}\n' >"$entry/.dolt/config.json"
done

# One Dolt process says what to ask, a second one asks it: every statement is in a CSV field that holds a comma, hence quoted.
names=$(each_database "$databases")
[ -n "$names" ] || fail "the copy holds no database"
[ -d "$databases/$COPPICE_DATABASE/.dolt/noms" ] || fail "the copy holds no database $COPPICE_DATABASE, but $names"
printf '%s\n' "$names" | while read -r name; do
  printf 'USE %s;\n' "$(quote "$name")"
  cat <<'SQL'
SELECT CONCAT('USE `', REPLACE(database(), '`', '``'), '`; SELECT database() AS d, active_branch() AS c;') AS line;
SELECT CONCAT('SELECT 1 FROM `', REPLACE(table_name, '`', '``'), '` LIMIT 0, 1;') AS line FROM information_schema.tables
  WHERE table_schema = database() AND table_type = 'BASE TABLE' LIMIT 1;
SELECT CONCAT('USE `', REPLACE(CONCAT(database(), '/', name), '`', '``'),
  '`; SELECT database() AS d, active_branch() AS b, dolt_hashof(''HEAD'') AS h, dolt_hashof_db() AS w;') AS line
  FROM dolt_branches ORDER BY name <> active_branch(), name LIMIT 501;
SQL
done >"$HOME/list.sql"
printf 'USE %s;\n%s\n' "$(quote "$COPPICE_DATABASE")" "$COPPICE_LEDGER_SQL" >>"$HOME/list.sql"
# Dolt leaves out a database that it cannot open and says so in its log only; USE is what fails then.
offline "$databases" -r csv <"$HOME/list.sql" >"$HOME/list" 2>"$HOME/output" ||
  fail "a database of the copy does not open" "$(tail -n 1 "$HOME/output" | cut -c 1-300)"
{
  printf 'USE %s; SELECT dolt_version() AS v, database() AS m;\n' "$(quote "$COPPICE_DATABASE")"
  sed -n -e '/^"\/\* ledger/d' -e 's/^"\(.*\)"$/\1/p' "$HOME/list" | sed 's/""/"/g'
} >"$HOME/states.sql"
offline "$databases" -r json <"$HOME/states.sql" >"$HOME/states" 2>"$HOME/output" ||
  fail "a database of the copy does not read" "$(tail -n 1 "$HOME/output" | cut -c 1-300)"

# A table that has a migration tool's name may be anything: what cannot be read is not told, nor what is longer than any ledger.
ledger=$(sed -n '/^"\/\* ledger/{s/^"\(.*\)"$/\1/p;q;}' "$HOME/list" | sed 's/""/"/g')
if [ -n "$ledger" ]; then
  printf 'USE %s; %s\n' "$(quote "$COPPICE_DATABASE")" "$ledger" >"$HOME/ledger.sql"
  if offline "$databases" -r json <"$HOME/ledger.sql" >"$HOME/ledger" 2>/dev/null && [ "$(wc -c <"$HOME/ledger")" -le 65536 ]; then
    cat "$HOME/ledger" >>"$HOME/states"
  fi
fi

rm -rf "$databases/.dolt" "$databases/.doltcfg"
printf '%s\n' "$COPPICE_MARKER" >"$root/marker.new"
mv "$root/marker.new" "$root/marker"
sync -f "$root"
printf '{"rows": [%s]}\n' "$(sed -n 's/^{"rows": \[\(.*\)\]}$/\1/p' "$HOME/states" | paste -sd , -)"
