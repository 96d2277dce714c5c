-- What reads the first rows of a table as text and returns their hash; :table is its OID. A cast to text could be the table's owner's own function.
SELECT format($$SELECT md5(coalesce(string_agg(record_out(t)::text, E'\n'), '')) FROM (SELECT * FROM ONLY %s LIMIT 10) t$$, :table::oid::regclass)
