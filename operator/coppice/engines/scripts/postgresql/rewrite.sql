-- One database, after a mask: no old row versions, no values of dropped columns, and no samples of rows as they were.
DELETE FROM pg_statistic;
DELETE FROM pg_statistic_ext_data;
VACUUM (FULL, ANALYZE);
