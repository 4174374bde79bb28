package uploader_test

import (
	"cmp"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"upcall/internal/uploader"
)

// TestRecordedLater holds what the error of a failed callback promises, by what the answer and the
// configuration say.
func TestRecordedLater(t *testing.T) {
	t.Parallel()
	const (
		ok           = `{"Result":"Ok"}`
		failed       = "treat this as failed: fix the receiver, then upload again"
		promise      = "treat this as failed until it is recorded: the upload will be recorded by "
		notification = "OSS's event notification within minutes if the receiver takes those"
		listing      = "the next reconcile run if there is one"
		otherwise    = "; otherwise fix the receiver, then upload again"
	)
	for name, tc := range map[string]struct {
		event    string // the value of a header before Base64
		unlisted bool
		want     string
		header   string // if it is not x-oss-event-status
	}{
		"event and ledger": {ok, false, promise + notification + ", or by " + listing + otherwise, ""},
		"event":            {ok, true, promise + notification + otherwise, ""},
		"other spelling": {`{"code": "Success", "message": "NotificationSucceed", "type": "EventNotification", "version": "1.0"}`, true,
			promise + notification + otherwise, "x-oss-process-status"},
		"other spelling, failed": {`{"code":"Fail","type":"EventNotification"}`, true, failed, "x-oss-process-status"},
		"other process":          {`{"code":"Success","type":"Image"}`, true, failed, "x-oss-process-status"},
		"ledger":                 {"", false, promise + listing + otherwise, ""},
		"neither":                {"", true, failed, ""},
		"event not published":    {`{"Result":"Failed"}`, true, failed, ""},
		"status is not JSON":     {"Ok", true, failed, ""},
		"status is another one":  {`{"Result":true}`, false, promise + listing + otherwise, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			_, source := fileOf(t, []byte("x"))
			w.gate.Between(func(rw http.ResponseWriter, r *http.Request, _ http.Handler) {
				io.Copy(io.Discard, r.Body)
				rw.Header().Set(cmp.Or(tc.header, "x-oss-event-status"), base64.StdEncoding.EncodeToString([]byte(tc.event)))
				refuse(rw, 203, "CallbackFailed", "Error status : 502.")
			})
			up, err := uploader.New(uploader.Config{Parallel: 1, Attempts: 1, Unlisted: tc.unlisted})
			if err != nil {
				t.Fatal(err)
			}
			_, err = up.Upload(t.Context(), uploader.Task{Source: source, Manifest: w.put(), Watcher: new(log)})
			if !errors.Is(err, uploader.ErrCallbackFailed) || !strings.HasSuffix(err.Error(), "; "+tc.want) {
				t.Errorf("%v, want %s", err, tc.want)
			}
		})
	}
}
