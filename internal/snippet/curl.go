package snippet

import (
	"strings"

	"upcall/internal/manifest"
)

// Curl returns a command for any POSIX shell that uploads a file and prints the answer,
// with the status on a last line of its own. file is a word of the shell, as it is to
// stand in the command. r is what presigning made; it is not checked again.
func Curl(r manifest.PresignedRequest, file string) string {
	// Without --path-as-is curl would send a/../b as b, and the signature covers the key
	// as it is. Without --globoff it would take brackets in a file's name for a pattern.
	args := []string{"curl --silent --show-error --fail-with-body --path-as-is --globoff"}
	for _, h := range sent(r) {
		args = append(args, "-H "+shellWord(h.Line()))
	}
	args = append(args, `--write-out '\n%{http_code}\n'`)
	upload := "-T " + file
	if path, _, _ := strings.Cut(r.URL, "?"); strings.HasSuffix(path, "/") {
		// curl -T puts the file's name behind a slash at the end of the path. The other way
		// to send a file brings a Content-Type of its own, to be taken off unless one is signed.
		upload = "--request PUT --data-binary @" + file
		if _, signed := r.Headers["content-type"]; !signed {
			upload = "-H 'content-type:' " + upload
		}
	}
	return strings.Join(append(args, upload+" "+shellWord(r.URL)), " \\\n  ")
}
