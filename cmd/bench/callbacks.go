package main

import (
	"encoding/base64"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/ossemu"
	"upcall/internal/uploadtoken"
)

const (
	callbackPath = "/oss/callback"
	tokenKeys    = "bench:0123456789abcdef0123456789abcdef"
)

// callbacks returns n requests as OSS sends them, byte for byte on the wire: the
// default template in form type with a token and two custom variables, signed with a
// 512-bit key, each of another upload.
func callbacks(n int, publicKeyURL string) ([][]byte, error) {
	keys, err := uploadtoken.ParseKeys(tokenKeys)
	if err != nil {
		return nil, err
	}
	template, err := callbackspec.DefaultBody(callbackspec.Form, []string{"uid", "album"}, true)
	if err != nil {
		return nil, err
	}
	run := uuid.NewString()[:8]
	expires := time.Now().Add(time.Hour)
	requests := make([][]byte, n)
	errs := make([]error, runtime.NumCPU())
	var group sync.WaitGroup
	for worker := range errs {
		group.Go(func() {
			for i := worker; i < n; i += len(errs) {
				if requests[i], errs[worker] = callback(keys, template, run, i, expires, publicKeyURL); errs[worker] != nil {
					return
				}
			}
		})
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return requests, nil
}

func callback(keys *uploadtoken.Keyring, template, run string, i int, expires time.Time, publicKeyURL string) ([]byte, error) {
	object := fmt.Sprintf("photos/2026/11/%s/%08d.jpg", run, i)
	token, err := keys.Mint(uploadtoken.Claims{UploadID: uuid.New(), Expires: expires, Bucket: "demo", Object: object})
	if err != nil {
		return nil, err
	}
	requestID := fmt.Sprintf("%s%016X", run, i)
	body, err := callbackspec.Expand(template, callbackspec.Form, callbackspec.Values{
		"bucket": "demo", "object": object, "etag": "D8E8FCA2DC0F896FD7CB4CB0031BA249", "size": strconv.Itoa(100000 + i),
		"mimeType": "image/jpeg", "imageInfo.height": "768", "imageInfo.width": "1024", "imageInfo.format": "jpg",
		"crc64": "10148263420338452347", "contentMd5": "2Oj8otwPiW/Xy0ywAxuiSQ==", "clientIp": "203.0.113.7",
		"reqId": requestID, "operation": "PutObject",
		"x:uid": strconv.Itoa(i % 1000), "x:album": "summer 2026", callbackspec.TokenVar: token,
	})
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\nAuthorization: %s\r\n"+
		"Content-Type: application/x-www-form-urlencoded\r\nUser-Agent: aliyun-oss-callback\r\nx-oss-bucket: demo\r\n"+
		"x-oss-pub-key-url: %s\r\nx-oss-request-id: %s\r\nx-oss-signature-version: 1.0\r\nx-oss-tag: CALLBACK\r\n\r\n%s",
		callbackPath, len(body), ossemu.SignCallback(callbackPath, []byte(body)),
		base64.StdEncoding.EncodeToString([]byte(publicKeyURL)), requestID, body), nil
}
