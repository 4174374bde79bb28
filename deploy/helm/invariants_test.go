package helm_test

import (
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// known returns the variables of each program, as internal/cli lists them.
func known(t *testing.T) map[string][]string {
	t.Helper()
	source, err := os.ReadFile("../../internal/cli/variables.go")
	if err != nil {
		t.Fatal(err)
	}
	oss, err := os.ReadFile("../../internal/cli/oss.go")
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"GOMEMLIMIT", "GOGC", "OSS_ACCESS_KEY_SECRET_FILE", "OSS_SESSION_TOKEN_FILE"}
	names = append(names, regexp.MustCompile(`OSS_[A-Z_]+`).FindAllString(string(oss), -1)...)
	found := make(map[string][]string)
	for _, list := range regexp.MustCompile("\"(receiver|issuer)\":\\s*`([^`]*)`").FindAllStringSubmatch(string(source), -1) {
		found[list[1]] = slices.Concat(names, strings.Fields(list[2]))
	}
	if len(found) != 2 || !slices.Contains(found["receiver"], "UPCALL_BUCKETS") || !slices.Contains(names, "OSS_REGION") {
		t.Fatalf("variables: %v", found)
	}
	return found
}

// complaints collects what is wrong.
type complaints []string

func (c *complaints) unless(ok bool, format string, args ...any) {
	if !ok {
		*c = append(*c, fmt.Sprintf(format, args...))
	}
}

// check returns what is wrong with the objects together.
func check(objects []metav1.Object, known map[string][]string) []string {
	var c complaints
	seen := make(map[string]bool)
	for _, object := range objects {
		id := kindOf(object) + " " + object.GetName()
		c.unless(!seen[id], "%s is there twice", id)
		seen[id] = true
		most := 63
		if kind := kindOf(object); kind == "StatefulSet" || kind == "CronJob" {
			most = 52 // what is made of them has 11 characters more
		}
		c.unless(regexp.MustCompile(`^[a-z]([-a-z0-9]*[a-z0-9])?$`).MatchString(object.GetName()) && len(object.GetName()) <= most,
			"%s: no such name is allowed", id)
		c.unless(object.GetLabels()["app.kubernetes.io/instance"] != "", "%s has no label of its release", id)
	}
	for _, p := range pods(objects) {
		c.security(p)
		c.variables(p, objects, known[p.program()])
		if p.serves() {
			c.serving(p, objects)
		} else {
			c.unless(p.spec.RestartPolicy == corev1.RestartPolicyNever, "%s: its pods are restarted", p.name)
		}
	}
	c.services(objects)
	c.migration(objects)
	return c
}

// security: an attacker in a program finds nothing to go on with.
func (c *complaints) security(p pod) {
	off := func(b *bool) bool { return b != nil && !*b }
	on := func(b *bool) bool { return b != nil && *b }
	spec, inPod := p.spec, p.spec.SecurityContext
	c.unless(off(spec.EnableServiceLinks), "%s: enableServiceLinks is not false", p.name)
	c.unless(off(spec.AutomountServiceAccountToken), "%s: it gets a token for Kubernetes", p.name)
	c.unless(!spec.HostNetwork && !spec.HostPID && !spec.HostIPC, "%s: it shares namespaces of the host", p.name)
	c.unless(inPod != nil && on(inPod.RunAsNonRoot) && inPod.RunAsUser != nil && *inPod.RunAsUser > 0 && inPod.FSGroup != nil,
		"%s: it may be root, or cannot write to its volume", p.name)
	c.unless(inPod != nil && inPod.SeccompProfile != nil && inPod.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault,
		"%s: seccomp is off", p.name)
	c.unless(len(spec.Containers) == 1 && len(spec.InitContainers) == 0, "%s: it has other containers", p.name)
	for _, volume := range spec.Volumes {
		c.unless(volume.HostPath == nil, "%s: the volume %s is of the host", p.name, volume.Name)
		c.unless(volume.Secret == nil || *volume.Secret.DefaultMode == 0o440,
			"%s: others can read %s, or the user cannot", p.name, volume.Name)
	}
	container := spec.Containers[0]
	c.unless(container.Image != "" && !strings.HasSuffix(container.Image, ":"), "%s: no image", p.name)
	c.unless(container.Resources.Limits.Memory().Sign() > 0 && container.Resources.Requests.Cpu().Sign() > 0, "%s: no resources", p.name)
	own := container.SecurityContext
	if own == nil {
		own = new(corev1.SecurityContext)
	}
	c.unless(off(own.AllowPrivilegeEscalation), "%s: it may get privileges", p.name)
	c.unless(on(own.ReadOnlyRootFilesystem), "%s: its root can be written", p.name)
	c.unless(own.Privileged == nil && own.Capabilities != nil && slices.Equal(own.Capabilities.Drop, []corev1.Capability{"ALL"}) &&
		len(own.Capabilities.Add) == 0, "%s: it has capabilities", p.name)
}

// variables: the program knows each, none has a secret, and each file that one names is mounted.
func (c *complaints) variables(p pod, objects []metav1.Object, known []string) {
	container := p.spec.Containers[0]
	c.unless(len(container.EnvFrom) == 0, "%s: it gets variables that nobody sees", p.name)
	for _, variable := range container.Env {
		name := variable.Name
		c.unless(slices.Contains(known, name) || strings.HasPrefix(name, "OTEL_"), "%s: %s knows no variable %s", p.name, p.program(), name)
		c.unless(variable.ValueFrom == nil && !slices.Contains(known, name+"_FILE"), "%s: the secret %s is a variable", p.name, name)
		if !strings.HasPrefix(variable.Value, "/") {
			continue
		}
		mount, volume, found := p.mounted(variable.Value)
		c.unless(found, "%s: %s names %s, which is not mounted", p.name, name, variable.Value)
		switch {
		case volume.Secret != nil:
			c.unless(strings.HasSuffix(name, "_FILE") && mount.ReadOnly && mount.SubPath == "", // a subPath never changes
				"%s: %s is in a Secret", p.name, name)
		case volume.ConfigMap != nil:
			c.unless(slices.ContainsFunc(all[*corev1.ConfigMap](objects), func(m *corev1.ConfigMap) bool {
				return m.Name == volume.ConfigMap.Name && m.Data[path.Base(variable.Value)] != ""
			}), "%s: %s names %s, which is in no ConfigMap", p.name, name, variable.Value)
		}
	}
}

// Of internal/httpserver: how long /readyz takes at most, and how long requests that are under way may take to end.
const (
	readyTimeout = 1  // seconds
	stopTimeout  = 35 // seconds: 30 for requests, 3 for workers, and the ends of connections
)

// serving: probes ask the private listener, a stop has the time that it takes, and the spool is on a volume that stays.
func (c *complaints) serving(p pod, objects []metav1.Object) {
	env, container := p.env(), p.spec.Containers[0]
	ports := make(map[string]string)
	for _, port := range container.Ports {
		ports[port.Name] = ":" + strconv.Itoa(int(port.ContainerPort))
	}
	public, admin := "UPCALL_LISTEN", "UPCALL_ADMIN_LISTEN"
	if p.program() == "issuer" {
		public, admin = "UPCALL_API_LISTEN", "UPCALL_API_ADMIN_LISTEN"
	}
	c.unless(ports["http"] == env[public] && ports["admin"] == env[admin] && len(ports) == 2, "%s: ports %v of %v", p.name, ports, env)
	for path, probes := range map[string][]*corev1.Probe{
		"/livez":  {container.StartupProbe, container.LivenessProbe},
		"/readyz": {container.ReadinessProbe},
	} {
		for _, probe := range probes {
			c.unless(probe != nil && probe.HTTPGet != nil && probe.HTTPGet.Path == path && probe.HTTPGet.Port.String() == "admin",
				"%s: no probe of %s on the port admin: %v", p.name, path, probe)
		}
	}
	if probe := container.ReadinessProbe; probe != nil {
		c.unless(probe.TimeoutSeconds > readyTimeout, "%s: /readyz may take longer than its probe waits", p.name)
	}
	sleep := container.Lifecycle
	if sleep == nil || sleep.PreStop == nil || sleep.PreStop.Sleep == nil { // there is no shell
		c.unless(false, "%s: it stops before proxies know of it", p.name)
		return
	}
	grace := p.spec.TerminationGracePeriodSeconds
	c.unless(grace != nil && *grace >= sleep.PreStop.Sleep.Seconds+stopTimeout, "%s: it is killed while it stops", p.name)
	selector, err := metav1.LabelSelectorAsSelector(p.selector)
	c.unless(err == nil && selector.Matches(labels.Set(p.labels)), "%s: its selector does not match its pods: %v", p.name, err)
	c.unless(slices.ContainsFunc(all[*policyv1.PodDisruptionBudget](objects), func(b *policyv1.PodDisruptionBudget) bool {
		return slices.Equal(matching(b.Spec.Selector, objects), []string{p.name}) && b.Spec.MaxUnavailable.String() == "1" &&
			b.Spec.MinAvailable == nil && *b.Spec.UnhealthyPodEvictionPolicy == policyv1.AlwaysAllow
	}), "%s: no budget keeps it, or one keeps its node from being drained", p.name)
	if p.program() == "receiver" {
		c.spool(p, objects)
	}
}

// spool: it is a directory below the mount of a claim, so that the receiver makes it itself, for itself alone.
func (c *complaints) spool(p pod, objects []metav1.Object) {
	dir, streaming := p.env()["UPCALL_SPOOL_DIR"], p.env()["UPCALL_STREAM_URL_FILE"] != ""
	c.unless((dir != "") != streaming, "%s: it has a spool and a stream, or neither", p.name)
	if dir == "" {
		c.unless(len(p.claims) == 0, "%s: a claim without a spool", p.name)
		return
	}
	mount, volume, _ := p.mounted(dir)
	c.unless(volume.PersistentVolumeClaim != nil && mount.MountPath != dir && !mount.ReadOnly, "%s: the spool is on no claim", p.name)
	for _, set := range all[*appsv1.StatefulSet](objects) {
		keep := set.Spec.PersistentVolumeClaimRetentionPolicy
		c.unless(keep != nil && keep.WhenDeleted == appsv1.RetainPersistentVolumeClaimRetentionPolicyType &&
			keep.WhenScaled == appsv1.RetainPersistentVolumeClaimRetentionPolicyType, "%s: spools are deleted", p.name)
		c.unless(set.Spec.PodManagementPolicy == appsv1.ParallelPodManagement, "%s: one receiver waits for another", p.name)
		c.unless(slices.ContainsFunc(all[*corev1.Service](objects), func(s *corev1.Service) bool {
			return s.Name == set.Spec.ServiceName && s.Spec.ClusterIP == corev1.ClusterIPNone
		}), "%s: the Service %s is not there, or not headless", p.name, set.Spec.ServiceName)
	}
	spooled := int64(1 << 30)
	if set := p.env()["UPCALL_SPOOL_MAX_BYTES"]; set != "" {
		n, err := strconv.ParseInt(set, 10, 64)
		c.unless(err == nil, "%s: UPCALL_SPOOL_MAX_BYTES is %s", p.name, set)
		spooled = n
	}
	for _, claim := range p.claims {
		size := claim.Spec.Resources.Requests[corev1.ResourceStorage]
		c.unless(size.Value() > 2*spooled+(256<<20), "%s: a spool of %d bytes does not fit into %s twice", p.name, spooled, size.String())
		c.unless(slices.Equal(claim.Spec.AccessModes, []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}),
			"%s: two may write", p.name)
	}
}

// services: each leads to one workload, and the private listener is nowhere outside.
func (c *complaints) services(objects []metav1.Object) {
	for _, s := range all[*corev1.Service](objects) {
		led := matching(&metav1.LabelSelector{MatchLabels: s.Spec.Selector}, objects)
		c.unless(len(led) == 1 && strings.HasPrefix(s.Name, led[0]), "Service %s leads to %v", s.Name, led)
		private := strings.HasSuffix(s.Name, "-admin")
		c.unless(len(s.Spec.Ports) == 1 && (s.Spec.Ports[0].TargetPort.String() == "admin") == private,
			"Service %s: the wrong port", s.Name)
		c.unless(!private || s.Spec.ClusterIP == corev1.ClusterIPNone, "Service %s may be reached from outside", s.Name)
	}
	for _, n := range all[*networkingv1.NetworkPolicy](objects) {
		about := matching(&n.Spec.PodSelector, objects)
		c.unless(len(about) == 1, "NetworkPolicy %s is about %v", n.Name, about)
		for _, rule := range n.Spec.Ingress {
			public := len(rule.Ports) == 1 && rule.Ports[0].Port.String() == "http"
			c.unless(public || len(rule.From) > 0, "NetworkPolicy %s lets everyone in", n.Name)
		}
	}
	for _, m := range all[*serviceMonitor](objects) {
		selector, err := metav1.LabelSelectorAsSelector(&m.Spec.Selector)
		c.unless(err == nil && len(m.Spec.Endpoints) == 1 && m.Spec.Endpoints[0].Path == "/metrics", "ServiceMonitor: %v, %+v", err, m.Spec)
		var jobs []string
		for _, s := range all[*corev1.Service](objects) {
			if err == nil && selector.Matches(labels.Set(s.Labels)) {
				jobs = append(jobs, s.Labels[m.Spec.JobLabel])
				c.unless(s.Spec.Ports[0].Name == m.Spec.Endpoints[0].Port, "ServiceMonitor: %s has no such port", s.Name)
			}
		}
		c.unless(slices.Contains(jobs, "upcall") && len(jobs) == len(all[*policyv1.PodDisruptionBudget](objects)),
			"ServiceMonitor: jobs %v", jobs)
	}
}

// migration: it comes before everything else, with a role of its own.
func (c *complaints) migration(objects []metav1.Object) {
	owner := make(map[string]bool)
	for _, p := range pods(objects) {
		for _, file := range p.secrets() {
			if file.variable == "UPCALL_DATABASE_URL_FILE" {
				owner[file.secret] = owner[file.secret] || !p.serves()
				c.unless(!(owner[file.secret] && p.serves()), "%s has the URL of the owner", p.name)
			}
		}
	}
	for _, job := range all[*batchv1.Job](objects) {
		c.unless(job.Annotations["helm.sh/hook"] == "pre-install,pre-upgrade", "%s is no hook: a Job cannot be changed", job.Name)
		c.unless(job.Annotations["helm.sh/hook-delete-policy"] == "before-hook-creation", "%s cannot run again", job.Name)
	}
}

// matching returns the workloads whose pods have the labels.
func matching(selector *metav1.LabelSelector, objects []metav1.Object) []string {
	by, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil || by.Empty() {
		return []string{"everything"}
	}
	var names []string
	for _, p := range pods(objects) {
		if by.Matches(labels.Set(p.labels)) {
			names = append(names, p.name)
		}
	}
	return names
}
