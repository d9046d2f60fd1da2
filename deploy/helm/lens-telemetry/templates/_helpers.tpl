{{- define "lens.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "lens.labels" -}}
app.kubernetes.io/part-of: lens-telemetry
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "lens.aggregator" -}}
{{ printf "%s-aggregator" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "lens.agent" -}}
{{ printf "%s-agent" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "lens.locked" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* A key must be its owner's alone, and a projected secret is root's: it is copied. */ -}}
{{- define "lens.identity" -}}
- name: identity
  image: {{ include "lens.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: ["/bin/sh", "-c"]
  args: ["umask 077 && cp -L /run/lens/secret/* /run/lens/identity/"]
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {memory: 32Mi}
  securityContext:
    {{- include "lens.locked" . | nindent 4 }}
  volumeMounts:
    - {name: secret, mountPath: /run/lens/secret, readOnly: true}
    - {name: identity, mountPath: /run/lens/identity}
{{- end }}
