-- The tables that hold rows of the database's own, each as JSON: what is needed to read them, to write them and to say
-- how their definitions differ. With search_path = pg_catalog every name in a definition has its schema. Partitions
-- are read and written through their table, and listed for what is theirs alone.
SELECT json_build_object(
  'schema', n.nspname, 'name', c.relname, 'partitioned', c.relkind = 'p',
  'unlogged', c.relpersistence = 'u',
  'inherits', EXISTS (SELECT FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent
    WHERE (i.inhrelid = c.oid OR i.inhparent = c.oid) AND p.relkind <> 'p'),
  'secured', c.relrowsecurity,
  'inner_triggers', EXISTS (SELECT FROM pg_partition_tree(c.oid) p JOIN pg_trigger ON tgrelid = p.relid
    WHERE p.relid <> c.oid AND NOT tgisinternal AND tgparentid = 0),
  'ruled', EXISTS (SELECT FROM pg_rewrite WHERE ev_class = c.oid),
  'columns', (SELECT coalesce(json_agg(json_build_object(
      'name', attname, 'number', attnum, 'type', format_type(atttypid, atttypmod), 'not_null', attnotnull,
      'default', pg_get_expr(d.adbin, c.oid), 'identity', attidentity, 'generated', attgenerated <> '',
      'collation', CASE WHEN attcollation <> t.typcollation THEN attcollation::regcollation::text END,
      'sequence', pg_get_serial_sequence(format('%I.%I', n.nspname, c.relname), attname)) ORDER BY attnum), '[]')
    FROM pg_attribute a JOIN pg_type t ON t.oid = atttypid
      LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
  'constraints', (SELECT coalesce(json_agg(json_build_object(
      'name', conname, 'kind', contype, 'definition', pg_get_constraintdef(k.oid), 'deferrable', condeferrable,
      'columns', (SELECT coalesce(json_agg(attname ORDER BY place), '[]') FROM unnest(conkey) WITH ORDINALITY u(number, place)
        JOIN pg_attribute ON attrelid = conrelid AND attnum = number),
      'parent', CASE WHEN confrelid <> 0 THEN (SELECT json_build_array(pn.nspname, p.relname)
        FROM pg_class p JOIN pg_namespace pn ON pn.oid = p.relnamespace WHERE p.oid = confrelid) END,
      'parent_columns', (SELECT coalesce(json_agg(attname ORDER BY place), '[]') FROM unnest(confkey) WITH ORDINALITY u(number, place)
        JOIN pg_attribute ON attrelid = confrelid AND attnum = number),
      'on_update', confupdtype, 'on_delete', confdeltype) ORDER BY conname), '[]')
    FROM pg_constraint k WHERE conrelid = c.oid AND conparentid = 0 AND contype <> 'n'),
  'indexes', (SELECT coalesce(json_agg(json_build_object(
      'name', x.relname, 'definition', pg_get_indexdef(indexrelid)) ORDER BY x.relname), '[]')
    FROM pg_index JOIN pg_class x ON x.oid = indexrelid
    WHERE indrelid = c.oid AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u', 'x'))),
  'triggers', (SELECT coalesce(json_agg(json_build_object('name', tgname, 'always', tgenabled = 'A') ORDER BY tgname), '[]')
    FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal AND tgconstraint = 0 AND tgparentid = 0
      AND tgenabled IN ('O', 'A'))
)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND NOT c.relispartition
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
