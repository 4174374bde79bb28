DROP TABLE upcall.feed_consumers;
DROP TABLE upcall.feed_moved;
DROP TABLE upcall.feed_timelines;
DROP TABLE upcall.feed_log;
ALTER TABLE upcall.upload_events DROP COLUMN recorded_xid; -- and the index with it
