package event_test

import (
	gocmp "cmp"
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
)

var sameEvent = cmp.Options{cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()}

// full has a value in every column.
func full() *event.Event {
	return &event.Event{
		ID:         uuid.MustParse("3b87537b-4026-5abe-af08-dc5c48bc0bc3"),
		ReceivedAt: time.Date(2026, 11, 22, 12, 30, 0, 120_000_999, time.FixedZone("", 3600)),
		UploadID:   uuid.NullUUID{UUID: uuid.MustParse("01930f6e-0000-7000-8000-000000000001"), Valid: true},
		Source:     event.SourceNotification,
		Callback: callbackspec.Callback{
			Bucket: "demo", Object: `фото/<1> & "2".jpg`, ETag: "D8E8FCA2DC0F896FD7CB4CB0031BA249",
			Size: new(int64(1<<63 - 1)), MimeType: "image/jpeg", ImageHeight: new(int32(0)), ImageWidth: new(int32(1<<31 - 1)),
			ImageFormat: "jpg", CRC64: new(uint64(1<<64 - 1)), ContentMD5: "2Oj8otwPiW/Xy0ywAxuiSQ==", VPCID: "vpc-1",
			ClientIP: netip.MustParseAddr("2001:db8::1"), RequestID: "5C3D9175B6FC201293AD0001", Operation: "PutObject",
			Vars: map[string]json.RawMessage{"uid": json.RawMessage(`"42"`), "Ключ": json.RawMessage("[1e400,\n {\"a\" : null}]")},
		},
	}
}

const fullJSON = `{"event_id":"3b87537b-4026-5abe-af08-dc5c48bc0bc3","received_at":"2026-11-22T11:30:00.120000Z","bucket":"demo",` +
	`"object_key":"фото/<1> & \"2\".jpg","etag":"D8E8FCA2DC0F896FD7CB4CB0031BA249","size":9223372036854775807,"mime_type":"image/jpeg",` +
	`"image_width":2147483647,"image_height":0,"image_format":"jpg","crc64":"18446744073709551615","content_md5":"2Oj8otwPiW/Xy0ywAxuiSQ==",` +
	`"vpc_id":"vpc-1","client_ip":"2001:db8::1","request_id":"5C3D9175B6FC201293AD0001","operation":"PutObject",` +
	`"upload_id":"01930f6e-0000-7000-8000-000000000001","vars":{"uid":"42","Ключ":[1e400,{"a":null}]},` +
	`"source":"notification","supersedes":null}`

const bareJSON = `{"event_id":"00000000-0000-0000-0000-000000000001","received_at":"0001-01-01T00:00:00.000000Z","bucket":null,` +
	`"object_key":null,"etag":null,"size":null,"mime_type":null,"image_width":null,"image_height":null,"image_format":null,"crc64":null,` +
	`"content_md5":null,"vpc_id":null,"client_ip":null,"request_id":null,"operation":null,"upload_id":null,"vars":{},` +
	`"source":"callback","supersedes":null}`

// TestJSON tests the JSON that the docs promise.
func TestJSON(t *testing.T) {
	t.Parallel()
	superseding := &event.Event{ID: uuid.UUID{15: 1}, Supersedes: uuid.NullUUID{UUID: uuid.UUID{15: 2}, Valid: true}}
	supersedingJSON := strings.Replace(bareJSON, `"supersedes":null`, `"supersedes":"00000000-0000-0000-0000-000000000002"`, 1)
	for _, test := range []struct {
		event *event.Event
		want  string
	}{{full(), fullJSON}, {&event.Event{ID: uuid.UUID{15: 1}}, bareJSON}, {superseding, supersedingJSON}} {
		text, err := test.event.AppendJSON([]byte("before "))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff("before "+test.want, string(text)); diff != "" {
			t.Errorf("JSON (-want +got):\n%s", diff)
		}
		if !json.Valid([]byte(test.want)) {
			t.Errorf("encoding/json cannot read %s", test.want)
		}
		got, err := event.Parse([]byte(test.want))
		if err != nil {
			t.Fatal(err)
		}
		want := *test.event
		want.Source = gocmp.Or(want.Source, event.SourceCallback)
		want.ReceivedAt = want.ReceivedAt.Truncate(time.Microsecond)
		if v, ok := want.Callback.Vars["Ключ"]; ok { // without spaces
			want.Callback.Vars["Ключ"] = json.RawMessage(strings.Join(strings.Fields(string(v)), ""))
		}
		if diff := cmp.Diff(&want, got, sameEvent); diff != "" {
			t.Errorf("parsed (-want +got):\n%s", diff)
		}
	}
}

func TestUnstorable(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*event.Event){
		"bad UTF-8":             func(e *event.Event) { e.Callback.Object = "\xff" },
		"NUL":                   func(e *event.Event) { e.Source = "\x00" },
		"year 10000":            func(e *event.Event) { e.ReceivedAt = time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"variable is not JSON":  func(e *event.Event) { e.Callback.Vars["x"] = json.RawMessage("{") },
		"variable is empty":     func(e *event.Event) { e.Callback.Vars["x"] = nil },
		"variable is not UTF-8": func(e *event.Event) { e.Callback.Vars["x"] = json.RawMessage("\"\xff\"") },
		"name is not UTF-8":     func(e *event.Event) { e.Callback.Vars["\xff"] = json.RawMessage("1") },
	} {
		e := full()
		spoil(e)
		if text, err := e.AppendJSON(nil); !errors.Is(err, event.ErrUnstorable) {
			t.Errorf("%s: got %s, %v", name, text, err)
		}
	}
}

// TestParseIsStrict checks that Parse accepts only one way to write an event.
func TestParseIsStrict(t *testing.T) {
	t.Parallel()
	for name, change := range map[string][2]string{
		"a space":                {`,"bucket"`, `, "bucket"`},
		"a line break":           {`null}`, "null}\n"},
		"another member":         {`"supersedes":null`, `"supersedes":null,"more":1`},
		"no supersedes":          {`,"supersedes":null`, ``},
		"supersedes no UUID":     {`"supersedes":null`, `"supersedes":"3b87537b"`},
		"supersedes in capitals": {`"supersedes":null`, `"supersedes":"3B87537B-4026-5ABE-AF08-DC5C48BC0BC3"`},
		"no id, no member":       {`"event_id":"3b87537b-4026-5abe-af08-dc5c48bc0bc3",`, ``},
		"no received_at":         {`"received_at":"2026-11-22T11:30:00.120000Z",`, ``},
		"no vars":                {`"vars":{"uid":"42","Ключ":[1e400,{"a":null}]},`, ``},
		"no source":              {`"source":"notification",`, ``},
		"a member twice":         {`"bucket":"demo"`, `"bucket":"demo","bucket":"demo"`},
		"another order":          {`"bucket":"demo","object_key":"фото/<1> & \"2\".jpg"`, `"object_key":"фото/<1> & \"2\".jpg","bucket":"demo"`},
		"another case":           {`"bucket"`, `"Bucket"`},
		"empty text":             {`"demo"`, `""`},
		"an escape":              {`"demo"`, `"d\u0065mo"`},
		"NUL":                    {`"demo"`, `"\u0000"`},
		"a number for text":      {`"demo"`, `1`},
		"text for a number":      {`"image_height":0`, `"image_height":"0"`},
		"a number for crc64":     {`"18446744073709551615"`, `18446744073709551615`},
		"crc64 too large":        {`"18446744073709551615"`, `"18446744073709551616"`},
		"crc64 with a zero":      {`"18446744073709551615"`, `"01"`},
		"size too large":         {`9223372036854775807`, `9223372036854775808`},
		"size as 1e3":            {`9223372036854775807`, `1e3`},
		"a UUID in capitals":     {`af08-dc5c48bc0bc3`, `AF08-DC5C48BC0BC3`},
		"not a UUID":             {`3b87537b-4026-5abe-af08-dc5c48bc0bc3`, `42`},
		"no id":                  {`"3b87537b-4026-5abe-af08-dc5c48bc0bc3"`, `null`},
		"milliseconds":           {`.120000Z`, `.120Z`},
		"nanoseconds":            {`.120000Z`, `.120000999Z`},
		"another zone":           {`.120000Z`, `.120000+00:00`},
		"an address with a zone": {`2001:db8::1`, `fe80::1%eth0`},
		"an address spelled out": {`2001:db8::1`, `2001:db8:0::1`},
		"vars null":              {`"vars":{"uid":"42","Ключ":[1e400,{"a":null}]}`, `"vars":null`},
		"vars not in order":      {`{"uid":"42","Ключ":[1e400,{"a":null}]}`, `{"Ключ":[1e400,{"a":null}],"uid":"42"}`},
		"a space in vars":        {`{"a":null}`, `{"a": null}`},
		"not UTF-8":              {`"demo"`, "\"\xff\""},
		"not UTF-8 in vars":      {`"42"`, "\"\xff\""},
		"an array":               {fullJSON, `[` + fullJSON + `]`},
		"null":                   {fullJSON, `null`},
		"nothing":                {fullJSON, ``},
		"more after the end":     {`null}`, `null}{}`},
	} {
		text := strings.Replace(fullJSON, change[0], change[1], 1)
		if text == fullJSON {
			t.Errorf("%s: the test changes nothing", name)
		}
		if _, err := event.Parse([]byte(text)); !errors.Is(err, event.ErrMalformed) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestParseEarlier reads an event of a version without a column: spools have such events after
// an upgrade.
func TestParseEarlier(t *testing.T) {
	t.Parallel()
	missing := 0
	for _, c := range event.Columns {
		member := `"` + c.Member() + `":null,`
		earlier := strings.Replace(bareJSON, member, "", 1)
		if earlier == bareJSON {
			continue // never null
		}
		missing++
		got, err := event.Parse([]byte(earlier))
		if err != nil {
			t.Errorf("without %s: %v", c.Name, err)
			continue
		}
		want, err := event.Parse([]byte(bareJSON))
		if diff := cmp.Diff(want, got, sameEvent); err != nil || diff != "" {
			t.Errorf("without %s: %v\n%s", c.Name, err, diff)
		}
	}
	if missing != len(event.Columns)-4 {
		t.Errorf("%d columns of %d may be missing", missing, len(event.Columns))
	}
}

// TestColumnsAreComplete fails if an event has a field without a column.
func TestColumnsAreComplete(t *testing.T) {
	t.Parallel()
	e := new(event.Event)
	columns := make(map[any]string)
	for _, c := range event.Columns {
		field := c.Field(e)
		if other, twice := columns[field]; twice {
			t.Errorf("%s and %s are the same field", c.Name, other)
		}
		columns[field] = c.Name
		if reflect.ValueOf(field).Elem().IsZero() == reflect.ValueOf(c.Field(full())).Elem().IsZero() {
			t.Errorf("full() has no %s", c.Name)
		}
	}
	// These fields have no column.
	none := []string{"Callback", "Token", "Acknowledged", "SourceAddr", "Supersedes"}
	for _, v := range []reflect.Value{reflect.ValueOf(e).Elem(), reflect.ValueOf(&e.Callback).Elem()} {
		for i := range v.NumField() {
			pointer := v.Field(i).Addr().Interface()
			if source, ok := pointer.(*event.Source); ok {
				pointer = (*string)(source)
			}
			name := v.Type().Field(i).Name
			if _, is := columns[pointer]; is == slices.Contains(none, name) {
				t.Errorf("%s is a column: %v", name, is)
			}
		}
	}
}

// FuzzParse checks that accepted texts are written in the same way again, but for members that
// were missing.
func FuzzParse(f *testing.F) {
	f.Add([]byte(fullJSON))
	f.Add([]byte(bareJSON))
	f.Add([]byte(strings.Replace(fullJSON, `"42"`, `{"":"\ud83d\ude00 ","n":-0.0e-0}`, 1)))
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := event.Parse(text)
		if err != nil {
			if !errors.Is(err, event.ErrMalformed) {
				t.Fatalf("got %v", err)
			}
			return
		}
		again, err := e.AppendJSON(nil)
		if err != nil || len(again) < len(text) || len(again) == len(text) && string(again) != string(text) {
			t.Fatalf("%s is written as %s, %v", text, again, err)
		}
		same, err := event.Parse(again)
		if diff := cmp.Diff(e, same, sameEvent); err != nil || diff != "" {
			t.Errorf("%s is written as %s, %v\n%s", text, again, err, diff)
		}
	})
}

// FuzzAppendJSON checks that this package and encoding/json read the same event from the text,
// and that it is one line.
func FuzzAppendJSON(f *testing.F) {
	f.Add("a.jpg", "uid", []byte(`"42"`), int64(5), uint64(1<<63), int64(1_700_000_000_000_000), []byte{203, 0, 113, 7})
	f.Add("\x00", "\xff", []byte("[ 1,\n2]"), int64(-1), uint64(0), int64(-62_135_596_800_000_000), []byte(nil))
	f.Add("\u2028<&>\\\"\t", "ключ", []byte(`"\u2028"`), int64(0), uint64(1), int64(253_402_300_800_000_000), make([]byte, 16))
	f.Fuzz(func(t *testing.T, text, name string, value []byte, size int64, crc uint64, at int64, addr []byte) {
		e := &event.Event{ReceivedAt: time.UnixMicro(at), Source: event.Source(text)}
		e.Callback.Object, e.Callback.Size, e.Callback.CRC64, e.Callback.ImageWidth = text, &size, &crc, new(int32(size))
		e.Callback.Vars = map[string]json.RawMessage{name: value, "x": json.RawMessage(`1`)}
		e.Callback.ClientIP, _ = netip.AddrFromSlice(addr)
		line, err := e.AppendJSON(nil)
		if err != nil {
			if !errors.Is(err, event.ErrUnstorable) {
				t.Fatalf("got %v", err)
			}
			return
		}
		got, err := event.Parse(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if strings.ContainsAny(string(line), "\n\r") {
			t.Errorf("%q is more than one line", line)
		}
		e.Source = gocmp.Or(e.Source, event.SourceCallback)
		if diff := cmp.Diff(e, got, sameEvent, cmpopts.IgnoreFields(callbackspec.Callback{}, "Vars")); diff != "" {
			t.Errorf("event (-written +read):\n%s", diff)
		}
		var members struct {
			ObjectKey *string `json:"object_key"`
			CRC64     uint64  `json:"crc64,string"`
			Vars      map[string]any
		}
		if err := json.Unmarshal(line, &members); err != nil || len(members.Vars) != len(e.Callback.Vars) || members.CRC64 != crc ||
			(members.ObjectKey != nil) != (text != "") || text != "" && *members.ObjectKey != text {
			t.Errorf("encoding/json reads %s as %+v, %v", line, members, err)
		}
	})
}
