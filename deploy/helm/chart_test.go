// Package helm_test renders the chart, decodes each object as strictly as Kubernetes can, and holds what the programs and an
// operator count on. It is a module of its own, so that Helm and Kubernetes are not in the programs' go.mod.
package helm_test

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// least is what an installation must set.
const least = `
receiver: {settings: {UPCALL_BUCKETS: my-bucket}}
issuer:
  settings: {OSS_REGION: cn-hangzhou, OSS_ACCESS_KEY_ID: my-access-key-id}
  policies:
    photos:
      buckets: [my-bucket]
      key_prefixes: [photos/]
      content_types: [image/*]
      max_size: 20971520
      max_expiry: 1h
      callback_urls: ["https://hooks.example.com/oss/callback"]
`

// everything turns on what is off, and sets what is not set.
const everything = `
image: {repository: registry.example.com/team/upcall, digest: "sha256:` +
	`0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}
imagePullSecrets: [{name: registry}]
owner: {existingSecret: owner, secretFiles: {OSS_ACCESS_KEY_SECRET_FILE: oss}}
receiver:
  replicas: 3
  secretFiles: {OSS_ACCESS_KEY_SECRET_FILE: oss, UPCALL_NOTIFY_TOKEN_FILE: notify_token, UPCALL_REPLY_SECRET_FILE: reply_secret}
  settings:
    UPCALL_BUCKETS: my-bucket
    UPCALL_LOG_LEVEL: debug
    UPCALL_CAPTURE_REFUSED: /var/lib/upcall/refused
    UPCALL_RETENTION: 400d
    UPCALL_RETENTION_EXPORT: oss://my-warehouse/history
    UPCALL_REPLY_URL: http://app.default/reply
    UPCALL_NOTIFY_TOPICS: 1234567890123456/uploads
    UPCALL_SPOOL_MAX_BYTES: "2147483648"
    OSS_REGION: cn-hangzhou
    OSS_ACCESS_KEY_ID: my-access-key-id
    GOMEMLIMIT: 400MiB
  hooks: [{name: app, url: "https://app.example.com/hooks", max_in_flight: 4, secret_file: /etc/upcall/secrets/hook_app}]
  spool: {size: 40Gi, storageClass: alicloud-disk-essd}
  service: {type: LoadBalancer, port: 8080, annotations: {example.com/size: small}}
  podAnnotations: {example.com/team: uploads}
  nodeSelector: {kubernetes.io/arch: arm64}
  tolerations: [{key: dedicated, operator: Equal, value: uploads, effect: NoSchedule}]
  affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [
    {key: zone, operator: In, values: [a, b]}]}]}}}
issuer:
  settings: {UPCALL_PAGE: "true", UPCALL_API_RATE: "50", OTEL_EXPORTER_OTLP_ENDPOINT: "http://collector:4318"}
serviceMonitor: {enabled: true, labels: {release: prometheus}}
networkPolicy: {enabled: true, adminFrom: [{namespaceSelector: {matchLabels: {name: monitoring}}}]}
`

// streaming has a stream instead of spools, and neither issuer, migration nor maintenance.
const streaming = `
receiver:
  spool: {enabled: false}
  secretFiles: {UPCALL_STREAM_URL_FILE: stream_url, UPCALL_STREAM_CREDS_FILE: stream_creds}
issuer: {enabled: false}
migration: {enabled: false}
maintenance: {enabled: false}
serviceMonitor: {enabled: true}
`

// serviceMonitor is what the chart uses of the Prometheus operator's kind.
type serviceMonitor struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		JobLabel  string               `json:"jobLabel"`
		Selector  metav1.LabelSelector `json:"selector"`
		Endpoints []struct {
			Port     string `json:"port"`
			Path     string `json:"path"`
			Interval string `json:"interval"`
		} `json:"endpoints"`
	} `json:"spec"`
}

// kinds are all that the chart makes.
var kinds = map[string]func() metav1.Object{
	"apps/v1 StatefulSet":                     func() metav1.Object { return new(appsv1.StatefulSet) },
	"apps/v1 Deployment":                      func() metav1.Object { return new(appsv1.Deployment) },
	"batch/v1 Job":                            func() metav1.Object { return new(batchv1.Job) },
	"batch/v1 CronJob":                        func() metav1.Object { return new(batchv1.CronJob) },
	"v1 ConfigMap":                            func() metav1.Object { return new(corev1.ConfigMap) },
	"v1 Service":                              func() metav1.Object { return new(corev1.Service) },
	"policy/v1 PodDisruptionBudget":           func() metav1.Object { return new(policyv1.PodDisruptionBudget) },
	"networking.k8s.io/v1 NetworkPolicy":      func() metav1.Object { return new(networkingv1.NetworkPolicy) },
	"monitoring.coreos.com/v1 ServiceMonitor": func() metav1.Object { return new(serviceMonitor) },
}

func load(t *testing.T) *chart.Chart {
	t.Helper()
	loaded, err := loader.LoadDir("upcall")
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// values merges YAML texts, later ones over earlier ones, as --values does.
func values(t *testing.T, texts ...string) map[string]any {
	t.Helper()
	merged := make(map[string]any)
	for _, text := range texts {
		one, err := loader.LoadValues(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		merged = loader.MergeMaps(merged, one)
	}
	return merged
}

// render returns the texts that Helm makes of the chart, by file.
func render(loaded *chart.Chart, values map[string]any, release string) (map[string]string, error) {
	top, err := util.ToRenderValues(loaded, values, common.ReleaseOptions{
		Name: release, Namespace: "uploads", Revision: 1, IsInstall: true}, common.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	return engine.Engine{Strict: true}.Render(loaded, top)
}

// objectsOf returns the objects that Helm makes of the chart, and the texts that hold them.
func objectsOf(t *testing.T, release string, given ...string) ([]metav1.Object, map[string]string) {
	t.Helper()
	texts, err := render(load(t), values(t, given...), release)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := decode(texts)
	if err != nil {
		t.Fatal(err)
	}
	return objects, texts
}

// decode returns all objects in the texts.
func decode(texts map[string]string) ([]metav1.Object, error) {
	var objects []metav1.Object
	for _, path := range slices.Sorted(maps.Keys(texts)) {
		if !strings.HasSuffix(path, ".yaml") {
			continue
		}
		for _, document := range regexp.MustCompile(`(?m)^---$`).Split(texts[path], -1) {
			object, err := decodeOne(document)
			if err != nil {
				return nil, fmt.Errorf("%s: %w in\n%s", path, err, document)
			}
			if object != nil {
				objects = append(objects, object)
			}
		}
	}
	return objects, nil
}

// decodeOne refuses members that are unknown, written in other case, or there twice.
func decodeOne(document string) (metav1.Object, error) {
	data, err := yaml.YAMLToJSONStrict([]byte(document))
	if err != nil || string(data) == "null" {
		return nil, err
	}
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal(data, &kind); err != nil {
		return nil, err
	}
	make, ok := kinds[kind.APIVersion+" "+kind.Kind]
	if !ok {
		return nil, fmt.Errorf("there is no kind %q in %q", kind.Kind, kind.APIVersion)
	}
	object := make()
	strict, err := kjson.UnmarshalStrict(data, object)
	if err == nil && len(strict) > 0 {
		err = strict[0]
	}
	return object, err
}

// TestRender: each set of values makes objects that decode, and about which there is nothing to say.
func TestRender(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		release string
		values  []string
		want    string
	}{
		"least": {"upcall", []string{least},
			"ConfigMap CronJob Deployment Job PodDisruptionBudget PodDisruptionBudget Service Service Service Service StatefulSet"},
		"everything": {"prod", []string{least, everything},
			"ConfigMap ConfigMap CronJob Deployment Job NetworkPolicy NetworkPolicy PodDisruptionBudget PodDisruptionBudget " +
				"Service Service Service Service ServiceMonitor StatefulSet"},
		"streaming": {"s", []string{streaming}, "PodDisruptionBudget Service Service ServiceMonitor StatefulSet"},
		"long name": {"a" + strings.Repeat("-release", 6), []string{least, everything}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			objects, texts := objectsOf(t, tt.release, tt.values...)
			for _, complaint := range check(objects, known(t)) {
				t.Error(complaint)
			}
			var made []string
			for _, object := range objects {
				made = append(made, kindOf(object))
			}
			if slices.Sort(made); tt.want != "" && strings.Join(made, " ") != tt.want {
				t.Errorf("made %s", strings.Join(made, " "))
			}
			if notes := texts["upcall/templates/NOTES.txt"]; !strings.Contains(notes, "-receiver-0 -- receiver keys add") {
				t.Errorf("NOTES.txt: %s", notes)
			}
		})
	}
}

// TestDecodeRefuses: the decoder finds what Kubernetes would drop without a word.
func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	const inPod = "{apiVersion: apps/v1, kind: Deployment, spec: {template: {spec: {enableService: no}}}}"
	for document, want := range map[string]string{
		"{apiVersion: v1, kind: Service, spec: {ports: [], portz: []}}":                      `unknown field "spec.portz"`,
		"{apiVersion: v1, kind: Service, spec: {Ports: []}}":                                 `unknown field "spec.Ports"`,
		"{apiVersion: v1, kind: Service, metadata: {name: a, name: b}}":                      `already set`,
		"{apiVersion: v1, kind: Pod}":                                                        `no kind "Pod"`,
		"{apiVersion: apps/v1beta1, kind: Deployment}":                                       `in "apps/v1beta1"`,
		"{apiVersion: monitoring.coreos.com/v1, kind: ServiceMonitor, spec: {endpoint: []}}": `unknown field "spec.endpoint"`,
		inPod: `unknown field "spec.template.spec.enableService"`,
		"{apiVersion: v1, kind: ConfigMap, data: {a: 1}}": `cannot unmarshal number`,
	} {
		if _, err := decodeOne(document); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", document, err, want)
		}
	}
}

// TestReleaseName: names of Services begin with a letter, and have no dots.
func TestReleaseName(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"1st", "up.call", "-upcall"} {
		if _, err := render(load(t), values(t, least), bad); err == nil || !strings.Contains(err.Error(), "must begin with a letter") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestImages: issuers keep a version of their own while receivers are upgraded, and labels are what Kubernetes takes.
func TestImages(t *testing.T) {
	t.Parallel()
	const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	other := strings.Replace(digest, "0", "f", 1)
	for _, tt := range []struct{ values, receiver, issuer, label string }{
		{"{image: {tag: v2}}", "upcall:v2", "upcall:v2", "v2"},
		{"{image: {tag: v2}, issuer: {tag: v1}}", "upcall:v2", "upcall:v1", "v2"},
		{"{image: {tag: v2, digest: \"" + digest + "\"}, issuer: {tag: v1}}", "upcall@" + digest, "upcall:v1", "v2"},
		{"{image: {digest: \"" + digest + "\"}, issuer: {digest: \"" + other + "\"}}", "upcall@" + digest, "upcall@" + other, ""},
		{"{image: {tag: _nightly.}}", "upcall:_nightly.", "upcall:_nightly.", "nightly"},
		{"{image: {tag: " + strings.Repeat("a", 62) + ".b}}", "upcall:" + strings.Repeat("a", 62) + ".b", "", strings.Repeat("a", 62)},
	} {
		objects, _ := objectsOf(t, "upcall", least, tt.values)
		for _, p := range pods(objects) {
			want := tt.receiver
			if p.program() == "issuer" {
				want = cmp.Or(tt.issuer, want)
			}
			if got := p.spec.Containers[0].Image; got != want {
				t.Errorf("%s: %s has %s, want %s", tt.values, p.name, got, want)
			}
			if got := p.labels["app.kubernetes.io/version"]; tt.label != "" && p.program() == "receiver" && got != tt.label {
				t.Errorf("%s: %s is labelled %q, want %q", tt.values, p.name, got, tt.label)
			}
		}
	}
}

// TestPage: what the page tells people to write makes objects, and the Secrets that it makes have the keys that pods read.
func TestPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/deploy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "\n## Kubernetes\n")
	block := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$").FindStringSubmatch(section)
	if !found || block == nil {
		t.Fatal("docs/deploy.md has no values for Kubernetes")
	}
	objects, _ := objectsOf(t, "upcall", block[1])
	made := make(map[string]string)
	for _, line := range regexp.MustCompile(`(?m)^kubectl create secret generic (\S+) (.*)$`).
		FindAllStringSubmatch(strings.ReplaceAll(section, "\\\n", " "), -1) {
		for _, key := range regexp.MustCompile(`--from-file=(\w+)=`).FindAllStringSubmatch(line[2], -1) {
			made[line[1]] += " " + key[1] + " "
		}
	}
	for _, p := range pods(objects) {
		for _, file := range p.secrets() {
			if !strings.Contains(made[file.secret], " "+file.key+" ") {
				t.Errorf("%s reads %s of the Secret %s, which the page does not make", p.name, file.key, file.secret)
			}
		}
	}
}
