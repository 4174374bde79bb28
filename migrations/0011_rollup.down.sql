DELETE FROM upcall.feed_consumers WHERE name IN ('rollup', 'rollup/next');
DROP TABLE upcall.rollup_dead_letters;
DROP TABLE upcall.rollup_versions;
DROP TABLE upcall.rollup_objects;
DROP TABLE upcall.rollup_hourly;
DROP TABLE upcall.rollup_generations;
ALTER TABLE upcall.feed_log DROP COLUMN dropped_before;
