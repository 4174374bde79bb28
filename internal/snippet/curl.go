package snippet

import (
	"strings"

	"upcall/internal/manifest"
)

// Curl returns a command for any POSIX shell that uploads a file and prints the answer, with
// the status alone on the last line. file is a shell word. r comes from presigning and is
// not checked again.
func Curl(r manifest.PresignedRequest, file string) string {
	// Without --path-as-is curl would send a/../b as b, and the signature covers the key
	// unchanged. Without --globoff it would take brackets in a file's name for a pattern.
	args := []string{"curl --silent --show-error --fail-with-body --path-as-is --globoff"}
	for _, h := range (data{r}).Sent() {
		args = append(args, "-H "+shellWord(h.Line()))
	}
	args = append(args, `--write-out '\n%{http_code}\n'`)
	upload := "-T " + file
	path, _, _ := strings.Cut(r.URL, "?")
	switch path[strings.LastIndex(path, "/")+1:] {
	case "", ".", "..":
		// curl -T would take such a path for a folder and append the file's name.
		// --data-binary adds a Content-Type, which is removed unless one is signed.
		upload = "--request PUT --data-binary @" + file
		if _, signed := r.Headers["content-type"]; !signed {
			upload = "-H 'content-type:' " + upload
		}
	}
	return strings.Join(append(args, upload+" "+shellWord(r.URL)), " \\\n  ")
}
