-- The schema stays because the table of versions is in it.
DROP TABLE upcall.upload_events;
DROP TABLE upcall.callback_ids;
