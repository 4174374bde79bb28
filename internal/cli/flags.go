package cli

import (
	"strings"

	"github.com/alecthomas/kong"
)

// settingTag is the struct tag that names the environment variable behind a flag. It
// stands in place of kong's own tag env, which reads the process's environment whatever
// the program was given, so that no test could run beside another.
const settingTag = "setting"

// none is what kong makes of the struct tag sep:"none".
const none = -1

// settings makes kong fill in, from env, each flag that the command line leaves out and
// that has the tag setting:"NAME". A variable that is empty counts as not set. A flag
// that may be given several times and has sep:"none" takes one value from each line of
// its variable; another is separated in its variable as on the command line.
// The help shows the variable's name and never its value. It shows the default of a flag
// that has a placeholder, in whose place kong would show it otherwise.
func settings(env Env) []kong.Option {
	return []kong.Option{
		kong.Resolvers(kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
			name := flag.Tag.Get(settingTag)
			if name == "" || env(name) == "" {
				return nil, nil
			}
			if !flag.IsSlice() || flag.Tag.Sep != none {
				return env(name), nil
			}
			var values []any
			for line := range strings.Lines(env(name)) {
				if line = strings.TrimRight(line, "\r\n"); line != "" {
					values = append(values, line)
				}
			}
			return values, nil
		})),
		kong.ValueFormatter(func(value *kong.Value) string {
			if value.Help == "" {
				return ""
			}
			text := strings.TrimSuffix(value.Help, ".")
			if value.HasDefault && value.Tag.PlaceHolder != "" {
				text += ". Default " + value.Default
			}
			if name := value.Tag.Get(settingTag); name != "" {
				text += " ($" + name + ")"
			}
			return text + "."
		}),
	}
}
