package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"upcall/internal/cli"
	"upcall/internal/fault"
	"upcall/migrations"
)

type indexCommand struct {
	Add    indexAddCommand    `cmd:"" help:"Make queries by one variable quick, while receivers record."`
	List   indexListCommand   `cmd:"" help:"List the indexes on variables."`
	Remove indexRemoveCommand `cmd:"" help:"Drop the index on a variable."`
}

// onIndex runs work on the index of a variable, and explains its mistakes.
func (d *database) onIndex(ctx context.Context, env cli.Env, std cli.Stdio, variable string,
	work func(url string, report migrations.Report) error,
) error {
	_, urlErr := d.required(env)
	if err := fault.Join(fault.In("NAME", migrations.CheckVariable(variable)), urlErr); err != nil {
		return cli.Usage(err)
	}
	return d.with(ctx, env, std, func(url string) error {
		report := migrations.Report{Line: func(line string) { fmt.Fprintln(std.Err, line) }}
		bar := cli.NewBar(std.Err)
		defer bar.End()
		if cli.IsTerminal(std.Err) {
			report.Bar = bar.Set
		}
		err := work(url, report)
		bar.End()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, migrations.ErrNoIndex):
			return cli.Usage(fault.New(err, "NAME", "see receiver index list", "there is no index on the variable %q", variable))
		case ctx.Err() != nil:
			return fmt.Errorf("interrupted; run receiver index add again to continue, or receiver index remove: %w", context.Cause(ctx))
		}
		return fault.OneLine(err)
	})
}

type indexAddCommand struct {
	database
	Name string `arg:"" help:"The variable's name in vars, as uid."`
}

// Help is shown below the summary of the command.
func (*indexAddCommand) Help() string {
	return `Makes WHERE vars->>'uid' = '42' quick, in upcall.upload_log as in upcall.upload_events, on every month that
is there and on those to come. Receivers go on recording meanwhile. If it is interrupted, run it again.

Run it with the role that owns the tables, and not through a pooler. Each index makes every callback
dearer, so index only what is asked for often: see docs/analysts.md for what it costs.`
}

// indexCost is what was measured; see docs/analysts.md.
const indexCost = "each callback costs about 2 to 7 % more CPU time with it, as measured; see docs/analysts.md"

func (cmd *indexAddCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	return cmd.onIndex(ctx, env, std, cmd.Name, func(url string, report migrations.Report) error {
		made, err := migrations.AddVariableIndex(ctx, url, cmd.Name, report)
		if err != nil {
			return err
		}
		fmt.Fprintf(std.Out, "the variable %s is indexed: %d partitions, %s on disk\n",
			fault.Readable(cmd.Name), made.Partitions, megabytes(made.Bytes))
		fmt.Fprintln(std.Err, "receiver: "+indexCost)
		return nil
	})
}

type indexListCommand struct {
	database
	Format string `enum:"text,json" default:"text" help:"text or json."`
}

func (cmd *indexListCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	return cmd.with(ctx, env, std, func(url string) error {
		all, err := migrations.VariableIndexes(ctx, url)
		if err != nil {
			return fault.OneLine(err)
		}
		type shown struct {
			Variable   string `json:"variable"`
			State      string `json:"state"`
			Partitions int    `json:"partitions"`
			Missing    int    `json:"missing"`
			Bytes      int64  `json:"bytes"`
			Scans      int64  `json:"scans"`
			Index      string `json:"index"`
		}
		list := make([]shown, 0, len(all))
		for _, one := range all {
			state := "ready"
			if one.Missing > 0 {
				state = "incomplete"
			}
			list = append(list, shown{one.Variable, state, one.Partitions, one.Missing, one.Bytes, one.Scans, one.Name})
		}
		if cmd.Format == "json" {
			return printJSON(std.Out, list)
		}
		table := tabwriter.NewWriter(std.Out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "VARIABLE\tSTATE\tSIZE\tSCANS\tINDEX")
		for _, s := range list {
			state := s.State
			if s.Missing > 0 {
				state += fmt.Sprintf(": %d of %d partitions are missing; run receiver index add again", s.Missing, s.Partitions)
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\n", fault.Readable(s.Variable), state, megabytes(s.Bytes), s.Scans, s.Index)
		}
		if err := table.Flush(); err != nil {
			return fmt.Errorf("write indexes: %w", err)
		}
		return nil
	})
}

type indexRemoveCommand struct {
	database
	Name string `arg:"" help:"The variable's name in vars, as uid."`
}

func (cmd *indexRemoveCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	return cmd.onIndex(ctx, env, std, cmd.Name, func(url string, report migrations.Report) error {
		if err := migrations.RemoveVariableIndex(ctx, url, cmd.Name, report); err != nil {
			return err
		}
		fmt.Fprintf(std.Err, "receiver: dropped the index on the variable %s\n", fault.Readable(cmd.Name))
		return nil
	})
}

// megabytes writes a size as people read it.
func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
