-- One database: nothing in it reaches out.
SELECT format('ROLLBACK PREPARED %L', gid) FROM pg_prepared_xacts WHERE database = current_database() \gexec
-- Dropping a subscription with a slot drops the slot at the publisher, and one that still copies tables asks the publisher for those slots: so it has
-- neither a slot nor a publisher first.
SELECT format('ALTER SUBSCRIPTION %I DISABLE', subname), format('ALTER SUBSCRIPTION %I CONNECTION %L', subname, 'host=/nowhere dbname=none'),
    format('ALTER SUBSCRIPTION %I SET (slot_name = NONE)', subname), format('DROP SUBSCRIPTION %I', subname)
  FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) \gexec
SELECT format('DROP USER MAPPING FOR %s SERVER %I', CASE WHEN umuser = 0 THEN 'PUBLIC' ELSE quote_ident(usename) END, srvname)
  FROM pg_user_mappings \gexec
