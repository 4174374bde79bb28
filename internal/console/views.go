package console

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/google/uuid"
)

// health shows how this receiver is.
func (c *Console) health(w http.ResponseWriter, v *visit) {
	health := v.get(w, "/v1/health", nil)
	if health == nil {
		return
	}
	// Without the database there are no consumers to show, and all the more of the rest.
	status, log := v.call(http.MethodGet, "/v1/consumers", nil, nil)
	if status != http.StatusOK {
		log = nil
	}
	v.show(w, http.StatusOK, "health", "Health", object{"health": health, "log": log, "names": v.names()})
}

// names returns the names of endpoints by their ids, as far as they can be read.
func (v *visit) names() object {
	names := make(object)
	if status, answer := v.call(http.MethodGet, "/v1/hooks", nil, nil); status == http.StatusOK {
		for _, one := range answer["hooks"].([]any) {
			hook := one.(object)
			names[hook["id"].(string)] = hook["name"]
		}
	}
	return names
}

// events shows events as they come, and the search.
func (c *Console) events(w http.ResponseWriter, v *visit) {
	filter := make(url.Values)
	for _, name := range []string{"bucket", "key_prefix"} {
		if text := strings.TrimSpace(v.URL.Query().Get(name)); text != "" {
			filter.Set(name, text)
		}
	}
	v.show(w, http.StatusOK, "events", "Events", object{"filter": filter, "stream": Prefix + "events/stream?" + filter.Encode()})
}

// stream passes the API's stream on, from now on.
func (c *Console) stream(w http.ResponseWriter, v *visit) {
	query := v.URL.Query()
	if v.Header.Get("Last-Event-ID") == "" && query.Get("after") == "" {
		query.Set("after", "now")
	}
	r := v.Clone(v.Context())
	r.URL = &url.URL{Path: "/v1/events/stream", RawQuery: query.Encode()}
	c.cfg.API.ServeAs(w, r, c.who(v.session))
}

var (
	requestID = regexp.MustCompile(`^[0-9A-Fa-f]{24}$`)
	variable  = regexp.MustCompile(`^([A-Za-z0-9_.-]{1,64})=(.+)$`)
)

// search finds uploads by whatever was typed: the id of an upload, a request id of OSS, a variable, or else an object key.
func (c *Console) search(w http.ResponseWriter, v *visit) {
	query, text := make(url.Values), strings.TrimSpace(v.URL.Query().Get("q"))
	if id := v.URL.Query().Get("event_id"); id != "" { // from the list of attempts
		query.Set("event_id", id)
		query.Set("received_at", v.URL.Query().Get("received_at"))
		text = id
	} else if id, err := uuid.Parse(text); err == nil {
		http.Redirect(w, v.Request, Prefix+"uploads/"+id.String(), http.StatusSeeOther)
		return
	} else if found := variable.FindStringSubmatch(text); found != nil && v.URL.Query().Get("by") != "key" {
		query.Set("var."+found[1], found[2])
	} else if requestID.MatchString(text) {
		query.Set("request_id", strings.ToUpper(text))
	} else if text != "" {
		query.Set("key", text)
	}
	if len(query) == 0 {
		http.Redirect(w, v.Request, Prefix+"events", http.StatusSeeOther)
		return
	}
	answer := v.get(w, "/v1/uploads", query)
	if answer != nil {
		v.show(w, http.StatusOK, "uploads", "Uploads", object{"q": text, "uploads": answer["uploads"]})
	}
}

// story shows one upload.
func (c *Console) story(w http.ResponseWriter, v *visit) {
	if answer := v.get(w, "/v1/uploads/"+v.PathValue("id"), nil); answer != nil {
		v.show(w, http.StatusOK, "uploads", "Upload", object{"q": v.PathValue("id"), "uploads": []any{answer}})
	}
}

// refusals shows refused callbacks by reason.
func (c *Console) refusals(w http.ResponseWriter, v *visit) {
	query, reason := make(url.Values), v.URL.Query().Get("reason")
	if reason != "" {
		query.Set("reason", reason)
	}
	answer := v.get(w, "/v1/refusals", query)
	if answer == nil {
		return
	}
	query.Set("limit", "50")
	status, captured := v.call(http.MethodGet, "/v1/refusals/captured", query, nil)
	switch status {
	case http.StatusOK:
		answer["captured"], answer["verdicts"] = captured["captured"], verdicts(captured)
	case http.StatusNotFound: // captures are off
		answer["captured"], answer["verdicts"] = nil, object{}
	default: // the rows are true without them
		if captured == nil {
			captured = problem(http.StatusText(status), "")
		}
		answer["captured"], answer["verdicts"], answer["captures_problem"] = nil, object{}, captured
	}
	answer["reason"] = reason
	v.show(w, http.StatusOK, "refusals", "Refusals", answer)
}

// verdicts returns the captures of a list by their names.
func verdicts(list object) object {
	byName := make(object)
	for _, one := range list["captured"].([]any) {
		byName[one.(object)["name"].(string)] = one
	}
	return byName
}

// capture shows what the doctor says about a captured callback.
func (c *Console) capture(w http.ResponseWriter, v *visit) {
	if answer := v.get(w, "/v1/refusals/captured/"+url.PathEscape(v.PathValue("name")), nil); answer != nil {
		v.show(w, http.StatusOK, "capture", "Captured callback", answer)
	}
}

// loss shows comparisons of buckets with the log, and losses by day.
func (c *Console) loss(w http.ResponseWriter, v *visit) {
	runs := v.get(w, "/v1/reconcile/runs", url.Values{"limit": {"50"}})
	if runs == nil {
		return
	}
	if days := v.get(w, "/v1/loss", nil); days != nil {
		v.show(w, http.StatusOK, "loss", "Losses", object{"runs": runs["runs"], "days": days["days"]})
	}
}

// spool shows what the spool of this receiver holds, or the stream.
func (c *Console) spool(w http.ResponseWriter, v *visit) {
	status, answer := v.call(http.MethodGet, "/v1/spool", nil, nil)
	switch status {
	case http.StatusOK:
		title := "Spool"
		if answer["spool"].(object)["kind"] == "stream" {
			title = "Stream"
		}
		v.show(w, status, "spool", title, answer)
	case http.StatusNotFound:
		v.show(w, http.StatusOK, "spool", "Spool", object{"spool": nil, "dead_letters": nil})
	default:
		v.problem(w, status, answer)
	}
}
