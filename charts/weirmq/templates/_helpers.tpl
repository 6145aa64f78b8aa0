{{- define "cluster.name" -}}
{{- $name := .Values.fullnameOverride | default .Release.Name -}}
{{- if gt (len $name) 40 -}}
{{- fail (printf "%s has %d characters; pods are named after it, so 40 is the most: set fullnameOverride" $name (len $name)) -}}
{{- end -}}
{{ $name }}
{{- end }}

{{- define "cluster.labels" -}}
app.kubernetes.io/part-of: {{ include "cluster.name" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* The NameServers as clients of the namespace name them. */ -}}
{{- define "cluster.namesrv" -}}
{{- if .Values.nameServer.enabled -}}
{{ include "cluster.name" . }}-namesrv:9876
{{- else -}}
{{ join ";" .Values.broker.nameServers }}
{{- end -}}
{{- end }}

{{- /* The resource of a topic or group, which may have names that Kubernetes does not allow: those get a
part of their checksum, so that Orders and orders are two. Takes the cluster's name and that name. */ -}}
{{- define "cluster.resource" -}}
{{- $name := index . 1 -}}
{{- if not (regexMatch "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$" $name) -}}
{{- $name = printf "%s-%s" (regexReplaceAll "[^a-z0-9]+" (lower $name) "-" | trimAll "-") (sha256sum $name | trunc 8) | trimPrefix "-" -}}
{{- end -}}
{{ index . 0 }}-{{ $name }}
{{- end }}

{{- /* The image of pods that the chart makes itself. */ -}}
{{- define "cluster.image" -}}
{{ .Values.tests.image | default .Values.broker.pod.image | default (printf "weirmq/weirmq:%s" .Chart.AppVersion) }}
{{- end }}

{{- define "cluster.podSecurity" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "cluster.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
