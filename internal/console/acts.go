package console

import (
	"net/http"
	"net/url"
	"strings"
)

// An act is what an operator can do with an endpoint. One that asks is done only after a second, explicit yes, which the server
// demands: a page without scripts asks as well.
type act struct {
	label  string
	asks   string // the question; "" if it does no harm
	method string
	path   string // after that of the endpoint
}

var hookActs = map[string]act{
	"test":      {"Send a sample", "", http.MethodPost, "/test"},
	"resume":    {"Resume", "", http.MethodPost, "/resume"},
	"pause":     {"Pause", "No delivery begins until it is resumed. What comes meanwhile waits.", http.MethodPost, "/pause"},
	"rotate":    {"Rotate the secret", "A new secret signs from now on. The former one signs as well for the time that you give.", http.MethodPost, "/rotate"},
	"redeliver": {"Send again", "The application gets these messages again, with the same ids.", http.MethodPost, "/redeliver"},
	"remove":    {"Remove", "The endpoint is removed with all that waits for it. This cannot be undone.", http.MethodDelete, ""},
}

var spoolActs = map[string]act{
	"retry":   {"Retry", "", http.MethodPost, "/v1/spool/retry"},
	"discard": {"Discard", "Callbacks that were acknowledged are deleted permanently. Export them first.", http.MethodPost, "/v1/spool/discard"},
}

// mostForm is the most of a form.
const mostForm = 64 << 10

// form reads the form of a request. The error was answered.
func (v *visit) form(w http.ResponseWriter) (ok bool) {
	v.Body = http.MaxBytesReader(w, v.Body, mostForm)
	if err := v.ParseForm(); err != nil {
		v.problem(w, http.StatusBadRequest, problem("The request cannot be read", ""))
		return false
	}
	return true
}

// asks shows the question of an act that was not confirmed. It reports whether it did.
func (v *visit) asks(w http.ResponseWriter, a act, of, back string) bool {
	if a.asks == "" || v.PostForm.Get("confirm") == "yes" {
		return false
	}
	fields := make(url.Values)
	for name, values := range v.PostForm {
		if name != "confirm" {
			fields[name] = values
		}
	}
	v.show(w, http.StatusOK, "confirm", a.label, object{"act": a.label, "of": of, "asks": a.asks, "to": v.URL.Path, "fields": fields, "back": back})
	return true
}

// hooks lists the endpoints, with how far they are.
func (c *Console) hooks(w http.ResponseWriter, v *visit) {
	answer := v.get(w, "/v1/hooks", nil)
	if answer == nil {
		return
	}
	answer["lags"] = v.lags()
	v.show(w, http.StatusOK, "hooks", "Hooks", answer)
}

// lags returns the consumers of endpoints by the endpoints' ids.
func (v *visit) lags() object {
	lags := make(object)
	if status, log := v.call(http.MethodGet, "/v1/consumers", nil, nil); status == http.StatusOK {
		for _, one := range log["consumers"].([]any) {
			if id, ok := strings.CutPrefix(one.(object)["name"].(string), "hook/"); ok {
				lags[id] = one
			}
		}
	}
	return lags
}

// hook shows an endpoint with its latest attempts.
func (c *Console) hook(w http.ResponseWriter, v *visit) { v.showHook(w, nil) }

// showHook shows an endpoint, and what came of an act on it.
func (v *visit) showHook(w http.ResponseWriter, done object) {
	path := "/v1/hooks/" + v.PathValue("id")
	hook := v.get(w, path, nil)
	if hook == nil {
		return
	}
	attempts := v.get(w, path+"/attempts", url.Values{"limit": {"50"}})
	if attempts == nil {
		return
	}
	v.show(w, http.StatusOK, "hook", hook["name"].(string), object{
		"hook": hook, "lag": v.lags()[hook["id"].(string)], "attempts": attempts["attempts"], "done": done})
}

// addHook makes an endpoint.
func (c *Console) addHook(w http.ResponseWriter, v *visit) {
	if !v.form(w) {
		return
	}
	body := object{"url": strings.TrimSpace(v.PostForm.Get("url"))}
	if name := strings.TrimSpace(v.PostForm.Get("name")); name != "" {
		body["name"] = name
	}
	for member, field := range map[string]string{"buckets": "bucket", "key_prefixes": "key_prefix"} {
		if text := strings.TrimSpace(v.PostForm.Get(field)); text != "" {
			body[member] = []string{text}
		}
	}
	status, answer := v.call(http.MethodPost, "/v1/hooks", nil, body)
	if status != http.StatusCreated {
		v.problem(w, status, answer)
		return
	}
	v.SetPathValue("id", answer["id"].(string))
	v.showHook(w, object{"act": "Added", "secret": answer["secret"], "attempt": nil, "redelivered": nil})
}

// actOnHook does something with an endpoint.
func (c *Console) actOnHook(w http.ResponseWriter, v *visit) {
	a, ok := hookActs[v.PathValue("act")]
	if !ok {
		c.nothing(w, v)
		return
	}
	path := "/v1/hooks/" + v.PathValue("id")
	if !v.form(w) || v.asks(w, a, v.PostForm.Get("name"), Prefix+"hooks/"+v.PathValue("id")) {
		return
	}
	body := make(object)
	for member, field := range map[string]string{"rotate": "keep", "redeliver": "event"} {
		if text := v.PostForm.Get(field); text != "" && v.PathValue("act") == member {
			body[field] = text
		}
	}
	status, answer := v.call(a.method, path+a.path, nil, body)
	switch {
	case status == http.StatusNoContent:
		http.Redirect(w, v.Request, Prefix+"hooks", http.StatusSeeOther)
	case status != http.StatusOK:
		v.problem(w, status, answer)
	default:
		done := object{"act": a.label, "secret": answer["secret"], "redelivered": answer["redelivered"], "attempt": nil}
		if v.PathValue("act") == "test" {
			done["attempt"] = answer
		}
		v.showHook(w, done)
	}
}

// actOnSpool retries or discards dead letters.
func (c *Console) actOnSpool(w http.ResponseWriter, v *visit) {
	a, ok := spoolActs[v.PathValue("act")]
	if !ok {
		c.nothing(w, v)
		return
	}
	if !v.form(w) {
		return
	}
	of := v.PostForm.Get("event")
	if v.asks(w, a, of, Prefix+"spool") {
		return
	}
	body := object{"all": true}
	if of != "" {
		body = object{"events": []string{of}}
	}
	if status, answer := v.call(a.method, a.path, nil, body); status != http.StatusOK {
		v.problem(w, status, answer)
		return
	}
	http.Redirect(w, v.Request, Prefix+"spool", http.StatusSeeOther)
}
