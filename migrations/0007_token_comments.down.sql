-- Comments are not restored. Those of 0006 say less, and nothing that is wrong.
SELECT;
