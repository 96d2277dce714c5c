-- What somebody who gets the database should know, one JSON object a line; names only.
SELECT json_build_object('reason', reason, 'message', left(current_database() || ': ' || message, 1000)) FROM (
  SELECT 'UnloggedTablesEmpty' AS reason,
      'unlogged tables are empty in every copy: ' || string_agg(c.oid::regclass::text, ', ' ORDER BY c.oid) AS message
    FROM pg_class c WHERE relpersistence = 'u' AND relkind IN ('r', 'p') AND c.oid >= 16384 HAVING count(*) > 0
  UNION ALL
  SELECT 'SubscriptionsRemoved', 'subscriptions are not in copies: ' || string_agg(quote_ident(subname), ', ' ORDER BY subname)
    FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) HAVING count(*) > 0
  UNION ALL
  SELECT 'ForeignServers', 'foreign servers are named in the data, and cannot be logged in to: '
      || string_agg(quote_ident(srvname), ', ' ORDER BY srvname)
    FROM pg_foreign_server HAVING count(*) > 0
  UNION ALL
  SELECT 'UserMappingsRemoved', count(*) || ' user mappings, which may hold passwords, are not in copies' FROM pg_user_mappings HAVING count(*) > 0
  UNION ALL
  SELECT 'ConnectsOutside', 'extensions by which statements reach other servers: ' || string_agg(quote_ident(extname), ', ' ORDER BY extname)
    FROM pg_extension WHERE extname IN ('dblink', 'postgres_fdw', 'http', 'pg_net', 'plperlu', 'plpython3u', 'pltclu') HAVING count(*) > 0
  UNION ALL
  SELECT 'PreparedTransactionsRolledBack', count(*) || ' prepared transactions are rolled back in copies'
    FROM pg_prepared_xacts WHERE database = current_database() HAVING count(*) > 0
  UNION ALL
  SELECT 'CollationVersions', 'text was ordered by another version of the system''s rules, and indexes may miss rows (REINDEX mends them): '
      || string_agg(DISTINCT format('%I (%s, here %s)', collname, collversion, pg_collation_actual_version(oid)), ', ')
    FROM pg_collation WHERE collversion <> pg_collation_actual_version(oid)
      AND oid IN (SELECT attcollation FROM pg_attribute WHERE attrelid >= 16384) HAVING count(*) > 0
) found;
SELECT $$SELECT json_build_object('reason', 'CollationVersions', 'message', left(format(
    '%s: text was ordered by another version of the system''s rules (%s, here %s), and indexes may miss rows (REINDEX mends them)',
    datname, datcollversion, pg_database_collation_actual_version(oid)), 1000))
  FROM pg_database WHERE datname = current_database() AND datcollversion <> pg_database_collation_actual_version(oid)$$
WHERE current_setting('server_version_num')::int >= 150000 \gexec
