// Ossemu is the OSS emulator as a program: see package ossemu.
package main

import (
	"context"
	"strings"

	"github.com/alecthomas/kong"

	"upcall/internal/cli"
	"upcall/internal/ossemu"
)

func main() { cli.Main("ossemu", run) }

const description = "An emulator of Alibaba Cloud OSS that calls back after uploads. " +
	"Each flag shows its variable; the flag takes precedence."

// commands is the command line.
type commands struct {
	Serve       serveCommand       `cmd:"" default:"withargs" help:"Run the emulator (the default)."`
	Healthcheck healthcheckCommand `cmd:"" help:"Check that an emulator is running: exit code 0 or 1."`
	cli.ScriptCommands
}

// run is everything but signals and the exit code.
func run(ctx context.Context, args []string, env cli.Env, std cli.Stdio) error {
	return cli.Program{Name: "ossemu", Description: description, Vars: helpTexts()}.Run(ctx, &commands{}, args, env, std)
}

// helpTexts are the longer help texts of flags, by their names in the flags' tags.
func helpTexts() kong.Vars {
	rule := ossemu.DefaultCORS()
	return kong.Vars{
		"methods":         strings.Join(rule.Methods, ","),
		"allowed_origins": "Older name of --cors-origins.",
		"cors_expose":     "Response headers that scripts may read.",
		"cors_headers":    "Request headers that browsers may send, each with at most one *.",
		"cors_age":        "How long browsers may cache the answer to a preflight. 0s leaves it to them.",
		"cors_methods":    "Methods that browsers may use.",
		"cors_origins": "Origins that browsers may upload from, each with at most one *. " +
			"none: the buckets have no CORS rule, like new buckets of OSS.",
		"expose": strings.Join(rule.Expose, ","),

		"topic": ossemu.DefaultTopic,
		"notify_url": "Where events are pushed to when an object is created or removed, as OSS and MNS do it. " +
			"Default none.",
		"notify_topic":  "Account and name of the topic that events come from.",
		"notify_format": "Body of a push: XML, JSON or SIMPLIFIED, which is the event alone.",
		"notify_delay":  "Time between storing an object and pushing its event.",

		"access_key_id": "The only access key ID that exists.",
		"access_key_secret": "Its secret. Default ossemu-secret. " +
			"Better in OSSEMU_ACCESS_KEY_SECRET or a file that OSSEMU_ACCESS_KEY_SECRET_FILE names.",
		"public_url": "Address at which receivers fetch the public key. By default that of the listener.",
		"security_token": "STS token that requests must carry. Default none. " +
			"Better in OSSEMU_SECURITY_TOKEN or a file that OSSEMU_SECURITY_TOKEN_FILE names.",
	}
}
