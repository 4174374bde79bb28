package cli

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/alecthomas/kong"
)

// settingTag is the struct tag that names a flag's environment variable. It replaces kong's
// own tag env, which always reads the process's environment, so that tests could not run in
// parallel.
const settingTag = "setting"

// none is how kong represents the struct tag sep:"none".
const none = -1

// settings makes kong read each flag with the tag setting:"NAME" from env if the command
// line leaves it out. An empty variable counts as not set. A repeatable flag with
// sep:"none" takes one value from each line of its variable; any other repeatable flag
// separates values as on the command line.
//
// The help shows the variable's name and never its value. It also shows the default of a
// flag with a placeholder, because kong itself shows only the placeholder.
func settings(env Env) []kong.Option {
	return []kong.Option{
		// kong's own mapper replaces what is not UTF-8, so that a key or a file would be another one.
		kong.KindMapper(reflect.String, kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
			token, err := ctx.Scan.PopValue("string")
			if err != nil {
				return err
			}
			target.SetString(fmt.Sprint(token.Value))
			return nil
		})),
		kong.Resolvers(kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
			name := flag.Tag.Get(settingTag)
			if name == "" || env[name] == "" {
				return nil, nil
			}
			if !flag.IsSlice() || flag.Tag.Sep != none {
				return env[name], nil
			}
			var values []any
			for line := range strings.Lines(env[name]) {
				if line = strings.TrimRight(line, "\r\n"); line != "" {
					values = append(values, line)
				}
			}
			return values, nil
		})),
		kong.ValueFormatter(explain),
	}
}
