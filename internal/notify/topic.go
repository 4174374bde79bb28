package notify

import (
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"upcall/internal/admission"
	"upcall/internal/fault"
)

// A Topic of MNS belongs to an account.
type Topic struct {
	Owner string // the account's number
	Name  string
}

// ParseTopics reads topics as OWNER/TOPIC. The error lists all mistakes.
func ParseTopics(list []string) ([]Topic, error) {
	var topics []Topic
	var faults fault.List
	for _, written := range list {
		written = strings.TrimSpace(written)
		if written == "" {
			continue
		}
		owner, name, _ := strings.Cut(written, "/")
		switch topic := (Topic{owner, name}); {
		case owner == "" || strings.Trim(owner, "0123456789") != "":
			faults.AddNew(nil, "UPCALL_NOTIFY_TOPICS", "write OWNER/TOPIC, as 1321669497458181/oss-events",
				"%s does not begin with the number of the account that owns the topic", fault.Quote(written))
		case name == "" || len(name) > maxText || strings.ContainsFunc(name, notInTopic):
			faults.AddNew(nil, "UPCALL_NOTIFY_TOPICS", "write OWNER/TOPIC, as 1321669497458181/oss-events",
				"%s does not end with the name of a topic", fault.Quote(written))
		case slices.Contains(topics, topic):
			faults.AddNew(nil, "UPCALL_NOTIFY_TOPICS", "name each topic once", "%s is there twice", written)
		default:
			topics = append(topics, topic)
		}
	}
	return topics, faults.Err()
}

func notInTopic(c rune) bool {
	return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_')
}

// Why a notification is refused, besides the reasons of package admission.
const (
	ReasonTopicMissing admission.Reason = "topic_missing"
	ReasonTopicForeign admission.Reason = "topic_foreign"
	ReasonBridgeToken  admission.Reason = "bridge_token"
	ReasonEventTime    admission.Reason = "event_time"
)

// checkTopic compares the topic of a genuine push. MNS signs for all its customers with one
// key, so without this check anyone could have a topic of their own pushed here.
//
// The headers name it, and are signed. For some subscriptions MNS leaves them out; then the body
// counts if MNS has written it. In the format SIMPLIFIED the body is what someone has published,
// and could look like a body that names our topic. That format has type text/plain, and a
// message id in the headers.
func (s *Server) checkTopic(signed http.Header, body Topic) *admission.Refusal {
	header := textproto.MIMEHeader(signed)
	topic := Topic{header.Get("X-Mns-Topic-Owner"), header.Get("X-Mns-Topic-Name")}
	simplified := header.Get(messageID) != "" || strings.HasPrefix(strings.ToLower(header.Get("Content-Type")), "text/plain")
	if topic == (Topic{}) && !simplified {
		topic = body
	}
	switch {
	case topic.Owner == "" || topic.Name == "":
		return &admission.Refusal{Code: admission.BadSignature, Reason: ReasonTopicMissing,
			Message: "nothing that MNS has written says which topic this is from"}
	case !slices.Contains(s.cfg.Topics, topic):
		return &admission.Refusal{Code: admission.BadSignature, Reason: ReasonTopicForeign,
			Message: "this receiver does not accept notifications of that topic"}
	}
	return nil
}
