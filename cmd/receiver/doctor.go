package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"upcall/internal/admission"
	"upcall/internal/cli"
	"upcall/internal/dbcheck"
	"upcall/internal/doctor"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
)

type doctorCommand struct {
	File         string   `arg:"" optional:"" default:"-" placeholder:"FILE" help:"${capture}"`
	Format       string   `enum:"auto,raw,curl,har" default:"auto" placeholder:"FORMAT" help:"auto, raw, curl or har."`
	Entry        int      `placeholder:"N" help:"${entry}"`
	Body         string   `placeholder:"FILE" help:"File with the body, if the capture lacks it."`
	CallbackURL  string   `name:"callback-url" placeholder:"URL" help:"${callback_url}"`
	CallbackPath []string `setting:"UPCALL_CALLBACK_PATH" placeholder:"PATH" help:"${callback_path} Default any."`
	KeyURL       []string `name:"key-url" setting:"UPCALL_TRUST_KEY_URLS" placeholder:"URL" help:"${trust_key_urls}"`
	KeyFile      string   `placeholder:"FILE" help:"PEM file with an additional public key, in place of what its URL serves."`
	Token        string   `setting:"UPCALL_TOKEN" enum:"required,optional,off" default:"required" placeholder:"POLICY" help:"${token}"`
	At           string   `placeholder:"TIME" help:"${at}"`
	JSON         bool     `name:"json" help:"Print the report as JSON."`
	Database     bool     `help:"Examine the database instead of a callback."`
	database
	admissionFlags
}

// Help is shown by receiver doctor --help.
func (cmd *doctorCommand) Help() string {
	return `Without token keys, upload tokens are not checked.

With --database, it says what PostgreSQL really promises: a line for each finding, with what to do.
Exit status: 0 if it finds nothing, 1 if there is a finding or the database cannot be asked.

Exit status for a callback: 0 if the receiver would accept the callback as it is; 1 if it verifies only after a repair,
or not at all, or is refused for another reason; 2 if the flags or the capture cannot be read.`
}

// verdicts are the errors that end the program with status 1; the report says the rest.
var verdicts = map[doctor.Verdict]error{
	doctor.Verifies:    errors.New("the callback verifies, but is refused for another reason"),
	doctor.Repaired:    errors.New("the callback verifies only after a repair"),
	doctor.Refused:     errors.New("the callback does not verify"),
	doctor.CannotCheck: errors.New("the callback cannot be checked"),
}

func (cmd *doctorCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	if cmd.Database {
		return cmd.with(ctx, env, std, func(url string) error { return examineDatabase(ctx, url, std.Out) })
	}
	examiner, err := cmd.doctor(env, std.In)
	if err != nil {
		return cli.Usage(err)
	}
	capture, err := cmd.capture(std.In)
	if err != nil {
		return cli.Usage(err)
	}
	report, err := examiner.Examine(ctx, capture)
	if err != nil {
		return err
	}
	if err := cmd.print(std.Out, report); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	if report.Accepted {
		return nil
	}
	return verdicts[report.Verdict]
}

// errFindings ends the program with status 1.
var errFindings = errors.New("the database promises less than it could")

// examineDatabase prints a line for each finding.
func examineDatabase(ctx context.Context, url string, out io.Writer) error {
	pool, err := eventstore.Open(ctx, url)
	if err != nil {
		return err
	}
	defer pool.Close()
	findings, err := dbcheck.Check(ctx, pool, time.Now)
	if err != nil {
		return cmp.Or(eventstore.Mistake(err), err)
	}
	for _, f := range findings {
		if _, err := fmt.Fprintln(out, f); err != nil {
			return fmt.Errorf("print findings: %w", err)
		}
	}
	if len(findings) > 0 {
		return errFindings
	}
	_, err = fmt.Fprintln(out, "ok")
	return err
}

func (cmd *doctorCommand) print(out io.Writer, report *doctor.Report) error {
	if !cmd.JSON {
		return report.Write(out)
	}
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(report)
}

// doctor reads every setting and reports all mistakes at once.
func (cmd *doctorCommand) doctor(env cli.Env, in io.Reader) (*doctor.Doctor, error) {
	cfg := doctor.Config{TrustKeyURLs: cmd.KeyURL, CallbackURL: cmd.CallbackURL}
	var faults fault.List
	var err error
	cfg.Admission, err = cmd.admission(env)
	faults.Add(err)
	cfg.Admission.CallbackPaths, cfg.Admission.TokenPolicy = trimmed(cmd.CallbackPath), admission.TokenPolicy(cmd.Token)
	if cmd.At != "" {
		if cfg.At, err = time.Parse(time.RFC3339, cmd.At); err != nil {
			faults.AddAt("--at", "%q is not of the form 2006-01-02T15:04:05Z", cmd.At)
		}
	}
	if cmd.KeyFile != "" {
		cfg.Key, err = readFile(cmd.KeyFile, in)
		faults.Add(err)
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return doctor.New(cfg)
}

// capture reads the captured request.
func (cmd *doctorCommand) capture(in io.Reader) (*doctor.Capture, error) {
	if cmd.File == "-" && cmd.Body == "-" {
		return nil, errors.New("the capture and the body cannot both come from standard input: name a file for one of them")
	}
	file, err := readFile(cmd.File, in)
	if err != nil {
		return nil, err
	}
	capture, err := doctor.Parse(file, doctor.Format(cmd.Format), cmd.Entry)
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", cmd.File, err)
	}
	if cmd.Body != "" {
		if capture.Body, err = readFile(cmd.Body, in); err != nil {
			return nil, err
		}
		capture.NoBody = false
	}
	return capture, nil
}

// readFile reads a file, or in if its name is -, up to the size of the largest capture.
func readFile(name string, in io.Reader) ([]byte, error) {
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		in = file
	}
	content, err := io.ReadAll(io.LimitReader(in, doctor.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", name, err)
	}
	if len(content) > doctor.MaxFile {
		return nil, fmt.Errorf("%q is larger than 16 MiB: cut it down to the callback", name)
	}
	return content, nil
}
