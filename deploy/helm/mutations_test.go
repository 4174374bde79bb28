package helm_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// TestMutations changes a template at one place, as by mistake, and the checks or the decoder must say what they say.
func TestMutations(t *testing.T) {
	t.Parallel()
	variables := known(t)
	for i, tt := range []struct{ file, old, new, want string }{
		{"_helpers.tpl", "enableServiceLinks: false", "enableServiceLinks: true", "enableServiceLinks is not false"},
		{"_helpers.tpl", "enableServiceLinks: false\n", "", "enableServiceLinks is not false"},
		{"_helpers.tpl", "enableServiceLinks", "enableServicelinks", `unknown field "spec.template.spec.enableServicelinks"`},
		{"_helpers.tpl", "automountServiceAccountToken: false\n", "", "token for Kubernetes"},
		{"_helpers.tpl", "runAsNonRoot: true", "runAsNonRoot: false", "may be root"},
		{"_helpers.tpl", "runAsUser: 65532", "runAsUser: 0", "may be root"},
		{"_helpers.tpl", "  fsGroup: 65532\n", "", "cannot write to its volume"},
		{"_helpers.tpl", "RuntimeDefault", "Unconfined", "seccomp is off"},
		{"_helpers.tpl", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "may get privileges"},
		{"_helpers.tpl", "  readOnlyRootFilesystem: true\n", "", "its root can be written"},
		{"_helpers.tpl", "drop: [ALL]", "drop: [ALL], add: [NET_RAW]", "capabilities"},
		{"_helpers.tpl", "drop: [ALL]", "drop: [NET_RAW]", "capabilities"},
		{"_helpers.tpl", "defaultMode: 0440", "defaultMode: 0444", "others can read secrets"},
		{"_helpers.tpl", "defaultMode: 0440", "defaultMode: 440", "others can read secrets"}, // decimal
		{"_helpers.tpl", "/etc/upcall/secrets/%s", "/etc/upcall/secret/%s", "which is not mounted"},
		{"_helpers.tpl", "secrets, readOnly: true", "secrets", "is in a Secret"},
		{"_helpers.tpl", "path: /livez, port: admin}\n  periodSeconds: 10",
			"path: /healthz, port: admin}\n  periodSeconds: 10", "no probe of /livez"},
		{"_helpers.tpl", "/readyz, port: admin", "/readyz, port: http", "no probe of /readyz"},
		{"_helpers.tpl", "timeoutSeconds: 3", "timeoutSeconds: 1", "longer than its probe waits"},
		{"_helpers.tpl", "{sleep: {seconds: 5}}", "{exec: {command: [sleep, \"5\"]}}", "stops before proxies know"},
		{"_helpers.tpl", "seconds: 5", "seconds: 15", "killed while it stops"},
		{"receiver.yaml", "terminationGracePeriodSeconds: 45", "terminationGracePeriodSeconds: 30", "killed while it stops"},
		{"issuer.yaml", "      terminationGracePeriodSeconds: 45\n", "", "killed while it stops"},
		{"receiver.yaml", "UPCALL_LISTEN", "UPCALL_LISTENER", "receiver knows no variable UPCALL_LISTENER"},
		{"issuer.yaml", "UPCALL_API_ADMIN_LISTEN", "UPCALL_ADMIN_LISTEN", "issuer knows no variable UPCALL_ADMIN_LISTEN"},
		{"receiver.yaml", `value: ":8081"`, `value: "127.0.0.1:8081"`, "ports map"},
		{"receiver.yaml", "containerPort: 8080", "containerPort: 80", "ports map"},
		{"receiver.yaml", "- {name: UPCALL_SPOOL_DIR",
			"- {name: UPCALL_TOKEN_KEYS, value: \"k1:x\"}\n            - {name: UPCALL_SPOOL_DIR",
			"the secret UPCALL_TOKEN_KEYS is a variable"},
		{"receiver.yaml", "          ports:",
			"          envFrom: [{secretRef: {name: upcall}}]\n          ports:", "variables that nobody sees"},
		{"receiver.yaml", "value: /var/lib/upcall/spool", "value: /tmp/spool", "the spool is on no claim"},
		{"receiver.yaml", "value: /var/lib/upcall/spool", "value: /var/lib/spool", "which is not mounted"},
		{"receiver.yaml", "mountPath: /var/lib/upcall}", "mountPath: /var/lib/upcall/spool}", "which is not mounted"},
		{"receiver.yaml", "            - {name: UPCALL_SPOOL_DIR, value: /var/lib/upcall/spool}\n", "", "a spool and a stream, or neither"},
		{"receiver.yaml", "- {name: spool, mountPath", "- {name: spools, mountPath", "the spool is on no claim"},
		{"receiver.yaml", "whenDeleted: Retain", "whenDeleted: Delete", "spools are deleted"},
		{"receiver.yaml", "podManagementPolicy: Parallel", "podManagementPolicy: OrderedReady", "waits for another"},
		{"receiver.yaml", "serviceName: {{ $name }}-admin", "serviceName: {{ $name }}", "not headless"},
		{"receiver.yaml", "ReadWriteOnce", "ReadWriteMany", "two may write"},
		{"receiver.yaml", "storage: {{ .spool.size | quote }}", "storage: 1Gi", "does not fit into 1Gi twice"},
		{"receiver.yaml", `kind: ConfigMap
metadata:
  name: {{ $name }}`, `kind: ConfigMap
metadata:
  name: {{ $name }}-hooks`, "hooks.yaml, which is in no ConfigMap"},
		{"issuer.yaml", "policies.yaml: |", "policy.yaml: |", "policies.yaml, which is in no ConfigMap"},
		{"issuer.yaml", `resources: {{ toYaml .resources | nindent 12 }}`, "resources: {}", "no resources"},
		{"receiver.yaml", "labels: {{ include \"upcall.labels\" $labels | nindent 8 }}",
			`labels: {{ include "upcall.labels" (dict "root" $ "component" "issuer") | nindent 8 }}`, "its selector does not match"},
		{"services.yaml", "targetPort: http", "targetPort: admin", "the wrong port"},
		{"services.yaml", "clusterIP: None", "type: LoadBalancer", "may be reached from outside"},
		{"services.yaml", "  selector: {{ include \"upcall.selectorLabels\" $labels | nindent 4 }}\n  ports:\n    - {name: admin",
			"  ports:\n    - {name: admin", "leads to [everything]"},
		{"services.yaml", "maxUnavailable: 1", "minAvailable: 1", "no budget keeps it"},
		{"services.yaml", "  unhealthyPodEvictionPolicy: AlwaysAllow\n  selector:\n" +
			"    matchLabels: {{ include \"upcall.selectorLabels\" $labels | nindent 6 }}",
			"  unhealthyPodEvictionPolicy: AlwaysAllow\n  selector:\n    matchLabels: {app.kubernetes.io/name: upcall}",
			"no budget keeps it"},
		{"services.yaml", "      from: {{ toYaml $.Values.networkPolicy.adminFrom | nindent 8 }}\n", "", "lets everyone in"},
		{"servicemonitor.yaml", "port: admin", "port: http", "has no such port"},
		{"servicemonitor.yaml", "path: /metrics", "path: /v1/metrics", "ServiceMonitor: <nil>"},
		{"servicemonitor.yaml", "jobLabel: upcall/metrics-job", "jobLabel: app.kubernetes.io/component", "jobs [receiver"},
		{"servicemonitor.yaml", "interval:", "intervals:", "unknown field"},
		{"migration.yaml", "    helm.sh/hook: pre-install,pre-upgrade\n", "", "is no hook"},
		{"migration.yaml", "before-hook-creation", "hook-failed", "cannot run again"},
		{"migration.yaml", ".Values.owner.existingSecret", ".Values.receiver.existingSecret", "has the URL of the owner"},
		{"maintenance.yaml", "restartPolicy: Never", "restartPolicy: OnFailure", "its pods are restarted"},
	} {
		t.Run(fmt.Sprintf("%d %s", i, tt.want), func(t *testing.T) {
			t.Parallel()
			loaded, changed := load(t), false
			for _, file := range loaded.Templates {
				if file.Name == "templates/"+tt.file {
					before := file.Data
					file.Data = bytes.ReplaceAll(before, []byte(tt.old), []byte(tt.new))
					changed = !bytes.Equal(before, file.Data)
				}
			}
			if !changed {
				t.Fatalf("%s has no %q", tt.file, tt.old)
			}
			texts, err := render(loaded, values(t, least, everything), "upcall")
			if err != nil {
				t.Fatal(err)
			}
			objects, err := decode(texts)
			said := fmt.Sprint(check(objects, variables), err)
			if !strings.Contains(said, tt.want) {
				t.Errorf("%s, want %s", said, tt.want)
			}
		})
	}
}
