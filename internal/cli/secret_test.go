package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSecret(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tests := []struct {
		name        string
		value, path string
		want        string
		wantErr     error
	}{
		{name: "not set"},
		{name: "variable", value: "hunter2", want: "hunter2"},
		{name: "variable is not trimmed", value: " hunter2\n", want: " hunter2\n"},
		{name: "file", path: file("plain", "hunter2"), want: "hunter2"},
		{name: "file ends with a line break", path: file("lf", "hunter2\n"), want: "hunter2"},
		{name: "file ends with a DOS line break", path: file("crlf", "hunter2\r\n"), want: "hunter2"},
		{name: "spaces stay", path: file("spaces", " hunter2 \n"), want: " hunter2 "},
		{name: "longest", path: file("longest", strings.Repeat("s", maxSecretFile-1)+"\n"), want: strings.Repeat("s", maxSecretFile-1)},

		{name: "both", value: "hunter2", path: file("both", "hunter2"), wantErr: ErrBoth},
		{name: "no such file", path: filepath.Join(dir, "absent"), wantErr: ErrUnreadable},
		{name: "no such file keeps its cause", path: filepath.Join(dir, "absent"), wantErr: os.ErrNotExist},
		{name: "folder", path: dir, wantErr: ErrUnreadable},
		{name: "empty", path: file("empty", ""), wantErr: ErrEmpty},
		{name: "a line break only", path: file("blank", "\n"), wantErr: ErrEmpty},
		{name: "only one line break is dropped", path: file("two", "hunter2\n\n"), wantErr: ErrNotText},
		{name: "two lines", path: file("lines", "hunter2\nhunter3\n"), wantErr: ErrNotText},
		{name: "binary", path: file("binary", "hunter2\x00"), wantErr: ErrNotText},
		{name: "not UTF-8", path: file("latin1", "hunter2\xe9"), wantErr: ErrNotText},
		{name: "endless file", path: "/dev/zero", wantErr: ErrTooLong},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			env := Env{"PASSWORD": tt.value, "PASSWORD_FILE": tt.path}
			got, err := Secret("", env, "PASSWORD")
			if !errors.Is(err, tt.wantErr) {
				t.Fatalf("error %v, want %v", err, tt.wantErr)
			}
			if got != tt.want {
				t.Errorf("secret %.40q, want %.40q", got, tt.want)
			}
			if err == nil {
				return
			}
			if !strings.Contains(err.Error(), "PASSWORD_FILE") {
				t.Errorf("error does not name the variable: %v", err)
			}
			if strings.Contains(err.Error(), "hunter") || strings.Contains(err.Error(), "\n") {
				t.Errorf("error holds the secret or a line break: %q", err)
			}
		})
	}
}
