-- What reads the first rows of a table as text and returns their hash; :table is its OID.
SELECT format($$SELECT md5(coalesce(string_agg(t::text, E'\n'), '')) FROM (SELECT * FROM ONLY %s LIMIT 10) t$$, :table::oid::regclass)
