{{- define "karat.name" -}}
{{- if eq .Release.Name .Chart.Name -}}
{{ .Chart.Name }}
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "karat.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "karat.labels" -}}
{{ include "karat.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{/* The Secret with the keys, if there are any. */}}
{{- define "karat.keys" -}}
{{- if .Values.keys.existingSecret -}}
{{ .Values.keys.existingSecret }}
{{- else if .Values.keys.lines -}}
{{ printf "%s-keys" (include "karat.name" .) }}
{{- end -}}
{{- end -}}

{{- define "karat.scheme" -}}
{{- if .Values.tls.existingSecret -}}HTTPS{{- else -}}HTTP{{- end -}}
{{- end -}}

{{/* Says what can't be. */}}
{{- define "karat.check" -}}
{{- if and .Values.keys.existingSecret .Values.keys.lines -}}
{{- fail "keys.existingSecret and keys.lines are both set: leave one out" -}}
{{- end -}}
{{- if and .Values.state.existingClaim (or .Values.autoscaling.enabled (ne (int .Values.replicaCount) 1)) -}}
{{- fail "state.existingClaim is one server's: set replicaCount to 1, and leave autoscaling off" -}}
{{- end -}}
{{- end -}}
