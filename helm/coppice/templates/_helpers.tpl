{{- define "coppice.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels of every object. Call with (dict "root" $ "component" "operator"). */}}
{{- define "coppice.labels" -}}
{{ include "coppice.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: coppice
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "coppice.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "coppice.serviceAccount" -}}
{{- .Values.operator.serviceAccount.name | default (include "coppice.fullname" .) -}}
{{- end -}}

{{/* repository, tag and digest to a reference. Call with (dict "image" .Values.x.image "tag" .Chart.AppVersion). */}}
{{- define "coppice.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .tag }}
{{- end -}}
{{- end -}}

{{- define "coppice.operatorImage" -}}
{{- include "coppice.image" (dict "image" .Values.operator.image "tag" .Chart.AppVersion) -}}
{{- end -}}

{{- define "coppice.localImage" -}}
{{- if .Values.local.image.repository -}}
{{- include "coppice.image" (dict "image" .Values.local.image "tag" .Chart.AppVersion) -}}
{{- else -}}
{{- include "coppice.operatorImage" . -}}
{{- end -}}
{{- end -}}

{{/* Security context of a container that needs nothing: PodSecurity "restricted". */}}
{{- define "coppice.restricted" -}}
allowPrivilegeEscalation: false
capabilities:
  drop:
    - ALL
readOnlyRootFilesystem: true
{{- end -}}

{{/*
"true" when the snapshot controller belongs to this chart. The CRDs of crds/ are in the cluster before this is rendered, so "absent" shows as
"ours", by the annotation that our copies carry; it also holds on every upgrade.
*/}}
{{- define "coppice.snapshotController" -}}
{{- $install := .Values.snapshotController.install | toString -}}
{{- if ne $install "auto" -}}
{{- $install -}}
{{- else -}}
{{- $crd := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "volumesnapshots.snapshot.storage.k8s.io" -}}
{{- if $crd -}}
{{- eq (dig "metadata" "annotations" "coppice.dev/installed-by" "" $crd) "chart" -}}
{{- else -}}
{{- not (.Capabilities.APIVersions.Has "snapshot.storage.k8s.io/v1") -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The API rate flags of a sidecar: raised, or upstream's own defaults. */}}
{{- define "coppice.fastFlags" -}}
{{- if and .Values.local.enabled .Values.local.fast -}}
- --kube-api-qps=500
- --kube-api-burst=1000
- --retry-interval-start=100ms
{{- end }}
{{- end -}}
