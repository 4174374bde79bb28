package doctor

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"upcall/internal/admission"
)

// A Verdict is the short answer.
type Verdict string

const (
	Verifies    Verdict = "verifies"     // as it is
	Repaired    Verdict = "repaired"     // verifies after the changes listed as causes are undone
	Refused     Verdict = "refused"      // does not verify, with any change undone
	CannotCheck Verdict = "cannot_check" // the key or the body is missing
)

// A Cause is one thing that was done to the request.
type Cause struct {
	Kind     Kind   `json:"kind"`
	What     string `json:"what"`
	Fix      string `json:"fix"`
	Received string `json:"received,omitempty"` // the part as it came, marked
	Signed   string `json:"signed,omitempty"`   // the part as it was signed, marked
}

// An Oddity is what does not look like OSS at first sight. Unlike a cause, it proves nothing.
type Oddity struct {
	Kind Kind   `json:"kind"`
	What string `json:"what"`
	Fix  string `json:"fix"`
}

// A Refusal is what the receiver would refuse although the signature is good. Code is in
// its answer, and Reason is the label in its log and metrics.
type Refusal struct {
	Code   admission.Code   `json:"code"`
	Reason admission.Reason `json:"reason"`
	What   string           `json:"what"`
	Fix    string           `json:"fix"`
}

// A Report says what is wrong with a callback. Its text from the capture is marked, see
// [Mark], and has no upload tokens.
type Report struct {
	Verdict  Verdict `json:"verdict"`
	Accepted bool    `json:"accepted"` // verifies as it is, and nothing else is refused, as far as can be told
	// Code and Reason are the receiver's answer to the request as it is, if it refuses it.
	Code     admission.Code   `json:"code"`
	Reason   admission.Reason `json:"reason"`
	Summary  string           `json:"summary"`
	Fix      string           `json:"fix,omitempty"` // where there is no cause to fix
	Oddities []Oddity         `json:"oddities"`      // where the signature does not fit what came
	Causes   []Cause          `json:"causes"`
	Refusals []Refusal        `json:"refusals"`
	Notes    []string         `json:"notes"`

	Format     Format `json:"format"`
	Key        string `json:"key,omitempty"` // whose key signed
	Received   Digest `json:"received"`      // what the receiver checks
	Signed     Digest `json:"signed"`        // what the signature covers
	Candidates int    `json:"candidates"`    // how many strings were compared with the signature
}

// A Digest is a string to sign, marked, and its MD5 in hexadecimal; "" if unknown.
type Digest struct {
	String string `json:"string_to_sign,omitempty"`
	MD5    string `json:"md5,omitempty"`
}

var headlines = map[Verdict]string{
	Verifies:    "VERIFIES",
	Repaired:    "VERIFIES AFTER A REPAIR",
	Refused:     "DOES NOT VERIFY",
	CannotCheck: "CANNOT BE CHECKED",
}

// shownLength is how many characters of a string to sign people see; JSON has all of it.
const shownLength = 1200

// Write writes the report for people: the verdict, what to do, and then the evidence.
func (r *Report) Write(out io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", headlines[r.Verdict], r.Summary)
	if r.Fix != "" {
		fmt.Fprintf(&b, "  fix: %s\n", r.Fix)
	}
	for _, c := range r.Causes {
		fmt.Fprintf(&b, "\n%s\n", c.Kind)
		if r.Verdict != Repaired { // else the summary says it
			fmt.Fprintf(&b, "  what:     %s\n", c.What)
		}
		if c.Received != c.Signed {
			const limit = shownLength / 4
			fmt.Fprintf(&b, "  received: %s\n  signed:   %s\n", shorten(c.Received, limit), shorten(c.Signed, limit))
		}
		fmt.Fprintf(&b, "  fix:      %s\n", c.Fix)
	}
	for _, odd := range r.Oddities {
		fmt.Fprintf(&b, "\nodd: %s\n  what: %s\n  fix:  %s\n", odd.Kind, odd.What, odd.Fix)
	}
	for _, refusal := range r.Refusals {
		fmt.Fprintf(&b, "\nrefused anyway, %s (%s): %s\n  fix: %s\n", refusal.Code, refusal.Reason, refusal.What, refusal.Fix)
	}
	b.WriteString("\nevidence\n")
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "  %-15s %s\n", name, value)
		}
	}
	line("string to sign", shorten(r.Received.String, shownLength))
	line("  its MD5", r.Received.MD5)
	if r.Signed != r.Received && r.Signed.MD5 != "" {
		line("what was signed", cmp.Or(shorten(r.Signed.String, shownLength), "unknown"))
		line("  its MD5", r.Signed.MD5)
	}
	line("signed by", r.Key)
	for _, note := range r.Notes {
		line("note", note)
	}
	_, err := io.WriteString(out, b.String())
	return err
}
