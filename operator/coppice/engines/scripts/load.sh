# The initial load: files in the order of their names, each from the database asked for (as the MySQL and Dolt images do it).
if [ -f "$root/marker" ]; then
  exit 0
fi
begin
current=${COPPICE_DATABASE:-coppice_load}
create "$current"

progress '.sql' '.sql.gz'
for file in "$COPPICE_LOAD"/*; do
  case $file in
  *.sql) reader='cat' ;;
  *.sql.gz) reader='gzip -dc' ;;
  *) continue ;;
  esac
  loaded=yes
  $reader "$file" >"$HOME/statements.sql" || fail "cannot read ${file##*/}"
  # The output is not shown: it may hold rows. A message's first line says where, its last one why.
  dolt --data-dir "$stage/databases" --doltcfg-dir "$HOME/offline" --use-db "$current" sql \
    <"$HOME/statements.sql" >/dev/null 2>"$HOME/output" ||
    fail "${file##*/} does not load" "$(sed -n -e 1p -e '$p' "$HOME/output" | cut -c 1-160 | paste -sd ' ' -)"
  rm -f "$HOME/statements.sql"
  loaded_files=$((loaded_files + 1))
  progress '.sql' '.sql.gz'
done
[ -n "${loaded-}" ] || fail "the load holds no *.sql or *.sql.gz file"

if [ -z "$COPPICE_DATABASE" ]; then
  untouched=$(offline "$stage/databases" -r csv -q "USE coppice_load; SELECT COUNT(*) FROM dolt_status" | tail -n 1)
  others=$(each_database "$stage/databases" | grep -vx coppice_load || true)
  if [ "$untouched" = 0 ] && [ -n "$others" ]; then
    rm -rf "$stage/databases/coppice_load"
  else
    [ ! -e "$stage/databases/$COPPICE_FALLBACK_DATABASE" ] ||
      fail "the load makes the database $COPPICE_FALLBACK_DATABASE and tables outside of it: set spec.managed.database, or begin with USE"
    mv "$stage/databases/coppice_load" "$stage/databases/$COPPICE_FALLBACK_DATABASE"
  fi
  names=$(each_database "$stage/databases" | paste -sd ' ' -)
  [ "$names" = "${names#* }" ] || fail "the load makes several databases ($names): name the one apps get in spec.managed.database"
else
  [ -d "$stage/databases/$COPPICE_DATABASE/.dolt/noms" ] ||
    fail "the load dropped the database $COPPICE_DATABASE; it made: $(each_database "$stage/databases" | paste -sd ' ' -)"
fi

each_database "$stage/databases" | while read -r name; do
  printf 'USE %s;\n' "$(quote "$name")"
  printf "CALL dolt_add('-A'); CALL dolt_commit('--skip-empty', '-m', 'Initial load');\n"
done >"$HOME/commit.sql"
offline "$stage/databases" <"$HOME/commit.sql" >"$HOME/output" 2>&1 ||
  fail "cannot commit the load" "$(tail -n 1 "$HOME/output" | cut -c 1-300)"
publish_databases
