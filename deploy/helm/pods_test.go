package helm_test

import (
	"path"
	"reflect"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A pod is what a workload makes.
type pod struct {
	name     string // of the workload
	labels   map[string]string
	selector *metav1.LabelSelector // nil for jobs
	spec     corev1.PodSpec
	claims   []corev1.PersistentVolumeClaim
}

// serves reports whether it has listeners.
func (p pod) serves() bool { return p.selector != nil }

// program is receiver or issuer.
func (p pod) program() string { return path.Base(p.spec.Containers[0].Command[0]) }

func (p pod) env() map[string]string {
	env := make(map[string]string)
	for _, variable := range p.spec.Containers[0].Env {
		env[variable.Name] = variable.Value
	}
	return env
}

// mounted returns the mount and the volume that a path is on.
func (p pod) mounted(file string) (mount corev1.VolumeMount, volume corev1.Volume, found bool) {
	for _, m := range p.spec.Containers[0].VolumeMounts {
		if !strings.HasPrefix(file, m.MountPath+"/") {
			continue
		}
		for _, v := range p.spec.Volumes {
			if v.Name == m.Name {
				return m, v, true
			}
		}
		for _, claim := range p.claims {
			if claim.Name == m.Name {
				return m, corev1.Volume{Name: m.Name, VolumeSource: corev1.VolumeSource{
					PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim.Name}}}, true
			}
		}
	}
	return mount, volume, false
}

type secretFile struct{ variable, secret, key string }

// secrets are the files that its variables name in Secrets.
func (p pod) secrets() []secretFile {
	var files []secretFile
	for name, value := range p.env() {
		if _, volume, found := p.mounted(value); found && volume.Secret != nil {
			files = append(files, secretFile{name, volume.Secret.SecretName, path.Base(value)})
		}
	}
	return files
}

func pods(objects []metav1.Object) []pod {
	var found []pod
	for _, object := range objects {
		var p pod
		var template corev1.PodTemplateSpec
		switch o := object.(type) {
		case *appsv1.StatefulSet:
			template, p.selector, p.claims = o.Spec.Template, o.Spec.Selector, o.Spec.VolumeClaimTemplates
		case *appsv1.Deployment:
			template, p.selector = o.Spec.Template, o.Spec.Selector
		case *batchv1.Job:
			template = o.Spec.Template
		case *batchv1.CronJob:
			template = o.Spec.JobTemplate.Spec.Template
		default:
			continue
		}
		p.name, p.labels, p.spec = object.GetName(), template.Labels, template.Spec
		found = append(found, p)
	}
	return found
}

// all returns the objects of one type.
func all[T metav1.Object](objects []metav1.Object) []T {
	var found []T
	for _, object := range objects {
		if o, ok := object.(T); ok {
			found = append(found, o)
		}
	}
	return found
}

func kindOf(object metav1.Object) string {
	name := reflect.TypeOf(object).Elem().Name()
	return strings.ToUpper(name[:1]) + name[1:]
}
