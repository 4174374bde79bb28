DROP TABLE upcall.recovered_uploads;
DROP TABLE upcall.notifications;
