# Makes a raw copy of a server's volume safe to hand out. Files: what is not listed here does not leave. Inside: logins, slots, subscriptions, mappings.
[ -f "$root/marker" ] || fail "the copy is empty or not a PostgreSQL volume: the snapshot does not hold what its store holds"
[ -f "$data/PG_VERSION" ] || fail "the copy holds no data directory"
if [ -n "$COPPICE_ORIGIN" ]; then
  # An interrupted preparation may have come to its end.
  marker=$(cat "$root/marker")
  case $marker in
  "$COPPICE_ORIGIN" | "$COPPICE_MARKER") ;;
  *) fail "the volume is not of the clone that is committed: it is a copy of another snapshot ($marker, not $COPPICE_ORIGIN)" ;;
  esac
fi
if [ -n "$COPPICE_ORIGIN" ] && [ -e "$root/torn" ]; then
  fail "the clone ran without fsync when its node went down, and may have lost what it had acknowledged: make another, with durability: Durable"
fi
strange_files "$volume" postgresql lost+found | while read -r entry; do
  rm -rf "$entry"
done
strange_files "$root" data marker | while read -r entry; do
  rm -rf "$entry"
done
chmod 0700 "$data"

expect_major
[ ! -L "$data/pg_wal" ] || fail "the write-ahead log is not on the volume: pg_wal is a link to $(readlink "$data/pg_wal")"
for entry in "$data"/pg_tblspc/*; do
  [ ! -L "$entry" ] || fail "a tablespace is not in the data directory: $(readlink "$entry")"
done

# note_files: write down for each database which files its tables have, by the number of its directory; those that are shared are "global".
note_files() {
  { echo template1; databases; } | while read -r name; do
    oid=$(run_sql "$name" "SELECT oid FROM pg_database WHERE datname = current_database()")
    run_sql "$name" "SELECT pg_relation_filenode(oid) FROM pg_class WHERE pg_relation_filenode(oid) IS NOT NULL AND reltablespace <> 1664" \
      >"$HOME/files.$oid"
  done
  run_sql template1 "SELECT pg_relation_filenode(oid) FROM pg_class WHERE reltablespace = 1664" >"$HOME/files.global"
  run_sql template1 "SELECT oid FROM pg_database WHERE datname = 'template0'" >"$HOME/untouched"
}

# remove_orphans: a server that was cut off in the middle of a CREATE TABLE AS or a rewrite leaves files with rows that no catalog names, and that
# nothing removes: only what was written down stays.
remove_orphans() {
  for directory in "$data"/base/* "$data/global"; do
    oid=${directory##*/}
    [ "$oid" != "$(cat "$HOME/untouched")" ] || continue
    if [ ! -f "$HOME/files.$oid" ]; then
      rm -rf "$directory"
      continue
    fi
    strange_files "$directory" PG_VERSION pg_filenode.map pg_control | sed 's,.*/,,' | awk '
      NR == FNR { known[$0]; next }
      { number = $0; sub(/[._].*/, "", number); if (!(number in known)) print }' "$HOME/files.$oid" - | while read -r orphan; do
      rm -f "$directory/$orphan"
    done
  done
}

# is_installed LIBRARY: the image has it; a server that is to load one that is not there does not start.
is_installed() {
  programs=$(dirname "$(readlink -f "$(command -v postgres)")")
  for folder in "$programs/../lib" "$programs/../lib/postgresql" "/usr/lib/postgresql/$major/lib"; do
    [ ! -e "$folder/$1.so" ] || return 0
  done
  return 1
}

# Settings that the data rely on stay; everything else of the source's configuration goes, and with it what it would have done.
: >"$HOME/kept.conf"
left_out=
if [ -f "$data/postgresql.conf" ]; then
  for name in default_text_search_config datestyle intervalstyle timezone lc_monetary lc_numeric lc_time bytea_output xmlbinary search_path \
    standard_conforming_strings default_transaction_isolation shared_preload_libraries session_preload_libraries; do
    value=$(postgres -D "$data" -c "hba_file=$HOME/empty.conf" -c "ident_file=$HOME/empty.conf" -C "$name" 2>/dev/null) || continue
    case $name in
    *_preload_libraries)
      kept=
      for library in $(printf '%s' "$value" | tr -d '"' | tr ',' ' '); do
        case " $COPPICE_PASSIVE_LIBRARIES " in
        *" ${library##*/} "*) ! is_installed "${library##*/}" || kept=${kept:+$kept,}${library##*/} ;;
        esac
        case ",$kept," in
        *",${library##*/},"*) ;;
        *) left_out="$left_out $library" ;;
        esac
      done
      value=$kept
      ;;
    esac
    printf '%s = %s\n' "$name" "$(quoted "$value")" >>"$HOME/kept.conf"
  done
fi

strange_files "$data" PG_VERSION base global pg_commit_ts pg_dynshmem pg_logical pg_multixact pg_notify pg_replslot pg_serial pg_snapshots pg_stat \
  pg_stat_tmp pg_subtrans pg_tblspc pg_twophase pg_wal pg_xact backup_label tablespace_map | while read -r entry; do
  rm -rf "$entry"
done
# Slots of the source's subscribers and standbys, statistics with texts of statements, and what belongs to a running server.
for directory in pg_replslot pg_stat pg_stat_tmp pg_dynshmem pg_notify pg_snapshots pg_serial; do
  rm -rf "${data:?}/$directory"
  mkdir "$data/$directory"
done
for directory in pg_commit_ts pg_subtrans pg_tblspc pg_twophase; do
  mkdir -p "$data/$directory"
done
cp "$HOME/kept.conf" "$data/postgresql.conf"

# Recovery first, where nothing but this process is; where it ended is the head: the place of the checkpoint that it ends with.
cat >"$HOME/first.sql" <<'SQL'
SELECT 'head=' || to_hex(timeline_id) || 'w' || lpad(to_hex((checkpoint_lsn - '0/0'::pg_lsn)::bigint), 16, '0') AS found FROM pg_control_checkpoint()
DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'coppice_admin') THEN CREATE ROLE coppice_admin; END IF; END $$
ALTER ROLE coppice_admin SUPERUSER LOGIN PASSWORD NULL
SQL
single "$data" template1 -c fsync=off -c full_page_writes=on <"$HOME/first.sql" || fail "the copy does not recover: $(words "$HOME/errors")"
head=$(sed -n 's/.*found = "head=\([0-9a-fw]*\)".*/\1/p' "$HOME/output")
[ -n "$head" ] || fail "the copy does not say where it ends"

start_private "$data" session_replication_role=replica
run_sql template1 "$COPPICE_ROLES_SQL"
databases | grep -qxF -e "$COPPICE_DATABASE" || fail "the copy holds no database $COPPICE_DATABASE, but $(databases | paste -sd ' ' -)"
: >"$HOME/findings"
if [ -n "$left_out" ]; then
  printf '{"reason": "PreloadLibrariesLeftOut", "message": "not loaded in copies:%s"}\n' "$(printf '%s' "$left_out" | tr -cd 'A-Za-z0-9_ /.-')" >>"$HOME/findings"
fi
{ echo template1; databases; } | while read -r name; do
  run_sql "$name" "$COPPICE_FINDINGS_SQL" >>"$HOME/findings"
  run_sql "$name" "$COPPICE_STRIP_SQL"
  case $name in template1 | postgres) [ "$name" = "$COPPICE_DATABASE" ] || continue ;; esac
  run_sql "$name" "$COPPICE_OWN_SQL \\gexec"
done

# The proof that a copy is of this snapshot: what stands in a shared catalog is seen from every database.
origin=$(run_sql template1 "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = 'coppice_admin'")
case $origin in
"$COPPICE_MARKER "*) head=$(printf '%s' "$origin" | cut -d ' ' -f 2) ;;
esac
if [ -n "$COPPICE_ORIGIN" ]; then
  # Two clones of one snapshot may have come to the same place with other rows.
  head=${head%%commit*}commit$(printf '%s' "$COPPICE_MARKER" | tr -cd '0-9a-f' | cut -c 1-8)
fi
if [ -n "$COPPICE_REWRITE" ]; then
  # Masked rows are others than those of the source at this head.
  head=${head%masked}masked
  { echo template1; databases; } | while read -r name; do
    run_sql "$name" "$COPPICE_REWRITE_SQL"
  done
fi
table=$(run_sql "$COPPICE_DATABASE" "$COPPICE_PROBED_SQL")
probe=
if [ -n "$table" ]; then
  probe=" $table $(PGOPTIONS=$COPPICE_PROBE_OPTIONS run_sql "$COPPICE_DATABASE" "\\set table $table
$COPPICE_PROBE_SQL \\gexec")"
fi
# A table that has a migration tool's name may be anything: what cannot be read is not told, nor what is longer than any ledger.
ledger=$(printf '%s \\gexec\n' "$COPPICE_LEDGER_SQL" | as_admin "$COPPICE_DATABASE" -f - 2>/dev/null | tr '\n' ' ')
[ "${#ledger}" -le 65536 ] || ledger=
# Once more, after all that touches what others have made: an event trigger may have made a role meanwhile. Neither that nor anything else of
# theirs is in the way of these statements.
run_sql template1 "$COPPICE_ROLES_SQL"
run_sql template1 "$COPPICE_ADMIN_SQL"
able=$(run_sql template1 "SELECT rolname FROM pg_roles WHERE rolname <> 'coppice_admin' AND (rolcanlogin OR rolsuper AND oid <> 10)")
[ -z "$able" ] || fail "roles of the source can still log in" "$able"
run_sql template1 "COMMENT ON ROLE coppice_admin IS $(quoted "$COPPICE_MARKER $head$probe")"
run_sql template1 CHECKPOINT
report=$(printf '%s\n' "$COPPICE_REPORT_SQL" | as_admin "$COPPICE_DATABASE" -v "head=$head" -v "findings=[$(paste -sd , "$HOME/findings")]" \
  -v "ledger=${ledger:-null}" -f - 2>"$HOME/errors") ||
  fail "no report" "$(words "$HOME/errors")"
if [ -n "$COPPICE_REWRITE" ]; then
  # The log holds rows as they were, also where a segment was taken for the next one (its name is of the future then). From here on it is a new file.
  current=$(run_sql template1 "SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
  strange_files "$data/pg_wal" "$current" archive_status summaries | while read -r entry; do
    rm -f "$entry"
  done
  run_sql template1 "SELECT pg_switch_wal()" >/dev/null
  run_sql template1 CHECKPOINT
  [ ! -e "$data/pg_wal/$current" ] || fail "the write-ahead log of before the mask is still there: $current"
  note_files
fi
stop_private
[ -z "$COPPICE_REWRITE" ] || remove_orphans

rm -rf "$data/pg_stat" "$data/postmaster.opts"
mkdir "$data/pg_stat"
printf '%s\n' "$COPPICE_MARKER" >"$root/marker.new"
mv "$root/marker.new" "$root/marker"
sync -f "$root"
printf '%s\n' "$report"
