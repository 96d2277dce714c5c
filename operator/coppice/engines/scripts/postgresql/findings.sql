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
) found;
