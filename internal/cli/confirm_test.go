package cli

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
)

func TestConfirm(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]bool{
		"y\n": true, "yes\n": true, "Yes\r\n": true, " Y \n": true, "y": true,
		"": false, "\n": false, "n\n": false, "no\n": false, "yess\n": false, "yes please\n": false, "\ny\n": false, "是\n": false,
	} {
		if err := answered(strings.NewReader(answer)); (err == nil) != want || err != nil && !errors.Is(err, ErrNotConfirmed) {
			t.Errorf("%q: %v, want %v", answer, err, want)
		}
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var asked bytes.Buffer
	for name, std := range map[string]Stdio{"a pipe that says yes": {In: strings.NewReader("yes\n"), Err: &asked}, "a device": {In: file, Err: &asked}} {
		err := Confirm(std, "Delete it?", "--yes")
		if !errors.Is(err, ErrNotConfirmed) || !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), "Delete it; give --yes") || asked.Len() > 0 {
			t.Errorf("%s: %v, asked %q", name, err, &asked)
		}
	}
}
