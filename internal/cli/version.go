package cli

import (
	"fmt"

	"github.com/alecthomas/kong"

	"upcall/internal/buildinfo"
)

// rootFlags are those that each program has.
type rootFlags struct {
	Version versionFlag `help:"Show the version, commit and date of this build."`
}

type versionFlag bool

// BeforeReset prints the version and ends the program. kong calls it before it looks for mistakes, as
// it does for --help.
func (versionFlag) BeforeReset(app *kong.Kong) error {
	_, err := fmt.Fprintln(app.Stdout, app.Model.Name, buildinfo.Current())
	app.Exit(0)
	return err
}
