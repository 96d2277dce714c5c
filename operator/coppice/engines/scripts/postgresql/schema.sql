-- What is defined in the database: by kind and name, a hash of the definition. With search_path = pg_catalog every name
-- in a definition has its schema. What an extension has brought belongs to that; so do indexes, constraints, triggers,
-- rules and policies to their table.
WITH own_namespace AS (
  SELECT oid, nspname, CASE nspname WHEN 'public' THEN '' ELSE nspname || '.' END AS prefix
    FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
), extended AS (
  SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
), defined(name, definition) AS (
  SELECT CASE c.relkind WHEN 'v' THEN 'view ' WHEN 'm' THEN 'matview ' WHEN 'f' THEN 'foreign-table ' ELSE 'table ' END
      || n.prefix || c.relname,
    concat_ws(E'\n',
      c.relpersistence::text, c.relrowsecurity::text, c.relforcerowsecurity::text, c.reloptions::text,
      pg_get_partkeydef(c.oid), pg_get_expr(c.relpartbound, c.oid), obj_description(c.oid, 'pg_class'),
      CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
      (SELECT string_agg(inhparent::regclass::text, ',' ORDER BY inhseqno) FROM pg_inherits WHERE inhrelid = c.oid),
      (SELECT string_agg(concat_ws(' ', quote_ident(attname), format_type(atttypid, atttypmod), attnotnull::text,
            attidentity::text, attgenerated::text, attcollation::regcollation::text, pg_get_expr(d.adbin, c.oid),
            col_description(c.oid, attnum)), E'\n' ORDER BY attnum)
         FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
      (SELECT string_agg(conname || ' ' || pg_get_constraintdef(oid), E'\n' ORDER BY conname)
         FROM pg_constraint WHERE conrelid = c.oid),
      (SELECT string_agg(pg_get_indexdef(indexrelid), E'\n' ORDER BY indexrelid::regclass::text)
         FROM pg_index WHERE indrelid = c.oid),
      (SELECT string_agg(pg_get_triggerdef(oid) || tgenabled::text, E'\n' ORDER BY tgname)
         FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal),
      (SELECT string_agg(pg_get_ruledef(oid), E'\n' ORDER BY rulename)
         FROM pg_rewrite WHERE ev_class = c.oid AND rulename <> '_RETURN'),
      (SELECT string_agg(concat_ws(' ', polname, polcmd::text, polpermissive::text, pg_get_expr(polqual, c.oid),
            pg_get_expr(polwithcheck, c.oid)), E'\n' ORDER BY polname)
         FROM pg_policy WHERE polrelid = c.oid))
    FROM pg_class c JOIN own_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm')
      AND NOT EXISTS (SELECT FROM extended WHERE classid = 'pg_class'::regclass AND objid = c.oid)
  UNION ALL
  SELECT 'sequence ' || n.prefix || c.relname,
    concat_ws(' ', format_type(seqtypid, NULL), seqstart, seqincrement, seqmax, seqmin, seqcache, seqcycle::text)
    FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN own_namespace n ON n.oid = c.relnamespace
    WHERE NOT EXISTS (SELECT FROM extended WHERE classid = 'pg_class'::regclass AND objid = c.oid)
  UNION ALL
  SELECT CASE prokind WHEN 'p' THEN 'procedure ' WHEN 'a' THEN 'aggregate ' ELSE 'function ' END
      || n.prefix || proname || '(' || pg_get_function_identity_arguments(p.oid) || ')',
    concat_ws(E'\n', obj_description(p.oid, 'pg_proc'), CASE WHEN prokind = 'a'
      THEN (SELECT concat_ws(' ', aggtransfn::text, aggfinalfn::text, format_type(aggtranstype, NULL), agginitval)
              FROM pg_aggregate WHERE aggfnoid = p.oid)
      ELSE pg_get_functiondef(p.oid) END)
    FROM pg_proc p JOIN own_namespace n ON n.oid = p.pronamespace
    WHERE NOT EXISTS (SELECT FROM extended WHERE classid = 'pg_proc'::regclass AND objid = p.oid)
  UNION ALL
  SELECT CASE typtype WHEN 'd' THEN 'domain ' ELSE 'type ' END || n.prefix || typname,
    concat_ws(E'\n', obj_description(t.oid, 'pg_type'), typtype::text, typdefault, typnotnull::text,
      CASE WHEN typtype = 'd' THEN format_type(typbasetype, typtypmod) END,
      (SELECT string_agg(quote_literal(enumlabel), ',' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid),
      (SELECT string_agg(conname || ' ' || pg_get_constraintdef(oid), E'\n' ORDER BY conname)
         FROM pg_constraint WHERE contypid = t.oid),
      (SELECT format_type(rngsubtype, NULL) FROM pg_range WHERE rngtypid = t.oid),
      (SELECT string_agg(quote_ident(attname) || ' ' || format_type(atttypid, atttypmod), ',' ORDER BY attnum)
         FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped))
    FROM pg_type t JOIN own_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
    WHERE (typtype IN ('d', 'e', 'r') OR (typtype = 'c' AND c.relkind = 'c'))
      AND NOT EXISTS (SELECT FROM extended WHERE classid = 'pg_type'::regclass AND objid = t.oid)
  UNION ALL
  SELECT 'statistics ' || n.prefix || stxname, pg_get_statisticsobjdef(s.oid)
    FROM pg_statistic_ext s JOIN own_namespace n ON n.oid = s.stxnamespace
  UNION ALL
  SELECT 'extension ' || extname, extversion FROM pg_extension WHERE extname <> 'plpgsql'
  UNION ALL
  SELECT 'schema ' || nspname, coalesce(obj_description(n.oid, 'pg_namespace'), '')
    FROM own_namespace n WHERE nspname <> 'public'
      AND NOT EXISTS (SELECT FROM extended WHERE classid = 'pg_namespace'::regclass AND objid = n.oid)
)
SELECT name, left(encode(sha256(convert_to(coalesce(definition, ''), 'UTF8')), 'hex'), 16) FROM defined
