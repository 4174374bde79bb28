package cli

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"upcall/internal/fault"
)

// variables are those of each program. A program knows its own from its flags, too; this
// list tells it those of the others, which may share an environment with it.
var variables = map[string]string{
	"receiver": `UPCALL_ACCELERATE UPCALL_ADMIN_LISTEN UPCALL_BUCKETS UPCALL_CALLBACK_PATH UPCALL_CAPTURE_REFUSED UPCALL_CNAME
		UPCALL_CONFIRM UPCALL_CONFIRM_GRACE UPCALL_CREDENTIALS_FILE UPCALL_CREDENTIALS_PROCESS
		UPCALL_DATABASE_URL UPCALL_DATABASE_URL_FILE UPCALL_DATA_DIR
		UPCALL_ECS_ROLE UPCALL_FIELDS UPCALL_HOOKS_ALLOW_CIDRS UPCALL_HOOKS_ALLOW_HTTP UPCALL_HOOKS_FILE
		UPCALL_HOOKS_SCHEDULE UPCALL_INTERNAL UPCALL_LISTEN UPCALL_LOG_LEVEL UPCALL_MAX_EVENTS_PER_UPLOAD UPCALL_MAX_REFUSALS
		UPCALL_NOTIFY_GRACE UPCALL_NOTIFY_PATH UPCALL_NOTIFY_TOKEN UPCALL_NOTIFY_TOKEN_FILE UPCALL_NOTIFY_TOPICS
		UPCALL_PATH_STYLE UPCALL_PROFILE UPCALL_PUBLIC_URL
		UPCALL_RECONCILE_EVERY UPCALL_RECONCILE_GRACE
		UPCALL_REPLY_BODY UPCALL_REPLY_SECRET UPCALL_REPLY_SECRET_FILE UPCALL_REPLY_TIMEOUT UPCALL_REPLY_URL
		UPCALL_RETENTION UPCALL_RETENTION_EXPORT UPCALL_SPOOL_DIR UPCALL_SPOOL_MAX_BYTES UPCALL_SPOOL_MIN_FREE_BYTES
		UPCALL_STREAM_CREDS_FILE UPCALL_STREAM_MAX_BYTES UPCALL_STREAM_MODE UPCALL_STREAM_MONITOR_URL UPCALL_STREAM_NAME
		UPCALL_STREAM_URL UPCALL_STREAM_URL_FILE UPCALL_STS_EXPIRATION UPCALL_TOKEN UPCALL_TOKEN_KEYS
		UPCALL_TOKEN_KEYS_FILE UPCALL_TRUSTED_PROXIES UPCALL_TRUST_KEY_URLS`,
	"issuer": `UPCALL_ACCELERATE UPCALL_ACL UPCALL_AGAIN UPCALL_API_ADMIN_LISTEN UPCALL_API_BURST UPCALL_API_LISTEN UPCALL_API_RATE
		UPCALL_ATTEMPTS UPCALL_BUCKET UPCALL_CALLBACK_BODY UPCALL_CALLBACK_BODY_TYPE UPCALL_CALLBACK_HOST
		UPCALL_CALLBACK_SNI UPCALL_CALLBACK_URL UPCALL_CARRY UPCALL_CNAME UPCALL_CONTENT_LENGTH UPCALL_CONTENT_MD5
		UPCALL_CONTENT_TYPE UPCALL_CRC64 UPCALL_CREDENTIALS_FILE UPCALL_CREDENTIALS_PROCESS UPCALL_DATABASE_URL
		UPCALL_DATABASE_URL_FILE UPCALL_ECS_ROLE UPCALL_EXPIRES UPCALL_FILE UPCALL_FOLLOW_LINKS UPCALL_FORBID_OVERWRITE UPCALL_FORMAT
		UPCALL_HEADER UPCALL_ID UPCALL_INTERNAL UPCALL_KEY UPCALL_KEY_PREFIX UPCALL_LIMIT_RATE UPCALL_LOG_LEVEL UPCALL_MANIFEST UPCALL_MAX_SIZE
		UPCALL_META UPCALL_MIN_SIZE UPCALL_ORIGIN UPCALL_PAGE UPCALL_PARALLEL
		UPCALL_PARTS UPCALL_PART_SIZE UPCALL_PATH_STYLE UPCALL_POLICIES UPCALL_POLICY UPCALL_PROFILE UPCALL_RECURSIVE UPCALL_SIZE
		UPCALL_STATE_DIR UPCALL_STORAGE_CLASS UPCALL_STS_EXPIRATION UPCALL_TAG UPCALL_TOKEN_KEYS UPCALL_TOKEN_KEYS_FILE
		UPCALL_TRUSTED_PROXIES UPCALL_VAR`,
	"ossemu": `OSSEMU_ACCESS_KEY_ID OSSEMU_ACCESS_KEY_SECRET OSSEMU_ACCESS_KEY_SECRET_FILE OSSEMU_ALLOWED_ORIGINS
		OSSEMU_BUCKETS OSSEMU_CORS_EXPOSE OSSEMU_CORS_HEADERS OSSEMU_CORS_MAX_AGE OSSEMU_CORS_METHODS OSSEMU_CORS_ORIGINS
		OSSEMU_DATA_DIR OSSEMU_LISTEN OSSEMU_LOG_LEVEL OSSEMU_NOTIFY_DELAY OSSEMU_NOTIFY_FORMAT OSSEMU_NOTIFY_TOPIC OSSEMU_NOTIFY_URL
		OSSEMU_PUBLIC_URL OSSEMU_REGION OSSEMU_SECURITY_TOKEN OSSEMU_SECURITY_TOKEN_FILE
		OSSEMU_TIMEOUT`,
	"demo": "OSSEMU_PORT", // of docker-compose.yml, too
}

// ours matches what looks like a variable of a program of ours. Not in it are those of the
// tests, and those that Kubernetes makes of a Service whose name begins like that.
var ours, foreign = regexp.MustCompile(`^(?i:UPCALL|OSSEMU)_`), regexp.MustCompile(`^UPCALL_TEST_|_(SERVICE_HOST|PORT)(_|$)`)

// checkVariables returns the mistakes in the names of variables. A misspelt one would
// silently leave its setting at the default: with UPCALL_BUCKET for UPCALL_BUCKETS, the
// receiver would accept callbacks for any bucket.
func checkVariables(program string, flags *kong.Application, env Env) error {
	own := strings.Fields(variables[program])
	_ = kong.Visit(flags, func(node kong.Visitable, next kong.Next) error { // fails if we do
		if flag, ok := node.(*kong.Flag); ok && flag.Tag.Get(settingTag) != "" {
			own = append(own, flag.Tag.Get(settingTag))
		}
		return next(nil)
	})
	slices.Sort(own)
	var faults fault.List
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if env[name] == "" || !ours.MatchString(name) || foreign.MatchString(name) || slices.Contains(own, name) {
			continue
		}
		upper := strings.ToUpper(name)
		near, distance := nearest(upper, own)
		switch owner := ownerOf(upper); {
		case distance == 0, owner == "" && distance <= 3:
			faults.AddNew(nil, name, "did you mean "+near+"?", "there is no such variable")
		case owner == "":
			faults.AddNew(nil, name, "unset it; "+program+" --help shows the variable of each flag", "there is no such variable")
		case distance <= 1:
			faults.AddNew(nil, name, "set "+near+", which is this program's", "is a variable of %s", owner)
		}
	}
	return faults.Err()
}

// ownerOf returns the program that has the variable, or "".
func ownerOf(name string) string {
	for _, program := range slices.Sorted(maps.Keys(variables)) {
		if slices.Contains(strings.Fields(variables[program]), name) {
			return program
		}
	}
	return ""
}

// nearest returns the name that takes the fewest letters to be added, dropped or replaced,
// and how many.
func nearest(name string, names []string) (near string, distance int) {
	distance = len(name)
	for _, candidate := range names {
		if d := levenshtein(name, candidate); d < distance {
			near, distance = candidate, d
		}
	}
	return near, distance
}

func levenshtein(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		left := row[0] // of the row before
		row[0] = i + 1
		for j := range len(b) {
			replaced := left
			if a[i] != b[j] {
				replaced++
			}
			left = row[j+1]
			row[j+1] = min(replaced, left+1, row[j]+1)
		}
	}
	return row[len(b)]
}
