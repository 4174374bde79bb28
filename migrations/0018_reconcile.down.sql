DROP TABLE upcall.reconcile_objects;
DROP TABLE upcall.reconcile_runs;
