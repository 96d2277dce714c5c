# A full dump and compare: brings what was changed on one PostgreSQL server into another one, row by row.
#
#   keep URI            keeps a dump of the rows as they were; standard input: the password
#   bring URI LIVE-URI  brings what has changed since then to the live server; standard input: both passwords, a line each
#
# It tells as JSON when what was done, by the machine's clock. A row that both sides have changed makes it fail.
set -euo pipefail
export LC_ALL=C
programs=$(echo /usr/lib/postgresql/*/bin)
[ ! -d "$programs" ] || PATH=$programs:$PATH
what=$1 changed_on=$2 live_on=${3:-}
cd "${TMPDIR:-/tmp}"

# Lines of COPY, in the order of their bytes: https://www.postgresql.org/docs/15/sql-copy.html, "Text Format".
dump() {
  PGPASSWORD=$2 pg_dump --data-only --table=public.item "$1" |
    sed -e '1,/^COPY /d' -e '/^\\\.$/,$d' | sort -S 192M
}
# The keys of rows that one of two sides alone has so.
keys() { sed 's/^\t//' | cut -f1 | sort -u; }
now() { date +%s.%N; }

read -r password
if [ "$what" = keep ]; then
  dump "$changed_on" "$password" >base
  exit
fi
read -r live_password
begin=$(now)
dump "$changed_on" "$password" >clone &
dumping=$!
dump "$live_on" "$live_password" >live
wait "$dumping"
dumped=$(now)
comm -3 base clone >mine &
comparing=$!
comm -3 base live >theirs
wait "$comparing"
sed '/^\t/d' mine >before
sed -n 's/^\t//p' mine >after
keys <mine >changed
keys <theirs >others
[ -z "$(comm -12 changed others)" ] || { echo "both sides have changed a row" >&2; exit 1; }
compared=$(now)
PGPASSWORD=$live_password psql -X -q -v ON_ERROR_STOP=1 -f - "$live_on" <<'SQL'
BEGIN ISOLATION LEVEL REPEATABLE READ;
CREATE TEMPORARY TABLE before (LIKE item, PRIMARY KEY (id)) ON COMMIT DROP;
CREATE TEMPORARY TABLE after (LIKE item, PRIMARY KEY (id)) ON COMMIT DROP;
\copy before FROM 'before'
\copy after FROM 'after'
ANALYZE before, after;
DO $$
DECLARE found bigint; written bigint := 0;
BEGIN
  UPDATE item SET name = after.name, price = after.price, stock = after.stock, note = after.note
    FROM before JOIN after USING (id) WHERE item.id = before.id AND item.* = before.*;
  GET DIAGNOSTICS found = ROW_COUNT; written := written + found;
  DELETE FROM item USING before
    WHERE item.id = before.id AND item.* = before.* AND NOT EXISTS (SELECT FROM after WHERE after.id = before.id);
  GET DIAGNOSTICS found = ROW_COUNT; written := written + found;
  IF written <> (SELECT count(*) FROM before) THEN RAISE EXCEPTION 'somebody has changed a row meanwhile'; END IF;
  INSERT INTO item SELECT * FROM after WHERE NOT EXISTS (SELECT FROM before WHERE before.id = after.id);
END $$;
COMMIT;
SQL
published=$(now)
printf '{"rows": %d, "begin": %s, "dumped": %s, "compared": %s, "published": %s}\n' \
  "$(wc -l <changed)" "$begin" "$dumped" "$compared" "$published"
