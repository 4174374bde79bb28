// Issuer hands out presigned OSS upload URLs whose callback is tied to the upload.
package main

import (
	"context"

	"github.com/alecthomas/kong"

	"upcall/internal/cli"
)

func main() { cli.Main("issuer", run) }

// commands is the command line.
type commands struct {
	Put       putCommand       `cmd:"" help:"Presign one upload: a PUT to OSS that ends in a callback."`
	Form      formCommand      `cmd:"" help:"Sign a form with which a web page uploads to OSS."`
	Multipart multipartCommand `cmd:"" help:"Create, complete or abort a multipart upload."`
	Upload    uploadCommand    `cmd:"" help:"Upload files, large ones in parallel parts, and print their callbacks' results."`
	Check     checkCommand     `cmd:"" help:"Upload a small object to find out which link between here and the receiver is broken."`
	Serve     serveCommand     `cmd:"" help:"Run the HTTP API that issues uploads to applications."`
	Keys      keysCommand      `cmd:"" help:"Create, list and revoke the API keys of issuer serve."`
	cli.ScriptCommands
}

const description = `Hands out presigned OSS upload URLs whose callback is tied to the upload.

Credentials come from OSS_ACCESS_KEY_ID, OSS_ACCESS_KEY_SECRET and, for temporary ones, OSS_SESSION_TOKEN.
A profile, a RAM role or a command can provide them instead; see the flags of a command.
Callbacks carry an upload token if UPCALL_TOKEN_KEYS is set: kid:secret[,kid:secret]. The first key signs.
Each of these can come from a file instead, which a variable of the same name with _FILE at the end names.`

// run is everything but signals and the exit code.
func run(ctx context.Context, args []string, env cli.Env, std cli.Stdio) error {
	return cli.Program{
		Name:        "issuer",
		Description: description,
		Groups: []kong.Group{
			{Key: "service", Title: "The service:"},
			{Key: "database", Title: "The database:"},
			{Key: "upload", Title: "The upload:"},
			{Key: "callback", Title: "The callback:"},
			{Key: "oss", Title: "Access to OSS:"},
			{Key: "output", Title: "The output:"},
		},
		Vars: helpTexts().CloneWith(cli.OSSHelp()),
	}.Run(ctx, &commands{}, args, env, std)
}
