package main

import (
	"strings"

	"upcall/internal/cli"
	"upcall/internal/fault"
	"upcall/internal/notify"
)

// notifyFlags are those of OSS's event notifications.
type notifyFlags struct {
	NotifyPath   string   `name:"notify-path" setting:"UPCALL_NOTIFY_PATH" default:"/oss/notify" placeholder:"PATH" help:"${notify_path}"`
	NotifyTopics []string `name:"notify-topics" setting:"UPCALL_NOTIFY_TOPICS" placeholder:"OWNER/TOPIC" help:"${notify_topics}"`
	NotifyToken  string   `name:"notify-token" placeholder:"TOKEN" help:"${notify_token}"`
}

// config returns the settings. What its caller checks is not in the error.
func (f *notifyFlags) config(env cli.Env) (notify.Config, error) {
	cfg := notify.Config{Path: strings.TrimSpace(f.NotifyPath)}
	var topics, token error
	cfg.Topics, topics = notify.ParseTopics(f.NotifyTopics)
	cfg.Token, token = cli.Secret(f.NotifyToken, env, "UPCALL_NOTIFY_TOKEN")
	return cfg, fault.Join(topics, token)
}
