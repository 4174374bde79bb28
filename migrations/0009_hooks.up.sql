-- Hooks: where deliveries go, and what became of them. A delivery has a row only while it has
-- failed and waits, or is a dead letter. The place of an endpoint in the log is the row hook/ID
-- of feed_consumers.

CREATE TABLE upcall.hook_changes (
    the_only boolean PRIMARY KEY DEFAULT true CHECK (the_only),
    version  bigint  NOT NULL DEFAULT 0
);
INSERT INTO upcall.hook_changes DEFAULT VALUES;

COMMENT ON TABLE upcall.hook_changes IS 'One row, which receivers read several times a second to notice changes of endpoints.';
COMMENT ON COLUMN upcall.hook_changes.the_only IS 'True. Never null.';
COMMENT ON COLUMN upcall.hook_changes.version  IS 'Raised by each change. Never null.';

CREATE TABLE upcall.hook_endpoints (
    id              uuid        PRIMARY KEY,
    name            text        NOT NULL UNIQUE,
    url             text        NOT NULL,
    filter          jsonb       NOT NULL,
    headers         jsonb       NOT NULL,
    max_in_flight   integer     NOT NULL,
    received_since  timestamptz,
    secret          text        NOT NULL,
    previous_secret text,
    previous_until  timestamptz,
    state           text        NOT NULL CHECK (state IN ('active', 'paused', 'disabled', 'removing')),
    reason          text,
    failing_since   timestamptz,
    probe_at        timestamptz,
    probe_pause     interval,
    created_at      timestamptz NOT NULL,
    changed_at      timestamptz NOT NULL,
    version         bigint      NOT NULL,
    confirmed       bigint      NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

COMMENT ON TABLE upcall.hook_endpoints IS 'Applications that are told of uploads. It holds secrets.';
COMMENT ON COLUMN upcall.hook_endpoints.id              IS 'Made at random. Never null.';
COMMENT ON COLUMN upcall.hook_endpoints.name            IS 'Chosen by an operator. Never null.';
COMMENT ON COLUMN upcall.hook_endpoints.url             IS 'Where deliveries are sent. Never null.';
COMMENT ON COLUMN upcall.hook_endpoints.filter          IS 'Which events it is told of: on, buckets, key_prefixes, key_globs, mime_types, vars. Never null.';
COMMENT ON COLUMN upcall.hook_endpoints.headers         IS 'Headers that are sent with each delivery, by name. They may hold secrets. Never null.';
COMMENT ON COLUMN upcall.hook_endpoints.max_in_flight   IS 'How many requests are sent to it at once. Never null.';
COMMENT ON COLUMN upcall.hook_endpoints.received_since  IS 'It is not told of events that were received before. Null if it is told of all since its place in the log.';
COMMENT ON COLUMN upcall.hook_endpoints.secret          IS 'Signs deliveries; whsec_ and Base64. Never null.';
COMMENT ON COLUMN upcall.hook_endpoints.previous_secret IS 'Signs as well until previous_until. Null if there is none.';
COMMENT ON COLUMN upcall.hook_endpoints.previous_until  IS 'See previous_secret. Null if there is none.';
COMMENT ON COLUMN upcall.hook_endpoints.state           IS 'active, paused by an operator, disabled because it failed, or removing. Never null.';
COMMENT ON COLUMN upcall.hook_endpoints.reason          IS 'Why it is failing or disabled. Null if it is not.';
COMMENT ON COLUMN upcall.hook_endpoints.failing_since   IS 'The first failure since the last success. Null unless only probes are sent, or it is disabled.';
COMMENT ON COLUMN upcall.hook_endpoints.probe_at        IS 'When the next probe is due. Null unless only probes are sent.';
COMMENT ON COLUMN upcall.hook_endpoints.probe_pause     IS 'The pause before the next probe. Null unless only probes are sent.';
COMMENT ON COLUMN upcall.hook_endpoints.created_at      IS 'When it was made. Never null.';
COMMENT ON COLUMN upcall.hook_endpoints.changed_at      IS 'When an operator changed it, or it was disabled. Never null.';
COMMENT ON COLUMN upcall.hook_endpoints.version         IS 'hook_changes.version of its last change. Never null.';
COMMENT ON COLUMN upcall.hook_endpoints.confirmed       IS 'The version that the receiver which sends its deliveries works with. Never null.';

CREATE TABLE upcall.hook_retries (
    endpoint_id uuid        NOT NULL,
    event_id    uuid        NOT NULL,
    received_at timestamptz NOT NULL,
    kind        text        NOT NULL,
    reason      text        NOT NULL,
    attempts    integer     NOT NULL,
    due_at      timestamptz,
    status      integer,
    problem     text,
    failed_at   timestamptz,
    PRIMARY KEY (endpoint_id, event_id)
) WITH (fillfactor = 70);
CREATE INDEX hook_retries_due ON upcall.hook_retries (endpoint_id, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX hook_retries_dead ON upcall.hook_retries (endpoint_id, failed_at) WHERE due_at IS NULL;
CREATE INDEX hook_retries_event ON upcall.hook_retries (event_id);

COMMENT ON TABLE upcall.hook_retries IS 'Deliveries that failed and wait for the next attempt, or are dead letters.';
COMMENT ON COLUMN upcall.hook_retries.endpoint_id IS 'hook_endpoints.id. Never null.';
COMMENT ON COLUMN upcall.hook_retries.event_id    IS 'upload_events.id. Never null.';
COMMENT ON COLUMN upcall.hook_retries.received_at IS 'upload_events.received_at. Never null.';
COMMENT ON COLUMN upcall.hook_retries.kind        IS 'What is told of it, as recorded. Never null.';
COMMENT ON COLUMN upcall.hook_retries.reason      IS 'retry, or redelivery if an operator asked for it. Never null.';
COMMENT ON COLUMN upcall.hook_retries.attempts    IS 'How many attempts have failed. Never null.';
COMMENT ON COLUMN upcall.hook_retries.due_at      IS 'When it is tried again. Null for a dead letter.';
COMMENT ON COLUMN upcall.hook_retries.status      IS 'HTTP status of the last attempt. Null if there was no answer.';
COMMENT ON COLUMN upcall.hook_retries.problem     IS 'What was wrong with the last attempt. Null if there was none.';
COMMENT ON COLUMN upcall.hook_retries.failed_at   IS 'When the last attempt began. Null if there was none.';

CREATE TABLE upcall.hook_attempts (
    endpoint_id uuid        NOT NULL,
    event_id    uuid        NOT NULL,
    received_at timestamptz,
    reason      text        NOT NULL,
    attempt     integer     NOT NULL,
    at          timestamptz NOT NULL,
    delivered   boolean     NOT NULL,
    status      integer,
    took        interval    NOT NULL,
    problem     text,
    answer      text        NOT NULL
) PARTITION BY RANGE (at);
CREATE INDEX hook_attempts_endpoint ON upcall.hook_attempts (endpoint_id, at);
CREATE INDEX hook_attempts_successes ON upcall.hook_attempts (endpoint_id, at) WHERE delivered AND reason NOT IN ('test', 'redelivery');
CREATE INDEX hook_attempts_event ON upcall.hook_attempts (event_id);

-- The months of the next time. Receivers make later ones.
DO $$
DECLARE
    month timestamp := date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 month';
BEGIN
    FOR i IN 1..4 LOOP
        EXECUTE format('CREATE TABLE upcall.%I PARTITION OF upcall.hook_attempts FOR VALUES FROM (%L) TO (%L)',
            'hook_attempts_' || to_char(month, 'YYYY_MM'), month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC');
        month := month + interval '1 month';
    END LOOP;
END
$$;

COMMENT ON TABLE upcall.hook_attempts IS 'Attempts of the last 14 days: those that failed, tests, redeliveries, and the latest 100 of each endpoint that succeeded. Partitioned by month (UTC).';
COMMENT ON COLUMN upcall.hook_attempts.endpoint_id IS 'hook_endpoints.id. Never null.';
COMMENT ON COLUMN upcall.hook_attempts.event_id    IS 'upload_events.id; of a test, no event has it. Never null.';
COMMENT ON COLUMN upcall.hook_attempts.received_at IS 'upload_events.received_at. Null for a test.';
COMMENT ON COLUMN upcall.hook_attempts.reason      IS 'first, retry, probe, redelivery or test. Never null.';
COMMENT ON COLUMN upcall.hook_attempts.attempt     IS 'Number of the attempt, from 1; 0 for probes and tests. Never null.';
COMMENT ON COLUMN upcall.hook_attempts.at          IS 'When it began. Never null.';
COMMENT ON COLUMN upcall.hook_attempts.delivered   IS 'Whether the answer was a success. Never null.';
COMMENT ON COLUMN upcall.hook_attempts.status      IS 'HTTP status. Null if there was no answer.';
COMMENT ON COLUMN upcall.hook_attempts.took        IS 'From the beginning to the end of the answer. Never null.';
COMMENT ON COLUMN upcall.hook_attempts.problem     IS 'Why it failed. Null if it did not.';
COMMENT ON COLUMN upcall.hook_attempts.answer      IS 'The first KB of the answer. Never null.';

CREATE TABLE upcall.hook_counts (
    endpoint_id uuid        NOT NULL,
    hour        timestamptz NOT NULL,
    outcome     text        NOT NULL,
    attempts    bigint      NOT NULL,
    PRIMARY KEY (endpoint_id, hour, outcome)
) WITH (fillfactor = 50);

COMMENT ON TABLE upcall.hook_counts IS 'How many attempts each endpoint got in each hour. Tests are not counted.';
COMMENT ON COLUMN upcall.hook_counts.endpoint_id IS 'hook_endpoints.id. Never null.';
COMMENT ON COLUMN upcall.hook_counts.hour        IS 'Beginning of the hour in which they ended. Never null.';
COMMENT ON COLUMN upcall.hook_counts.outcome     IS 'delivered; failed, and is tried again; or dead, if it was the last. Never null.';
COMMENT ON COLUMN upcall.hook_counts.attempts    IS 'How many. Never null.';
