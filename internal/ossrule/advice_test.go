package ossrule_test

import (
	"strings"
	"testing"

	"upcall/internal/ossrule"
)

// TestAdvice checks that the signer is told which setting to look at.
func TestAdvice(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ code, message, want string }{
		{"SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided.", "OSS_ACCESS_KEY_SECRET"},
		{"InvalidAccessKeyId", "The OSS Access Key Id you provided does not exist in our records.", "OSS_ACCESS_KEY_ID"},
		{"SecurityTokenExpired", "The security token you provided has expired.", "the credentials have expired"},
		{"InvalidSecurityToken", "The security token you provided is invalid.", "OSS_SESSION_TOKEN"},
		{"NoSuchBucket", "The specified bucket does not exist.", "--bucket, --region"},
		{"InvalidBucketName", "The specified bucket is not valid.", "--bucket"},
		{"AccessDenied", "The bucket you are attempting to access must be addressed using the specified endpoint.", "--region and --endpoint"},
		{"InvalidArgument", "Invalid signing region in Authorization header.", "--region"},
		{"AccessDenied", "Request has expired.", "run the same command again"},
		{"AccessDenied", "Request is not yet valid.", "clock"},
		{"RequestTimeTooSkewed", "The difference between the request time and the current time is too large.", "clock"},
		{"AccessDenied", "You have no right to access this object because of bucket acl.", "RAM policy"},
		{"UserDisable", "UserDisable", "account"},
		{"InvalidDigest", "The Content-MD5 you specified was invalid.", ""},
		{"InternalError", "Please contact the server administrator.", ""},
	} {
		if got := ossrule.Advice(tt.code, tt.message); !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%s %q: %q, want %q", tt.code, tt.message, got, tt.want)
		}
	}
}
