package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"

	"upcall/internal/cli"
	"upcall/internal/fault"
	"upcall/migrations"
)

type queriesCommand struct {
	DatabaseURL string `name:"database-url" placeholder:"URL" help:"The database to ask. Default ${env}." env:"DATABASE_URL"`
	Page        string `default:"docs/queries.md" help:"The page that has the questions."`
	Runs        int    `default:"5" help:"How often each is asked, after once to warm up. The median counts."`
	From        string `placeholder:"TIME" help:"Where ranges of time of single uploads begin, instead of as on the page."`
	Lenient     bool   `help:"Do not fail if one takes longer than it may."`
}

var (
	errSlow = errors.New("a question takes longer than it may")

	// askedOnPage matches a question and its query, with what is between.
	askedOnPage = regexp.MustCompile("(?ms)^#### (\\d+)\\. ([^\n]*)$(.*?)^```sql\n(.*?)^```$")
	// withinOnPage says how long an answer may take. Others may take a second.
	withinOnPage = regexp.MustCompile(`<!-- within (\w+) -->`)
)

// weekBegins is how the page begins ranges of time.
const weekBegins = "'2026-10-25 00:00+08'"

// A question is one of the page.
type question struct {
	number, text, sql string
	within            time.Duration
}

// questionsOf returns the questions of a page.
func questionsOf(text string) (questions []question, err error) {
	for _, found := range askedOnPage.FindAllStringSubmatch(text, -1) {
		q := question{number: found[1], text: found[2], sql: found[4], within: time.Second}
		if within := withinOnPage.FindStringSubmatch(found[3]); within != nil {
			if q.within, err = time.ParseDuration(within[1]); err != nil {
				return nil, err
			}
		}
		questions = append(questions, q)
	}
	if len(questions) == 0 {
		return nil, errors.New("the page has no questions")
	}
	return questions, nil
}

// Run asks each question as an analyst, with the settings that a role gets by SET ROLE.
func (cmd *queriesCommand) Run(ctx context.Context, std cli.Stdio) error {
	if cmd.Runs < 1 {
		return cli.Usage(fault.At("--runs", "must be positive"))
	}
	text, err := os.ReadFile(cmd.Page)
	if err != nil {
		return cli.Usage(err)
	}
	if cmd.From != "" {
		text = []byte(strings.ReplaceAll(string(text), weekBegins, "'"+cmd.From+"'"))
	}
	questions, err := questionsOf(string(text))
	if err != nil {
		return cli.Usage(fmt.Errorf("%s: %w", cmd.Page, err))
	}
	config, err := migrations.ParseURL(cmd.DatabaseURL)
	if err != nil {
		return cli.Usage(err)
	}
	conn, err := pgx.ConnectConfig(ctx, config.ConnConfig)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := describe(ctx, std, conn); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "SET ROLE "+migrations.AnalystRole); err != nil {
		return err
	}
	table := tabwriter.NewWriter(std.Out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\tmedian\tslowest\tmay take\trows\t  question")
	slow := 0
	for _, q := range questions {
		median, slowest, rows, err := cmd.ask(ctx, conn, q)
		if err != nil {
			return fmt.Errorf("question %s: %w", q.number, err)
		}
		late := ""
		if median > q.within {
			slow++
			late = " (too slow)"
		}
		fmt.Fprintf(table, "%s\t%.1fms\t%.1fms\t%s\t%d\t  %s%s\n", q.number, milliseconds(median), milliseconds(slowest),
			q.within, rows, q.text, late)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if slow > 0 && !cmd.Lenient {
		return fmt.Errorf("%w: %d of %d", errSlow, slow, len(questions))
	}
	return nil
}

// describe prints what the times depend on.
func describe(ctx context.Context, std cli.Stdio, conn *pgx.Conn) error {
	var version, jit, buffers string
	var events int64
	err := conn.QueryRow(ctx, `SELECT current_setting('server_version'), current_setting('jit'), current_setting('shared_buffers'),
		(SELECT sum(reltuples)::bigint FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid
			WHERE i.inhparent = 'upcall.upload_events'::regclass AND reltuples > 0)`).Scan(&version, &jit, &buffers, &events)
	if err != nil {
		return err
	}
	fmt.Fprintf(std.Out, "PostgreSQL %s, about %d events, shared_buffers %s, jit %s, as %s\n",
		strings.Fields(version)[0], events, buffers, jit, migrations.AnalystRole)
	return nil
}

// ask asks once to warm up, and then for the times.
func (cmd *queriesCommand) ask(ctx context.Context, conn *pgx.Conn, q question) (median, slowest time.Duration, rows int64, err error) {
	var times []float64
	for run := range cmd.Runs + 1 {
		began := time.Now()
		results, err := conn.PgConn().Exec(ctx, q.sql).ReadAll()
		took := time.Since(began)
		if err != nil {
			return 0, 0, 0, err
		}
		if run == 0 {
			continue
		}
		rows = int64(len(results[0].Rows))
		times, slowest = append(times, float64(took)), max(slowest, took)
	}
	return time.Duration(middleOf(times)), slowest, rows, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
