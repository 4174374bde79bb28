package oss

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"upcall/internal/callbackspec"
	"upcall/internal/fault"
	"upcall/internal/ossrule"
)

// filename is what OSS replaces in the key of a form by the name of the file.
const filename = "${filename}"

// A Form is the upload of objects by an HTML form, OSS's PostObject.
type Form struct {
	// Object is as in a [Put], without tags, which a form cannot carry. Its key is only the beginning if ByPrefix is set.
	Object Object

	// ByPrefix leaves the rest of the key to the uploader. The form then says ${filename} for it.
	ByPrefix bool

	// Expires is how long the form may be sent for, 1 s to 7 days in whole seconds.
	Expires time.Duration

	// MinSize and MaxSize are bytes, 0 to 5 GiB.
	MinSize, MaxSize int64

	Callback callbackspec.Document // none is the zero value
	Vars     callbackspec.Vars     // by names with x:, each a field of its own
}

// Check returns all mistakes, joined.
func (f Form) Check() error {
	o := f.Object
	if f.ByPrefix {
		o.Key = "k" // the prefix has rules of its own
	}
	var faults fault.List
	faults.Add(o.Check(), checkExpires(f.Expires))
	if f.ByPrefix {
		faults.Add(ossrule.CheckPrefix(f.Object.Key))
	} else if strings.Contains(f.Object.Key, filename) {
		// OSS would replace it, and the token would be for another key.
		faults.AddNew(ossrule.ErrKey, "key", "give the folder as the prefix instead", "holds %s", filename)
	}
	if len(f.Object.Tags) > 0 {
		faults.AddNew(ErrTag, "tag", "leave it out, or presign a PUT", "is not a field of a form")
	}
	switch {
	case f.MinSize < 0 || f.MinSize > ossrule.MaxPut:
		faults.AddNew(ErrContentLength, "min-size", fmt.Sprintf("a form takes 0 to %d bytes", int64(ossrule.MaxPut)), "%d is out of range", f.MinSize)
	case f.MaxSize < 0 || f.MaxSize > ossrule.MaxPut:
		faults.AddNew(ErrContentLength, "max-size", fmt.Sprintf("a form takes 0 to %d bytes", int64(ossrule.MaxPut)), "%d is out of range", f.MaxSize)
	case f.MaxSize < f.MinSize:
		faults.AddNew(ErrContentLength, "max-size", "give the larger of the two", "%d is less than the minimum of %d", f.MaxSize, f.MinSize)
	}
	if f.Callback.Base64() == "" && len(f.Vars) > 0 {
		faults.AddNew(ErrCallback, "callback-var", "give a callback too", "has no callback to go with")
	}
	return faults.Err()
}

// A SignedForm is what a page posts, with the file as the last field.
type SignedForm struct {
	URL         string
	Fields      map[string]string
	ExpiresAt   time.Time // UTC, whole seconds
	ExpiryCause ExpiryCause
}

// Form signs a form. The policy names every field, so that OSS refuses a form in which one was changed or left out; without
// a condition on it, OSS would not look at the callback at all. The error joins all mistakes in f.
func (c *Client) Form(ctx context.Context, f Form) (SignedForm, error) {
	if err := f.Check(); err != nil {
		return SignedForm{}, err
	}
	start := time.Now().Truncate(time.Second).UTC()
	end, cause, err := c.end(ctx, start, f.Expires)
	if err != nil {
		return SignedForm{}, err
	}
	credentials, err := c.source(ctx, false)
	if err != nil {
		return SignedForm{}, err
	}
	address, err := c.bucketURL(ctx, f.Object.Bucket)
	if err != nil {
		return SignedForm{}, err
	}
	scope := [...]string{start.Format("20060102"), c.region, "oss", "aliyun_v4_request"}
	fields := f.fields()
	fields["x-oss-signature-version"] = "OSS4-HMAC-SHA256"
	fields["x-oss-credential"] = credentials.AccessKeyID + "/" + strings.Join(scope[:], "/")
	fields["x-oss-date"] = start.Format("20060102T150405Z")
	if credentials.SessionToken != "" {
		fields["x-oss-security-token"] = credentials.SessionToken
	}
	fields["policy"] = base64.StdEncoding.EncodeToString(f.policy(fields, end))
	// The signature V4 of a form is over the encoded policy alone (help.aliyun.com, "POST V4 signature", 2026).
	key := []byte("aliyun_v4" + credentials.AccessKeySecret)
	for _, part := range scope {
		key = sum(key, part)
	}
	fields["x-oss-signature"] = hex.EncodeToString(sum(key, fields["policy"]))
	return SignedForm{URL: address, Fields: fields, ExpiresAt: end, ExpiryCause: cause}, nil
}

func sum(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

// fields returns those that are not part of the signature.
func (f Form) fields() map[string]string {
	fields := f.Object.headers()
	if contentType, ok := fields["content-type"]; ok {
		delete(fields, "content-type")
		fields["Content-Type"] = contentType // as OSS's pages write it
	}
	fields["key"] = f.Object.Key
	if f.ByPrefix {
		fields["key"] += filename
	}
	fields["success_action_status"] = "200" // as with a callback; by default it would be 204
	if text := f.Callback.Base64(); text != "" {
		fields["callback"] = text
	}
	for name, value := range f.Vars {
		fields[name] = value
	}
	return fields
}

// policy returns the document that limits what may be sent.
func (f Form) policy(fields map[string]string, end time.Time) []byte {
	conditions := []any{map[string]string{"bucket": f.Object.Bucket}, []any{"content-length-range", f.MinSize, f.MaxSize}}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		operator, value := "eq", fields[name]
		if name == "key" && f.ByPrefix {
			operator, value = "starts-with", f.Object.Key
		}
		conditions = append(conditions, []any{operator, "$" + name, value})
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false) // which would be the same to a reader of JSON, and longer
	err := enc.Encode(map[string]any{"expiration": end.Format("2006-01-02T15:04:05.000Z"), "conditions": conditions})
	if err != nil {
		panic("oss: a policy always marshals: " + err.Error())
	}
	return bytes.TrimSpace(text.Bytes())
}

// bucketURL is where forms for a bucket go.
func (c *Client) bucketURL(ctx context.Context, bucket string) (string, error) {
	signed, err := c.Put(ctx, Put{Object: Object{Bucket: bucket, Key: "form"}, Expires: ossrule.MinExpiry})
	if err != nil {
		return "", err
	}
	u, err := url.Parse(signed.URL)
	if err != nil {
		return "", fmt.Errorf("read presigned URL: %w", err)
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimSuffix(u.Path, "form")}).String(), nil
}
