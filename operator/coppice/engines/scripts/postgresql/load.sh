# The initial load: files in the order of their names, in the database asked for, as the administrator (as the PostgreSQL image does it).
if [ -f "$root/marker" ]; then
  exit 0
fi
begin
current=${COPPICE_DATABASE:-$COPPICE_FALLBACK_DATABASE}
create "$current"

progress '.sql' '.sql.gz'
for file in "$COPPICE_LOAD"/*; do
  case $file in
  *.sql) reader='cat' ;;
  *.sql.gz) reader='gzip -dc' ;;
  *) continue ;;
  esac
  loaded=yes
  $reader "$file" >/dev/null 2>&1 || fail "cannot read ${file##*/}"
  # The output is not shown: it may hold rows.
  $reader "$file" | as_loader "$current" -f - >/dev/null 2>"$HOME/errors" ||
    fail "${file##*/} does not load" "$(sed -n 's/^psql:<stdin>:\([0-9]*\): */line \1: /p' "$HOME/errors" | head -n 1 | cut -c 1-300)"
  loaded_files=$((loaded_files + 1))
  progress '.sql' '.sql.gz'
done
[ -n "${loaded-}" ] || fail "the load holds no *.sql or *.sql.gz file"

others=$(databases | grep -vxF -e postgres -e "$current" || true)
if [ -z "$COPPICE_DATABASE" ] && [ -n "$others" ]; then
  made=$(run_sql "$current" "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')")
  [ "$made" = 0 ] ||
    fail "the load makes databases ($(printf '%s' "$others" | paste -sd ' ' -)) and tables outside of them: set spec.managed.database, or begin with \\connect"
  run_sql template1 "DROP DATABASE $(name_of "$current")"
  [ "$(printf '%s\n' "$others" | wc -l)" = 1 ] ||
    fail "the load makes several databases ($(printf '%s' "$others" | paste -sd ' ' -)): name the one apps get in spec.managed.database"
elif [ -n "$COPPICE_DATABASE" ]; then
  databases | grep -qxF -e "$COPPICE_DATABASE" ||
    fail "the load dropped the database $COPPICE_DATABASE; it made: $(printf '%s' "$others" | paste -sd ' ' -)"
fi
databases | while read -r name; do
  [ "$name" = postgres ] || run_sql "$name" "$COPPICE_OWN_SQL \\gexec"
done
finish
