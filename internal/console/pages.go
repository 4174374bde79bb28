package console

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"path"
	"strings"
	"time"

	"upcall/internal/api"
)

//go:embed pages
var templates embed.FS

// pages are the templates in one language.
type pages struct {
	language string
	byName   map[string]*template.Template
}

// A page is what every template is given.
type page struct {
	Title    string
	Path     string
	Language string
	Caller   *api.Caller // nil before someone has logged in
	Error    string
	Waits    string // what the page is called on which callbacks wait: Spool or Stream
	Data     any
}

// Operator reports whether the visitor may change things. The API decides; this only hides what it would refuse.
func (p page) Operator() bool { return p.Caller != nil && p.Caller.Role == api.Operator }

// newPages parses the templates.
func newPages(language string) (*pages, error) {
	p := &pages{language: language, byName: make(map[string]*template.Template)}
	funcs := template.FuncMap{
		"t": func(text string) string { return translate(language, text) }, "time": moment, "day": day, "bytes": size, "share": share,
		"ms": milliseconds, "seconds": seconds, "chart": chart, "number": number, "text": text, "json": indented, "attention": attention, "enough": enough, "hookID": hookID, "highest": highest,
		"list": func(values ...any) []any { return values }, "has": func(m object, name string) bool { return m[name] != nil },
		"under": strings.HasPrefix, "success": success, "query": template.URLQueryEscaper,
	}
	layout, err := template.New("layout.html").Funcs(funcs).Option("missingkey=error").ParseFS(templates, "pages/layout.html", "pages/parts.html")
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	names, err := fs.Glob(templates, "pages/*.html")
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	for _, name := range names {
		clone, err := layout.Clone()
		if err == nil {
			clone, err = clone.ParseFS(templates, name)
		}
		if err != nil {
			return nil, fmt.Errorf("console: %w", err)
		}
		p.byName[strings.TrimSuffix(path.Base(name), ".html")] = clone
	}
	return p, nil
}

// show shows a page to someone who has logged in.
func (v *visit) show(w http.ResponseWriter, status int, name, title string, data any) {
	v.console.render(w, v.Request, status, name, page{Title: title, Caller: &v.caller, Data: data})
}

// render writes a page in the language of the request, as a whole or not at all.
func (c *Console) render(w http.ResponseWriter, r *http.Request, status int, name string, p page) {
	set := c.pages[languageOf(r.Header.Get("Accept-Language"))]
	p.Path, p.Language, p.Waits = r.URL.Path, set.language, "Spool"
	if c.cfg.API.Waits() == "stream" {
		p.Waits = "Stream"
	}
	var out bytes.Buffer
	if err := set.byName[name].ExecuteTemplate(&out, "layout.html", p); err != nil {
		c.cfg.Logger.ErrorContext(r.Context(), "console: page cannot be shown", slog.String("page", name), slog.String("error", err.Error()))
		http.Error(w, "this page cannot be shown; the receiver's log says why", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Vary", "Accept-Language, Cookie")
	w.WriteHeader(status)
	_, _ = out.WriteTo(w) // the visitor may be gone
}

// float returns a number of the API's JSON.
func float(v any) (float64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	f, err := n.Float64()
	return f, err == nil
}

const none = "–"

func moment(v any) template.HTML {
	s, ok := v.(string)
	at, err := time.Parse(time.RFC3339Nano, s)
	if !ok || err != nil || at.IsZero() { // of a dead letter that nobody can read
		return none
	}
	return template.HTML(fmt.Sprintf(`<time datetime="%s">%s</time>`, at.UTC().Format(time.RFC3339Nano), at.UTC().Format("2006-01-02 15:04:05")))
}

func day(v any) string { s, _, _ := strings.Cut(text(v), "T"); return s }

// text shows a value, and a dash for null.
func text(v any) string {
	if v == nil || v == "" {
		return none
	}
	return fmt.Sprint(v)
}

// number shows a number with groups of three digits.
func number(v any) string {
	f, ok := float(v)
	if !ok {
		return none
	}
	whole := fmt.Sprintf("%.0f", f)
	if f != float64(int64(f)) {
		return fmt.Sprintf("%.3g", f)
	}
	for i := len(whole) - 3; i > 0 && whole[i-1] != '-'; i -= 3 {
		whole = whole[:i] + "\u202f" + whole[i:]
	}
	return whole
}

func size(v any) string {
	f, ok := float(v)
	if !ok {
		return none
	}
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if f < 1024 {
			return fmt.Sprintf("%.4g\u202f%s", f, unit)
		}
		f /= 1024
	}
	return fmt.Sprintf("%.4g\u202fTiB", f)
}

func share(v any) string {
	if f, ok := float(v); ok {
		return fmt.Sprintf("%.3g\u202f%%", 100*f)
	}
	return none
}

// success is the share of attempts that succeeded.
func success(delivered, failed any) string {
	d, _ := float(delivered)
	f, _ := float(failed)
	if d+f == 0 {
		return none
	}
	return fmt.Sprintf("%.3g\u202f%%", 100*d/(d+f))
}

func milliseconds(v any) string {
	if f, ok := float(v); ok {
		return fmt.Sprintf("%.3g\u202fms", 1000*f)
	}
	return none
}

func seconds(v any) string {
	if f, ok := float(v); ok {
		return fmt.Sprintf("%.3g\u202fs", f)
	}
	return none
}

func indented(v any) string {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return none
	}
	return string(text)
}

// attention is the class of a value that should not be above a limit.
func attention(v any, limit float64) string {
	if f, ok := float(v); ok && f > limit {
		return "bad"
	}
	return "good"
}

// enough is the class of a value that should not be below a limit.
func enough(v any, limit float64) string {
	if f, ok := float(v); ok && f < limit {
		return "bad"
	}
	return "good"
}

// hookID returns the id of the endpoint that a consumer of the log is, "" if it is none.
func hookID(consumer string) string {
	id, ok := strings.CutPrefix(consumer, "hook/")
	if !ok {
		return ""
	}
	return id
}
