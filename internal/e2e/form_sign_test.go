package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"time"

	"upcall/internal/testing/ossfake"
)

// sign signs a form by another program than ours: with a policy that allows anything.
func sign(fields map[string]string) map[string]string {
	now := time.Now().UTC()
	document, _ := json.Marshal(map[string]any{"expiration": now.Add(time.Hour).Format("2006-01-02T15:04:05.000Z"),
		"conditions": []any{map[string]string{"bucket": "demo"}}})
	policy := base64.StdEncoding.EncodeToString(document)
	key := []byte("aliyun_v4" + ossfake.AccessKeySecret)
	day := now.Format("20060102")
	for _, part := range []string{day, ossfake.Region, "oss", "aliyun_v4_request", policy} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	fields["policy"], fields["x-oss-signature"] = policy, hex.EncodeToString(key)
	fields["x-oss-signature-version"], fields["x-oss-date"] = "OSS4-HMAC-SHA256", now.Format("20060102T150405Z")
	fields["x-oss-credential"] = ossfake.AccessKeyID + "/" + day + "/" + ossfake.Region + "/oss/aliyun_v4_request"
	return fields
}
