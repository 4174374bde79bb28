package main

import (
	"strings"

	"upcall/internal/cli"
	"upcall/internal/fault"
	"upcall/internal/stream"
)

// streamFlags say where the stream is.
type streamFlags struct {
	StreamURL       string `name:"stream-url" placeholder:"URL" help:"${stream_url}"`
	StreamCredsFile string `name:"stream-creds-file" setting:"UPCALL_STREAM_CREDS_FILE" placeholder:"PATH" help:"${stream_creds}"`
	StreamName      string `name:"stream-name" setting:"UPCALL_STREAM_NAME" default:"UPCALL" placeholder:"NAME" help:"${stream_name}"`
}

// streamServeFlags are those of a receiver.
type streamServeFlags struct {
	streamFlags
	StreamMode       string `name:"stream-mode" setting:"UPCALL_STREAM_MODE" default:"fallback" placeholder:"MODE" help:"${stream_mode}"`
	StreamMaxBytes   int64  `name:"stream-max-bytes" setting:"UPCALL_STREAM_MAX_BYTES" default:"8589934592" placeholder:"BYTES" help:"${stream_max}"`
	StreamMonitorURL string `name:"stream-monitor-url" setting:"UPCALL_STREAM_MONITOR_URL" placeholder:"URL" help:"${stream_monitor}"`
}

// config returns the settings, nil if there is no stream. What its caller checks is not in the error.
func (f *streamFlags) config(env cli.Env) (*stream.Config, error) {
	url, err := cli.Secret(f.StreamURL, env, "UPCALL_STREAM_URL")
	if err != nil || url == "" {
		return nil, err
	}
	return &stream.Config{URL: url, CredsFile: strings.TrimSpace(f.StreamCredsFile), Name: strings.TrimSpace(f.StreamName)}, nil
}

// config returns the settings, and whether the stream is in front of PostgreSQL.
func (f *streamServeFlags) config(env cli.Env) (cfg *stream.Config, front bool, err error) {
	cfg, err = f.streamFlags.config(env)
	faults := checkCounts(count{"UPCALL_STREAM_MAX_BYTES", f.StreamMaxBytes, 1, "give a limit: a full disk stops the servers"})
	faults.Add(err)
	mode := strings.TrimSpace(f.StreamMode)
	if mode != "fallback" && mode != "front" {
		faults.AddNew(nil, "UPCALL_STREAM_MODE", "write fallback or front", "%s is neither", fault.Quote(mode))
	}
	if cfg != nil {
		cfg.MaxBytes, cfg.MonitorURL = f.StreamMaxBytes, strings.TrimSpace(f.StreamMonitorURL)
	}
	return cfg, mode == "front", faults.Err()
}
