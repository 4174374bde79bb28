DELETE FROM upcall.feed_consumers WHERE name LIKE 'hook/%';
DROP TABLE upcall.hook_counts;
DROP TABLE upcall.hook_attempts;
DROP TABLE upcall.hook_retries;
DROP TABLE upcall.hook_endpoints;
DROP TABLE upcall.hook_changes;
