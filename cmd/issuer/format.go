package main

import (
	"fmt"
	"io"
	"slices"
	"time"

	"upcall/internal/fault"
	"upcall/internal/issue"
	"upcall/internal/manifest"
	"upcall/internal/oss"
	"upcall/internal/snippet"
)

// checkFormat also refuses, before the URL is made, an upload that a program in the
// chosen language could not do.
func checkFormat(format string, o oss.Object) error {
	if format == "text" || format == "json" {
		return nil
	}
	if languages := snippet.Languages(); !slices.Contains(languages, format) {
		return oneOf("--format", format, slices.Concat([]string{"text", "json"}, languages)...)
	}
	return fault.Prefix("--", snippet.Check(format, o.Key, o.ContentType)) // its fields are the flags' names
}

// printUpload writes an upload in the chosen format, which was checked.
func printUpload(w io.Writer, format string, r issue.Request, u manifest.Upload, cause oss.ExpiryCause) error {
	switch format {
	case "json":
		return printJSON(w, u)
	case "text":
		return printText(w, r, u, cause, time.Now())
	}
	program, err := snippet.Render(format, u.Request())
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, program); err != nil {
		return fmt.Errorf("write program: %w", err)
	}
	return nil
}
