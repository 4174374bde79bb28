package fault_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"upcall/internal/fault"
)

var (
	errSize = errors.New("size")
	errName = errors.New("name")
)

// A usage error wraps another and adds no text, as cli's does.
type usage struct{ error }

func (u usage) Unwrap() error { return u.error }

func TestError(t *testing.T) {
	t.Parallel()
	for want, f := range map[string]fault.Fault{
		"--size: 9 is out of range; give 1 to 8": fault.New(errSize, "--size", "give 1 to 8", "%d is out of range", 9),
		"--size: is missing":                     fault.At("--size", "is missing"),
		"there is no file":                       {Problem: "there is no file"},
	} {
		if got := f.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestOf also checks that the text of an error is that of its mistakes.
func TestOf(t *testing.T) {
	t.Parallel()
	size := fault.New(errSize, "size", "give 1 to 8", "is 9")
	name := fault.New(errName, "name", "give one", "is empty")
	wrapped, words := fmt.Errorf("read: %w", io.EOF), fmt.Errorf("read both: %w, %w", size, name)
	tests := []struct {
		name string
		err  error
		want fault.List
	}{
		{"nil", nil, nil},
		{"one", size, fault.List{size}},
		{"list", fault.List{size, name}, fault.List{size, name}},
		{"joined", errors.Join(size, errors.Join(nil, name)), fault.List{size, name}},
		{"joined lists", fault.Join(fault.List{size}, nil, name), fault.List{size, name}},
		{"without additional text", usage{errors.Join(size, name)}, fault.List{size, name}},
		{"other error", io.EOF, fault.List{{Problem: "EOF", Rule: io.EOF}}},
		{"several wrapped", words, fault.List{{Problem: words.Error(), Rule: words}}},
		{"wrapped", wrapped, fault.List{{Problem: "read: EOF", Rule: wrapped}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := fault.Of(tt.err)
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %#v, want %#v", got, tt.want)
			}
			if tt.err != nil && got.Error() != tt.err.Error() {
				t.Errorf("the mistakes are %q, the error %q", got, tt.err)
			}
		})
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	var l fault.List
	l.Add(nil, fault.Join(nil, nil))
	if err := l.Err(); err != nil {
		t.Errorf("an empty list is the error %v", err)
	}
	l.Add(fault.New(errSize, "size", "", "is 9"), io.EOF)
	err := fmt.Errorf("check: %w", l.Err())
	for _, want := range []error{errSize, io.EOF} {
		if !errors.Is(err, want) {
			t.Errorf("%q is not %v", err, want)
		}
	}
	if errors.Is(err, errName) {
		t.Errorf("%q is %v, which was not added", err, errName)
	}
	if first, ok := errors.AsType[fault.Fault](err); !ok || first.Field != "size" {
		t.Errorf("the first mistake is %+v, want the one of size", first)
	}
}

func TestIn(t *testing.T) {
	t.Parallel()
	if err := fault.In("--keys", nil); err != nil {
		t.Errorf("no mistake became %v", err)
	}
	err := fault.In("--keys", fault.Join(fault.New(errName, "key 2", "give one", "has no name"), io.EOF))
	want := fault.List{
		{Field: "--keys", Problem: "key 2: has no name", Fix: "give one", Rule: errName},
		{Field: "--keys", Problem: "EOF", Rule: io.EOF},
	}
	if got := fault.Of(err); !slices.Equal(got, want) {
		t.Errorf("got %#v, want %#v", got, want)
	}
}

func TestPrefix(t *testing.T) {
	t.Parallel()
	if err := fault.Prefix("--", nil); err != nil {
		t.Errorf("no mistake became %v", err)
	}
	err := fault.At("size", "is 9")
	if got, want := fault.Prefix("--", err).Error(), "--size: is 9"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err.Field != "size" {
		t.Errorf("Prefix changed its argument to %+v", err)
	}
}
