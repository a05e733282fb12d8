{{/* Labels of every object. */}}
{{- define "migrations-operator.labels" -}}
{{ include "migrations-operator.podLabels" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Labels of Pods: no other release of the chart alone starts them anew. */}}
{{- define "migrations-operator.podLabels" -}}
app.kubernetes.io/part-of: migrations-operator
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* The image of a program: (list . "webhook"). Digests of a release are annotations of the chart and no values, or
`helm upgrade --reuse-values` would keep the old ones. */}}
{{- define "migrations-operator.image" -}}
{{- $chart := (index . 0).Chart }}
{{- $program := index . 1 }}
{{- with (index . 0).Values.image }}
{{- printf "%s/migrations-%s:%s" .registry $program (.tag | default $chart.AppVersion) }}
{{- $digest := index .digests $program }}
{{- if not (or $digest .tag) }}
{{- $digest = index $chart.Annotations (printf "migrations.coderanger.net/%s-digest" $program) }}
{{- end }}
{{- with $digest }}@{{ . }}{{ end }}
{{- end }}
{{- end }}

{{/* Flags of the webhook. */}}
{{- define "migrations-operator.webhookArgs" -}}
{{- with .Values.webhook.ports }}
{{- if ne (int .admission) 9443 }}
- --admission-port={{ int .admission }}
{{- end }}
{{- if ne (int .questions) 9444 }}
- --question-port={{ int .questions }}
{{- end }}
{{- if ne (int .probes) 8080 }}
- --probe-port={{ int .probes }}
{{- end }}
{{- end }}
{{- with .Values.webhook.args }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* No Pod of the operator's namespace is gated, and its policies are for all Pods in it. */}}
{{- define "migrations-operator.checkNamespace" -}}
{{- if has .Release.Namespace (list "default" "kube-system" "kube-public" "kube-node-lease") }}
{{- fail (printf "migrations-operator needs a namespace of its own, and %s isn't: add `--namespace migrations-operator --create-namespace`" .Release.Namespace) }}
{{- end }}
{{- end }}
