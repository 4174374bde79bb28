package receiver

import (
	"time"

	"upcall/internal/eventstore"
	"upcall/internal/reply"
	"upcall/internal/webhook"
)

// ReplyConfig configures the reply hook. The fields are as in reply.Config.
type ReplyConfig struct {
	URL     string
	Secret  webhook.Secret
	Timeout time.Duration
	// Replace makes the application's object the whole answer.
	Replace bool
}

func (r *ReplyConfig) config() reply.Config {
	return reply.Config{URL: r.URL, Secret: r.Secret, Timeout: r.Timeout}
}

// check returns all mistakes in the settings.
func (r *ReplyConfig) check() error {
	if r == nil {
		return nil
	}
	return r.config().Check()
}

// newReply returns what asks the application. Of a callback that came again it sends what the
// store has recorded.
func (cfg Config) newReply(store *eventstore.Recorder) (*reply.Hook, error) {
	config := cfg.Reply.config()
	config.Received, config.Logger, config.Now = store.ReceivedAt, cfg.Logger, cfg.Now
	return reply.New(config)
}
