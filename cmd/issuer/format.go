package main

import (
	"io"
	"time"

	"upcall/internal/fault"
	"upcall/internal/issue"
	"upcall/internal/manifest"
	"upcall/internal/oss"
	"upcall/internal/snippet"
)

// checkFormat also finds, before the URL is made, an upload that a program in the chosen
// language could not do.
func checkFormat(format string, o oss.Object) error {
	err := oneOf("--format", format, append([]string{"text", "json"}, snippet.Languages()...)...)
	if err != nil || format == "text" || format == "json" {
		return err
	}
	return fault.Prefix("--", snippet.Check(format, o.Key, o.ContentType)) // its fields are the flags' names
}

// printUpload prints an upload in a format that [checkFormat] accepted.
func printUpload(w io.Writer, format string, r issue.Request, u manifest.Upload, cause oss.ExpiryCause) error {
	switch format {
	case "json":
		return printJSON(w, u)
	case "text":
		return write(w, uploadText(r, u, cause, time.Now()))
	}
	program, err := snippet.Render(format, u.Request())
	if err != nil {
		return err
	}
	return write(w, program)
}
