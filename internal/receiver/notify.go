package receiver

import (
	"upcall/internal/intake"
	"upcall/internal/notify"
	"upcall/internal/recorder"
	"upcall/internal/verify"
)

// notify returns the settings of notifications with those that callbacks have, too.
func (cfg Config) notify() notify.Config {
	n := cfg.Notify
	n.Admission, n.Proxies, n.Logger, n.Now = cfg.Admission, cfg.Proxies, cfg.Logger, cfg.Now
	return n
}

// newNotifications returns what serves OSS's notifications, nil if they are off. Refusals go where
// those of callbacks go.
func (cfg Config) newNotifications(verifier *verify.Verifier, store *recorder.Failover, server *intake.Server) (*notify.Server, error) {
	n := cfg.notify()
	if !n.On() {
		return nil, nil
	}
	n.Verifier, n.Recorder, n.Refusals = verifier, store, server
	return notify.New(n)
}
