{{- define "operator.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- /* The name of all objects. */ -}}
{{- define "operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "operator.name" .) .Release.Name -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name (include "operator.name" .) | trunc 50 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "operator.selector" -}}
app.kubernetes.io/name: {{ include "operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "operator.labels" -}}
{{ include "operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: weirmq
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "operator.account" -}}
{{ .Values.serviceAccount.name | default (ternary (include "operator.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "operator.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{- /* What the restricted profile of pod security asks of a container. */ -}}
{{- define "operator.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "operator.podSecurity" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- /* Objects that the operator makes and looks after in the namespaces that it watches. To brokers it
grants get and watch of their group, update of its status, and their Lease and EndpointSlice: nobody can
grant what they do not have. */ -}}
{{- define "operator.rules" -}}
- apiGroups: [weirmq.io]
  resources: [nameservers, brokers, topics, consumergroups]
  verbs: [get, list, watch, patch]
- apiGroups: [weirmq.io]
  resources: [nameservers/status, brokers/status, topics/status, consumergroups/status]
  verbs: [patch]
- apiGroups: [weirmq.io]
  resources: [nameservers/finalizers, brokers/finalizers, topics/finalizers, consumergroups/finalizers]
  verbs: [update]
- apiGroups: [weirmq.io]
  resources: [brokergroups]
  verbs: [get, list, watch, create, patch]
- apiGroups: [weirmq.io]
  resources: [brokergroups/status]
  verbs: [update]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [list, patch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, create, patch]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{- /* What it takes to make certificates, or to have cert-manager make them: for the Brokers in the list, or for
all where it is empty. */ -}}
{{- define "operator.certificateRules" -}}
- apiGroups: [""]
  resources: [secrets]
  {{- with . }}
  resourceNames:
    {{- range . }}
    - {{ . }}-authority
    - {{ . }}-certificates
    - {{ . }}-replication
    {{- end }}
  {{- end }}
  verbs: [get, patch]
- apiGroups: [cert-manager.io]
  resources: [certificates]
  {{- with . }}
  resourceNames:
    {{- range . }}
    - {{ . }}-certificates
    {{- end }}
  {{- end }}
  verbs: [get, patch]
- apiGroups: [cert-manager.io]
  resources: [certificates]
  verbs: [create]
{{- end }}
