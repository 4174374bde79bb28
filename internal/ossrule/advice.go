package ossrule

import "strings"

// Advice says what someone who signs with their own credentials should check after OSS
// refused a request with this code and message. It is "" where that is not about the
// credentials, the bucket or the region.
func Advice(code, message string) string {
	message = strings.ToLower(message)
	switch {
	case Expired(code, message) && code != "AccessDenied":
		return "the credentials have expired: get new ones (OSS_SESSION_TOKEN, --profile, --ecs-role or --credentials-process)"
	case code == "InvalidAccessKeyId":
		return "check OSS_ACCESS_KEY_ID; of temporary credentials, it is unknown once they have expired"
	case strings.HasPrefix(code, "SecurityToken"), code == "InvalidSecurityToken":
		return "check OSS_SESSION_TOKEN: it belongs to OSS_ACCESS_KEY_ID and has an end"
	case strings.Contains(message, "region"):
		return "check --region (OSS_REGION): it is part of the signature"
	case code == "SignatureDoesNotMatch":
		return "check OSS_ACCESS_KEY_SECRET: it belongs to OSS_ACCESS_KEY_ID"
	case code == "NoSuchBucket":
		return "check --bucket, --region and --endpoint: there is no such bucket"
	case code == "InvalidBucketName":
		return "check --bucket"
	case code == "AccessDenied" && strings.Contains(message, "endpoint"):
		return "check --region and --endpoint: the bucket is in another region"
	case code == "RequestTimeTooSkewed", code == "AccessDenied" && strings.Contains(message, "not yet"):
		return "correct the clock of this machine"
	case code == "AccessDenied" && Expired(code, message):
		return "run the same command again"
	case code == "AccessDenied":
		return "check that the RAM policy of the credentials allows this for the bucket and the key"
	case code == "UserDisable":
		return "check the account: OSS is disabled for it"
	}
	return ""
}

// Expired reports whether OSS refused a request because the URL, or the temporary credentials
// that signed it, have expired.
func Expired(code, message string) bool {
	return code == "SecurityTokenExpired" || code == "AccessDenied" && strings.Contains(strings.ToLower(message), "expired")
}
