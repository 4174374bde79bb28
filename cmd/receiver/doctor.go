package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"upcall/internal/admission"
	"upcall/internal/callbackspec"
	"upcall/internal/cli"
	"upcall/internal/doctor"
	"upcall/internal/fault"
)

type doctorCommand struct {
	File         string   `arg:"" optional:"" default:"-" placeholder:"FILE" help:"${capture}"`
	Format       string   `enum:"auto,raw,curl,har" default:"auto" placeholder:"FORMAT" help:"auto, raw, curl or har."`
	Entry        int      `placeholder:"N" help:"${entry}"`
	Body         string   `placeholder:"FILE" help:"File with the body, if the capture lacks it."`
	CallbackURL  string   `name:"callback-url" placeholder:"URL" help:"${callback_url}"`
	PublicURL    string   `name:"public-url" setting:"UPCALL_PUBLIC_URL" placeholder:"URL" help:"As for serve."`
	CallbackPath string   `setting:"UPCALL_CALLBACK_PATH" placeholder:"PATH" help:"As for serve. Default any path."`
	KeyURL       []string `name:"key-url" setting:"UPCALL_TRUST_KEY_URLS" placeholder:"URL" help:"${trust_key_urls}"`
	KeyFile      string   `placeholder:"FILE" help:"PEM file with an additional public key, in place of what its URL serves."`
	TokenKeys    string   `placeholder:"KID:SECRET,…" help:"${doctor_token_keys}"`
	Token        string   `setting:"UPCALL_TOKEN" enum:"required,optional,off" default:"required" placeholder:"POLICY" help:"As for serve."`
	Buckets      []string `setting:"UPCALL_BUCKETS" placeholder:"NAME" help:"As for serve. Default any."`
	Fields       string   `setting:"UPCALL_FIELDS" placeholder:"NAME=VARIABLE,…" help:"As for serve."`
	At           string   `placeholder:"TIME" help:"${at}"`
	JSON         bool     `name:"json" help:"Print the report as JSON."`
}

// Help is shown by receiver doctor --help.
func (cmd *doctorCommand) Help() string {
	return `Exit status: 0 if the receiver would accept the callback as it is; 1 if it verifies only after a repair,
or not at all, or is refused for another reason; 2 if flags or capture cannot be read.`
}

// verdicts end the program with status 1; the report has said the rest.
var verdicts = map[doctor.Verdict]error{
	doctor.Verifies:    errors.New("the callback verifies, but is refused for another reason"),
	doctor.Repaired:    errors.New("the callback verifies only after a repair"),
	doctor.Refused:     errors.New("the callback does not verify"),
	doctor.CannotCheck: errors.New("the callback cannot be checked"),
}

func (cmd *doctorCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	cfg, err := cmd.config(env, std.In)
	if err != nil {
		return cli.Usage(err)
	}
	examiner, err := doctor.New(cfg)
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

func (cmd *doctorCommand) print(out io.Writer, report *doctor.Report) error {
	if !cmd.JSON {
		return report.Write(out)
	}
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(report)
}

// config reads every setting and reports all mistakes at once.
func (cmd *doctorCommand) config(env cli.Env, in io.Reader) (doctor.Config, error) {
	var faults fault.List
	cfg := doctor.Config{
		Admission: admission.Config{
			CallbackPath: cmd.CallbackPath,
			PublicURL:    cmd.PublicURL,
			Buckets:      cmd.Buckets,
			TokenPolicy:  admission.TokenPolicy(cmd.Token),
		},
		TrustKeyURLs: cmd.KeyURL,
		CallbackURL:  cmd.CallbackURL,
	}
	tokens, err := cli.TokenKeys(cmd.TokenKeys, env)
	faults.Add(err)
	cfg.Admission.Tokens = tokens
	cfg.Admission.Fields, err = callbackspec.ParseFields(cmd.Fields)
	faults.Add(err)
	if cmd.At != "" {
		cfg.At, err = time.Parse(time.RFC3339, cmd.At)
		if err != nil {
			faults.Add(fmt.Errorf("--at %q is not of the form 2006-01-02T15:04:05Z", cmd.At))
		}
	}
	if cmd.KeyFile != "" {
		cfg.Key, err = readFile(cmd.KeyFile, in)
		faults.Add(err)
	}
	return cfg, faults.Err()
}

// capture reads the captured request.
func (cmd *doctorCommand) capture(in io.Reader) (*doctor.Capture, error) {
	if cmd.File == "-" && cmd.Body == "-" {
		return nil, errors.New("capture and body cannot both be standard input: name a file for one of them")
	}
	file, err := readFile(cmd.File, in)
	if err != nil {
		return nil, err
	}
	capture, err := doctor.Parse(file, doctor.Format(cmd.Format), cmd.Entry)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", strconv.Quote(cmd.File), err)
	}
	if cmd.Body != "" {
		if capture.Body, err = readFile(cmd.Body, in); err != nil {
			return nil, err
		}
		capture.NoBody = false
	}
	return capture, nil
}

// readFile reads a file, or in if it is called -, up to more than any capture may be.
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
		return nil, fmt.Errorf("read %s: %w", strconv.Quote(name), err)
	}
	if len(content) > doctor.MaxFile {
		return nil, fmt.Errorf("%s is larger than 16 MiB: cut it down to the callback", strconv.Quote(name))
	}
	return content, nil
}
