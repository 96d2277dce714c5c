{{/* What coppice.runtime.settings reads. Ports are those of the Deployment. */}}
{{- define "coppice.operatorEnvironment" -}}
- name: COPPICE_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: COPPICE_IDENTITY
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: COPPICE_SERVICE_ACCOUNT
  valueFrom:
    fieldRef:
      fieldPath: spec.serviceAccountName
- name: COPPICE_IMAGES
  value: {{ include "coppice.engineImages" . | quote }}
- name: COPPICE_ANY_VERSION
  value: {{ include "coppice.anyVersion" . | quote }}
- name: COPPICE_TLS_IMAGE
  value: {{ .Values.tls.image | quote }}
- name: COPPICE_SERVER_MEMORY
  value: {{ .Values.servers.memory | quote }}
- name: COPPICE_SERVER_CPU
  value: {{ .Values.servers.cpu | quote }}
- name: COPPICE_CLONE_MEMORY
  value: {{ .Values.clones.limits.memory | quote }}
- name: COPPICE_CLONE_CPU
  value: {{ .Values.clones.limits.cpu | quote }}
- name: COPPICE_LEASE_IDLE
  value: {{ .Values.clones.lease.idle | quote }}
- name: COPPICE_LEASE_MAX
  value: {{ .Values.clones.lease.max | quote }}
- name: COPPICE_LEASE_WARNING
  value: {{ .Values.clones.lease.warning | quote }}
- name: COPPICE_SLEEP
  value: {{ .Values.clones.sleep | quote }}
- name: COPPICE_UNDO
  value: {{ .Values.clones.undo | quote }}
- name: COPPICE_FORGES
  value: {{ include "coppice.forges" . | quote }}
- name: COPPICE_RESYNC
  value: {{ .Values.operator.resync | quote }}
- name: COPPICE_WORKERS
  value: {{ .Values.operator.workers | quote }}
- name: COPPICE_LOG_LEVEL
  value: {{ .Values.operator.logLevel | quote }}
{{- end -}}

{{/* The engines of which the administrator allows any version, as JSON. */}}
{{- define "coppice.anyVersion" -}}
{{- $names := list -}}
{{- range $engine, $settings := .Values.engines -}}
{{- if $settings.anyVersion -}}
{{- $names = append $names $engine -}}
{{- end -}}
{{- end -}}
{{- $names | toJson -}}
{{- end -}}

{{/* {"dolt": {"1.83": "image"}} as JSON. */}}
{{- define "coppice.engineImages" -}}
{{- $images := dict -}}
{{- range $engine, $settings := .Values.engines -}}
{{- $_ := set $images $engine $settings.images -}}
{{- end -}}
{{- $images | toJson -}}
{{- end -}}

{{/* The forges as JSON, each with the file of its token instead of the Secret. */}}
{{- define "coppice.forges" -}}
{{- $forges := list -}}
{{- range .Values.forges -}}
{{- $file := printf "/etc/coppice/forges/%s/token" (include "coppice.forgeFolder" .) -}}
{{- $forges = append $forges (merge (dict "tokenFile" $file) (omit . "tokenSecret")) -}}
{{- end -}}
{{- $forges | toJson -}}
{{- end -}}

{{/* A folder for the token of a forge: its host. */}}
{{- define "coppice.forgeFolder" -}}
{{- .host | default (printf "%s.com" .provider) -}}
{{- end -}}
