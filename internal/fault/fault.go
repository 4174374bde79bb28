// Package fault holds mistakes as data: the field, what is wrong with it, and how to fix it.
// Checks report all mistakes at once, and a program that shows them need not parse text.
package fault

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Fault is one mistake. Its text is one line and safe to show.
type Fault struct {
	Field   string // a flag, a variable, a JSON member, a place in a file; "" if there is none
	Problem string
	Fix     string // what to do about it; "" if Problem says so
	Rule    error  // for errors.Is and errors.As; may be nil
}

func (f Fault) Error() string {
	text := f.Problem
	if f.Field != "" {
		text = f.Field + ": " + text
	}
	if f.Fix != "" {
		text += "; " + f.Fix
	}
	return text
}

// Unwrap returns the rule that was broken.
func (f Fault) Unwrap() error { return f.Rule }

// New returns a fault that breaks rule. The problem must hold no secret.
func New(rule error, field, fix, problem string, args ...any) Fault {
	return Fault{Field: field, Problem: fmt.Sprintf(problem, args...), Fix: fix, Rule: rule}
}

// At returns a fault without a rule: callers know it by its field.
func At(field, problem string, args ...any) Fault {
	return Fault{Field: field, Problem: fmt.Sprintf(problem, args...)}
}

// A List holds mistakes. It is an error unless it is empty; see [List.Err].
type List []Fault

// Error has one line for each mistake.
func (l List) Error() string {
	lines := make([]string, len(l))
	for i, f := range l {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.Is and errors.As inspect each mistake.
func (l List) Unwrap() []error {
	errs := make([]error, len(l))
	for i, f := range l {
		errs[i] = f
	}
	return errs
}

// Add appends the mistakes of each error, and ignores nil.
func (l *List) Add(errs ...error) {
	for _, err := range errs {
		*l = append(*l, Of(err)...)
	}
}

// AddNew appends what [New] returns.
func (l *List) AddNew(rule error, field, fix, problem string, args ...any) {
	*l = append(*l, New(rule, field, fix, problem, args...))
}

// AddAt appends what [At] returns.
func (l *List) AddAt(field, problem string, args ...any) {
	*l = append(*l, At(field, problem, args...))
}

// Err returns the list as an error, nil if it is empty.
func (l List) Err() error {
	if len(l) == 0 {
		return nil
	}
	return l
}

// Join returns a [List] of the mistakes of all errors, nil if there are none.
func Join(errs ...error) error {
	var l List
	l.Add(errs...)
	return l.Err()
}

// In returns err with field as the field of each mistake. A field that was there before
// moves to the problem. It returns nil for nil.
func In(field string, err error) error {
	return change(err, func(f *Fault) {
		if f.Field != "" {
			f.Problem = f.Field + ": " + f.Problem
		}
		f.Field = field
	})
}

// Prefix returns err with prefix before the field of each mistake. It returns nil for nil.
func Prefix(prefix string, err error) error {
	return change(err, func(f *Fault) { f.Field = prefix + f.Field })
}

func change(err error, each func(*Fault)) error {
	l := slices.Clone(Of(err))
	for i := range l {
		each(&l[i])
	}
	return l.Err()
}

// Of returns the mistakes of an error: those of a list, or of joined errors. Any other error
// is a mistake without a field.
func Of(err error) List {
	switch e := err.(type) {
	case nil:
		return nil
	case List:
		return e
	case Fault:
		return List{e}
	case interface{ Unwrap() []error }:
		var l List
		l.Add(e.Unwrap()...)
		// An error that adds text of its own, as fmt.Errorf does with several %w, counts
		// as one mistake, because that text would be lost.
		if l.Error() == err.Error() {
			return l
		}
	default:
		if inner := errors.Unwrap(err); inner != nil && inner.Error() == err.Error() {
			return Of(inner) // a type that adds no text
		}
	}
	return List{{Problem: err.Error(), Rule: err}}
}
