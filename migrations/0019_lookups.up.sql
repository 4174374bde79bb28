-- What an operator looks up: uploads by the request ids of OSS, and what became of them at each endpoint.

-- Of an object's latest upload there is an index. These are of the others, so that a row is in one of
-- them only if its object was uploaded again.
CREATE INDEX rollup_objects_first_request_id ON upcall.rollup_objects (first_request_id) WHERE uploads > 1 AND first_request_id IS NOT NULL;
CREATE INDEX rollup_versions_request ON upcall.rollup_versions (request_id) WHERE request_id IS NOT NULL;

CREATE INDEX refused_callbacks_request_id ON upcall.refused_callbacks (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX refused_callbacks_object_key ON upcall.refused_callbacks USING hash (object_key);

ALTER TABLE upcall.hook_endpoints ADD COLUMN begins text;
COMMENT ON COLUMN upcall.hook_endpoints.begins IS 'The cursor of the log after which it is told of events. Null if a program from before migration 19 made it.';
