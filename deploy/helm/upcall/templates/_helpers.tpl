{{- /* The prefix of all names: 43 characters leave room for what StatefulSets and CronJobs add, up to 63. */}}
{{- define "upcall.fullname" -}}
{{- if not (regexMatch "^[a-z][-a-z0-9]*$" .Release.Name) }}
{{- fail "the release's name must begin with a letter, and hold only letters, digits and hyphens, as names of Services do" }}
{{- end -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name $name) }}{{ $name = printf "%s-%s" $name .Chart.Name }}{{ end -}}
{{- $name | trunc 43 | trimSuffix "-" -}}
{{- end }}

{{- /* Arguments: root, component. */}}
{{- define "upcall.selectorLabels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "upcall.labels" -}}
{{ include "upcall.selectorLabels" . }}
app.kubernetes.io/version: {{ include "upcall.tag" . | trunc 63 | trimAll "-_." | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 }}
{{- end }}

{{- /* The version of a component's image. Issuers may keep one of their own until all receivers are upgraded. Arguments: root,
component. */}}
{{- define "upcall.tag" -}}
{{- $own := "" }}{{ if eq .component "issuer" }}{{ $own = .root.Values.issuer.tag }}{{ end -}}
{{ $own | default .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- /* Arguments: root, component. */}}
{{- define "upcall.image" -}}
{{- $digest := .root.Values.image.digest }}
{{- if eq .component "issuer" }}{{ with .root.Values.issuer }}{{ if or .digest .tag }}{{ $digest = .digest }}{{ end }}{{ end }}{{ end -}}
{{ .root.Values.image.repository }}{{ if $digest }}@{{ $digest }}{{ else }}:{{ include "upcall.tag" . }}{{ end }}
{{- end }}

{{- /* What every pod has. Argument: root. */}}
{{- define "upcall.pod" -}}
# Without this each Service of the namespace would add variables, and one named upcall-… those that begin with UPCALL_.
enableServiceLinks: false
# The programs never call Kubernetes, so an attacker in one finds no token for it.
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* What every container has. Arguments: root, component. */}}
{{- define "upcall.container" -}}
image: {{ include "upcall.image" . | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- /* Variables: settings as they are, secrets as names of files. Arguments: settings, secretFiles. */}}
{{- define "upcall.env" -}}
{{- range $name, $value := .settings }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- range $name, $key := .secretFiles }}
- {name: {{ $name }}, value: {{ printf "/etc/upcall/secrets/%s" $key | quote }}}
{{- end }}
{{- end }}

{{- define "upcall.secretMount" -}}
- {name: secrets, mountPath: /etc/upcall/secrets, readOnly: true}
{{- end }}

{{- /* Argument: the name of a Secret. */}}
{{- define "upcall.secretVolume" -}}
- name: secrets
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}

{{- /* Where pods run. Argument: the values of a component. */}}
{{- define "upcall.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Probes of the admin listener. /readyz answers within a second. Starting may take long: a damaged spool is read. */}}
{{- define "upcall.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 2
  failureThreshold: 150
livenessProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
{{- end }}

{{- /* Stopping: 5 s in which proxies learn of it and still send requests, then up to 30 s for those under way, then the end. */}}
{{- define "upcall.stopping" -}}
lifecycle:
  preStop: {sleep: {seconds: 5}}
{{- end }}
