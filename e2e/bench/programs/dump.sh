# A full dump and compare: brings what was changed on one PostgreSQL server into another one, row by row.
#
#   keep HOST PORT USER DATABASE            keeps a dump of the rows as they were; standard input: the password
#   bring HOST PORT USER DATABASE LIVE      brings what has changed since then; standard input: both passwords
#
# It tells as JSON when what was done, by the machine's clock. A row that both sides have changed makes it fail.
set -euo pipefail
export LC_ALL=C
programs=$(echo /usr/lib/postgresql/*/bin)
[ ! -d "$programs" ] || PATH=$programs:$PATH
what=$1 host=$2 port=$3 user=$4 database=$5
cd "${TMPDIR:-/tmp}"

# Lines of COPY, in the order of their bytes: https://www.postgresql.org/docs/15/sql-copy.html, "Text Format".
dump() {
  PGPASSWORD=$2 pg_dump -h "$1" -p "$port" -U "$user" --data-only --table=public.item "$database" |
    sed -e '1,/^COPY /d' -e '/^\\\.$/,$d' | sort -S 192M
}
keys() { cut -f1 | sort -u; }
now() { date +%s.%N; }

read -r password
if [ "$what" = keep ]; then
  dump "$host" "$password" >base
  exit
fi
live=$6
read -r live_password
begin=$(now)
dump "$host" "$password" >clone &
dumping=$!
dump "$live" "$live_password" >live
wait "$dumping"
dumped=$(now)
comm -23 base clone >before &
comparing=$!
comm -13 base clone >after
wait "$comparing"
cat before after | keys >changed
comm -3 base live | sed 's/^\t//' | keys >others
[ -z "$(comm -12 changed others)" ] || { echo "both sides have changed a row" >&2; exit 1; }
compared=$(now)
PGPASSWORD=$live_password psql -X -q -v ON_ERROR_STOP=1 -h "$live" -p "$port" -U "$user" -d "$database" -f - <<'SQL'
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
