{{- define "oci-proxy.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* The name of all objects, in front of their own. 50 characters leave room for "-containerd". */}}
{{- define "oci-proxy.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "oci-proxy.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "oci-proxy.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What the selectors select by: the nodes of the mesh. */}}
{{- define "oci-proxy.nodes" -}}
app.kubernetes.io/name: {{ include "oci-proxy.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: node
{{- end -}}

{{/* The pods that point containerd at the proxy. */}}
{{- define "oci-proxy.hands" -}}
app.kubernetes.io/name: {{ include "oci-proxy.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: containerd
{{- end -}}

{{- define "oci-proxy.labels" -}}
app.kubernetes.io/name: {{ include "oci-proxy.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "oci-proxy.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* The Secret with the mesh's secret. */}}
{{- define "oci-proxy.clusterSecret" -}}
{{- .Values.clusterSecret.existingSecret | default (printf "%s-cluster" (include "oci-proxy.fullname" .)) -}}
{{- end -}}

{{/* config.KEY.KEY… as text, "" where it is not set: include "oci-proxy.config" (list . "tls" "cert_file"). */}}
{{- define "oci-proxy.config" -}}
{{- $at := (first .).Values.config -}}
{{- range rest . -}}
{{- $at = ternary (get (default dict $at) .) nil (kindIs "map" $at) -}}
{{- end -}}
{{- if not (kindIs "invalid" $at) }}{{ $at }}{{ end -}}
{{- end -}}

{{/* "yes" if the clients' port speaks TLS. */}}
{{- define "oci-proxy.tls" -}}
{{- $domains := include "oci-proxy.config" (list . "tls" "acme" "domains") -}}
{{- if or (include "oci-proxy.config" (list . "tls" "cert_file")) (not (has $domains (list "" "[]"))) }}yes{{ end -}}
{{- end -}}

{{/* How long a pod may take to end: the pause before SIGTERM, shutdown_timeout, and 25 s. */}}
{{- define "oci-proxy.grace" -}}
{{- $sum := 30 -}}
{{- $units := dict "s" 1 "m" 60 "h" 3600 "d" 86400 "w" 604800 -}}
{{- range regexFindAll "[0-9]+[smhdw]" (include "oci-proxy.config" (list . "shutdown_timeout") | default "60s") -1 -}}
{{- $unit := . | trunc -1 -}}
{{- $sum = add $sum (mul (trimSuffix $unit . | atoi) (get $units $unit)) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{/* A container that can do nothing but run. */}}
{{- define "oci-proxy.contained" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* What all pods have. */}}
{{- define "oci-proxy.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
serviceAccountName: {{ include "oci-proxy.fullname" . }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* A request of a probe: include "oci-proxy.probe" (list . "/_/ready"). */}}
{{- define "oci-proxy.probe" -}}
{{- $top := first . -}}
httpGet:
  path: {{ last . }}
  port: http
  {{- if include "oci-proxy.tls" $top }}
  scheme: HTTPS
  {{- end }}
timeoutSeconds: 6
{{- end -}}
