package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const (
	// hookPause is that of each retry and of the breaker. After so many retries of which half
	// fail, there is no dead letter.
	hookPause, hookRetries = "100ms", 30
	// mostUncommitted is how many deliveries a receiver makes at most before it commits them.
	mostUncommitted = 1024
)

// A telling is all that is told of uploads: three applications by hooks, and a reader of the
// event API. The first fails half of the time. The second is paused in the middle, the third
// from the beginning to the end.
type telling struct {
	world                 *world
	flaky, napper, asleep *application
	reader                *reader
	limit                 time.Duration // until all are told
	digits                int           // events whose number ends with so many zeros are told of

	mu         sync.Mutex
	faults     []interruption
	killed     int // receivers that were killed while they delivered
	uncommited int // deliveries that were answered, but not committed, at most at one kill
	held       holding
}

// newTelling adds hooks and a key.
func newTelling(ctx context.Context, w *world, c command) (*telling, error) {
	t := &telling{world: w, limit: c.Settle}
	for total := c.Callbacks; total/10 >= max(c.Told, 1); total /= 10 {
		t.digits++
	}
	t.flaky, t.napper, t.asleep = newApplication("flaky", failsHalf), newApplication("napper", nil), newApplication("asleep", nil)
	for _, a := range t.applications() {
		out, err := w.command(ctx, "hooks", "add", "--name", a.name, "--url", a.server.URL, "--key-glob", "**/*"+t.suffix())
		if err != nil {
			return t, err
		}
		var added struct{ Secret string }
		if err := json.Unmarshal(out, &added); err != nil {
			return t, fmt.Errorf("add hook: %w", err)
		}
		if a.webhook, err = standardwebhooks.NewWebhook(added.Secret); err != nil {
			return t, fmt.Errorf("add hook: %w", err)
		}
	}
	key, err := w.command(ctx, "keys", "add", "--role", "viewer", "--id", "chaos")
	if err != nil {
		return t, err
	}
	t.reader = &reader{world: w, key: strings.TrimSpace(string(key))}
	return t, t.pause(ctx, t.asleep)
}

func (t *telling) applications() []*application { return []*application{t.flaky, t.napper, t.asleep} }

// suffix is that of the keys that hooks tell of.
func (t *telling) suffix() string { return strings.Repeat("0", t.digits) + ".jpg" }

func (t *telling) close() {
	for _, a := range t.applications() {
		a.close()
	}
}

// command runs a command of the receiver's program and returns what it printed.
func (w *world) command(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, w.program, args...)
	cmd.Env = append(os.Environ(), append(hookRules, "UPCALL_DATABASE_URL="+w.postgres.URL())...)
	var failure strings.Builder
	cmd.Stderr = &failure
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("receiver %s: %w: %s", strings.Join(args, " "), err, &failure)
	}
	return out, nil
}

// hookSchedule returns the pauses of retries.
func hookSchedule() string {
	return strings.TrimSuffix(strings.Repeat(hookPause+",", hookRetries), ",")
}

// hookRules let hooks reach applications on this machine.
var hookRules = []string{"UPCALL_HOOKS_ALLOW_HTTP=true", "UPCALL_HOOKS_ALLOW_CIDRS=127.0.0.0/8"}

func (t *telling) pause(ctx context.Context, a *application) error {
	if _, err := t.world.command(ctx, "hooks", "pause", a.name); err != nil {
		return err
	}
	a.paused()
	return nil
}

func (t *telling) resume(ctx context.Context, a *application) error {
	a.resuming()
	_, err := t.world.command(ctx, "hooks", "resume", a.name)
	return err
}

// An interruption is a fault after which events may be delivered a second time.
type interruption struct {
	name       string
	begin, end time.Time
	// left is what a receiver that was killed had delivered but not committed, by application.
	left map[*application]map[uuid.UUID]bool
	// timeline is the one that a failover began, 0 for other faults.
	timeline int
}

// interrupted notes a fault.
func (t *telling) interrupted(i interruption) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults = append(t.faults, i)
	most := 0
	for _, left := range i.left {
		most = max(most, len(left))
	}
	if len(i.left) > 0 {
		t.killed++
	}
	t.uncommited = max(t.uncommited, most)
}

// connect connects to PostgreSQL without the proxy.
func (w *world) connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, w.postgres.URL())
	if err != nil {
		return nil, fmt.Errorf("look into the database: %w", err)
	}
	return conn, nil
}

// holders returns which process delivers to each application, until when its lease is.
func (t *telling) holders(ctx context.Context) (map[*application]int, error) {
	conn, err := t.world.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	pids := make(map[*application]int)
	for _, a := range t.applications() {
		var pid int
		// A holder is named HOST/PID/RANDOM.
		err := conn.QueryRow(ctx, `SELECT split_part(lease_holder, '/', 2)::int FROM upcall.feed_consumers c
			JOIN upcall.hook_endpoints e ON c.name = 'hook/' || e.id
			WHERE e.name = $1 AND lease_until > clock_timestamp()`, a.name).Scan(&pid)
		if errors.Is(err, pgx.ErrNoRows) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look who delivers: %w", err)
		}
		pids[a] = pid
	}
	return pids, nil
}

// left returns what was delivered to an application but is not committed as such: it comes after
// the cursor, or there is still a row that says it failed. Nobody may be delivering to it.
func (t *telling) left(ctx context.Context, a *application) (map[uuid.UUID]bool, error) {
	conn, err := t.world.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, `
		SELECT e.id FROM upcall.upload_events e, (
			SELECT least(c.recorded_xid, later.since_xid) AS xid,
				CASE WHEN later.since_xid <= c.recorded_xid THEN '00000000-0000-0000-0000-000000000000' ELSE c.id END AS id
			FROM upcall.feed_consumers c JOIN upcall.hook_endpoints h ON c.name = 'hook/' || h.id
			LEFT JOIN LATERAL (SELECT since_xid FROM upcall.feed_timelines t
				WHERE t.timeline > c.timeline ORDER BY since_xid LIMIT 1) AS later ON true
			WHERE h.name = $1) AS place
		WHERE e.id = ANY ($2) AND (e.recorded_xid, e.id) > (place.xid, place.id)
		UNION
		SELECT event_id FROM upcall.hook_retries r JOIN upcall.hook_endpoints h ON h.id = r.endpoint_id
		WHERE h.name = $1 AND due_at IS NOT NULL AND event_id = ANY ($2)`, a.name, a.events())
	if err != nil {
		return nil, fmt.Errorf("look what was not committed: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return nil, fmt.Errorf("look what was not committed: %w", err)
	}
	left := make(map[uuid.UUID]bool, len(ids))
	for _, id := range ids {
		left[id] = true
	}
	return left, nil
}

// kill kills a receiver, starts it again after meanwhile has returned, and notes what it had not
// committed.
func (t *telling) kill(ctx context.Context, victim *receiver, meanwhile func() error) error {
	holders, err := t.holders(ctx)
	if err != nil {
		return err
	}
	i := interruption{name: "kill", begin: time.Now(), left: make(map[*application]map[uuid.UUID]bool)}
	pid := victim.cmd.Process.Pid
	victim.kill()
	if err := cmp.Or(meanwhile(), victim.start(ctx)); err != nil {
		return err
	}
	// What the dead receiver had sent to PostgreSQL has ended by now, and its leases have not,
	// so nobody else delivers.
	for a, holder := range holders {
		if holder != pid {
			continue
		}
		if i.left[a], err = t.left(ctx, a); err != nil {
			return err
		}
	}
	if i.end = time.Now(); i.end.Sub(i.begin) > 9*time.Second { // a lease is renewed with 10 s left
		i.name, i.left = "slow kill", nil
	}
	t.interrupted(i)
	return nil
}
