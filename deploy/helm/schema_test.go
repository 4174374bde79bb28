package helm_test

import (
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/v2/loader"
)

// TestSchemaRefuses: what is misspelt, missing, of the wrong type, or dangerous stops before anything is installed.
func TestSchemaRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ values, want string }{
		{"{receivers: {}}", "'receivers' not allowed"},
		{"{receiver: {replica: 2}}", "'replica' not allowed"},
		{"{receiver: {replicas: 0}}", "minimum"},
		{"{receiver: {replicas: two}}", "want integer"},
		{"{receiver: {existingSecret: Upcall_Secret}}", "does not match pattern"},
		{"{receiver: {existingSecret: null}}", "missing property 'existingSecret'"},
		{"{receiver: {settings: {UPCALL_BUCKET: my-bucket}}}", "'UPCALL_BUCKET' not allowed"},
		{"{receiver: {settings: {UPCALL_SPOOL_MAX_BYTES: 2147483648}}}", "want string"},
		{"{receiver: {settings: {UPCALL_HOOKS_ALLOW_HTTP: true}}}", "want string"},
		{"{receiver: {settings: {UPCALL_DATABASE_URL: postgres://u:p@db/upcall}}}", "'UPCALL_DATABASE_URL' not allowed"},
		{"{receiver: {settings: {DATABASE_URL: postgres://u:p@db/upcall}}}", "'DATABASE_URL' not allowed"},
		{"{receiver: {settings: {UPCALL_TOKEN_KEYS: k1:x}}}", "'UPCALL_TOKEN_KEYS' not allowed"},
		{"{receiver: {settings: {UPCALL_REPLY_SECRET: whsec_x}}}", "'UPCALL_REPLY_SECRET' not allowed"},
		{"{receiver: {settings: {UPCALL_NOTIFY_TOKEN: x}}}", "'UPCALL_NOTIFY_TOKEN' not allowed"},
		{"{receiver: {settings: {UPCALL_STREAM_URL: nats://u:p@nats}}}", "'UPCALL_STREAM_URL' not allowed"},
		{"{receiver: {settings: {OSS_ACCESS_KEY_SECRET: x}}}", "'OSS_ACCESS_KEY_SECRET' not allowed"},
		// There is no shell.
		{"{receiver: {settings: {UPCALL_CREDENTIALS_PROCESS: cat /secret}}}", "'UPCALL_CREDENTIALS_PROCESS' not allowed"},
		{"{receiver: {settings: {UPCALL_LISTEN: \":80\"}}}", "'UPCALL_LISTEN' not allowed"},
		{"{receiver: {settings: {UPCALL_ADMIN_LISTEN: \":80\"}}}", "'UPCALL_ADMIN_LISTEN' not allowed"},
		{"{receiver: {settings: {UPCALL_SPOOL_DIR: /tmp}}}", "'UPCALL_SPOOL_DIR' not allowed"},
		{"{receiver: {settings: {UPCALL_RETENTION_EXPORT: /data/history}}}", "does not match pattern"},
		{"{receiver: {settings: {UPCALL_CAPTURE_REFUSED: /refused}}}", "does not match pattern"},
		{"{receiver: {secretFiles: {UPCALL_TOKEN_KEY_FILE: token_keys}}}", "'UPCALL_TOKEN_KEY_FILE' not allowed"},
		{"{receiver: {secretFiles: {UPCALL_TOKEN_KEYS_FILE: ../token_keys}}}", "does not match pattern"},
		{"{receiver: {secretFiles: {UPCALL_TOKEN_KEYS_FILE: a/b}}}", "does not match pattern"},
		{"{receiver: {secretFiles: {UPCALL_DATABASE_URL_FILE: null}}}", "missing property 'UPCALL_DATABASE_URL_FILE'"},
		{"{receiver: {hooks: {app: {}}}}", "want array"},
		{"{receiver: {hooks: [{name: app, url: \"https://app\"}]}}", "missing property 'secret_file'"},
		{"{receiver: {hooks: [{name: app, url: app, secret_file: /etc/upcall/secrets/app}]}}", "does not match pattern"},
		{"{receiver: {hooks: [{name: app, url: \"https://app\", secret_file: /secrets/app}]}}", "does not match pattern"},
		{"{receiver: {spool: {size: 20}}}", "want string"},
		{"{receiver: {spool: {size: 20G}}}", "does not match pattern"},
		{"{receiver: {spool: {enabled: false}}}", "/receiver/spool/enabled"},                           // neither spool nor stream
		{"{receiver: {secretFiles: {UPCALL_STREAM_URL_FILE: stream_url}}}", "/receiver/spool/enabled"}, // both
		{"{receiver: {service: {type: ExternalName}}}", "must be one of"},
		{"{receiver: {service: {port: 70000}}}", "maximum"},
		{"{receiver: {podAnnotations: {example.com/port: 8081}}}", "want string"},
		{"{issuer: {enabled: \"yes\"}}", "want boolean"},
		{"{issuer: {policies: null}}", "policies"},
		{"{issuer: {policies: {photos: [my-bucket]}}}", "want object"},
		{"{issuer: {settings: {OSS_REGION: null}}}", "want string"},
		{"{issuer: {settings: {UPCALL_BUCKETS: my-bucket}}}", "'UPCALL_BUCKETS' not allowed"},
		{"{issuer: {settings: {UPCALL_POLICIES: /policies.yaml}}}", "'UPCALL_POLICIES' not allowed"},
		{"{issuer: {secretFiles: {UPCALL_TOKEN_KEYS_FILE: null}}}", "missing property 'UPCALL_TOKEN_KEYS_FILE'"},
		{"{issuer: {spool: {}}}", "'spool' not allowed"},
		{"{owner: {settings: {}}}", "'settings' not allowed"},
		{"{owner: {existingSecret: \"\"}}", "does not match pattern"},
		{"{migration: {enabled: 1}}", "want boolean"},
		{"{maintenance: {schedule: daily}}", "does not match pattern"},
		{"{issuer: {tag: 1.2}}", "want string"},
		{"{receiver: {tag: v1}}", "'tag' not allowed"}, // it would run before the migration that it needs
		{"{issuer: {digest: v1}}", "does not match pattern"},
		{"{receiver: {settings: {OTEL_EXPORTER_OTLP_HEADERS: authorization=x}}}", "'OTEL_EXPORTER_OTLP_HEADERS' not allowed"}, // a secret
		{"{issuer: {settings: {OTEL_TRACE_SAMPLER: always_off}}}", "'OTEL_TRACE_SAMPLER' not allowed"},
		{"{image: {repository: \"Upcall\"}}", "does not match pattern"},
		{"{image: {tag: 1.2}}", "want string"},
		{"{image: {tag: \"a b\"}}", "does not match pattern"},
		{"{image: {digest: sha256:12}}", "does not match pattern"},
		{"{image: {pullPolicy: Sometimes}}", "must be one of"},
		{"{imagePullSecrets: [registry]}", "want object"},
		{"{serviceMonitor: {interval: 15}}", "want string"},
		{"{networkPolicy: {adminFrom: []}}", "minItems"}, // it would let nobody in, not even Prometheus
	} {
		if _, err := render(load(t), values(t, least, tt.values), "upcall"); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.values, err, tt.want)
		}
	}
}

// TestSchemaNeeds: nothing is installed without what an installation must set.
func TestSchemaNeeds(t *testing.T) {
	t.Parallel()
	none, err := loader.LoadValues(strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := render(load(t), none, "upcall"); err == nil || !strings.Contains(err.Error(), "OSS_REGION") ||
		!strings.Contains(err.Error(), "/issuer/policies") {
		t.Error(err)
	}
}
