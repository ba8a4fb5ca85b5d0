{{- define "waggle.probe" -}}
{{- $root := index . 0 -}}
httpGet:
  host: 127.0.0.1
  path: {{ index . 1 }}
  port: {{ $root.Values.healthPort }}
  scheme: HTTP
{{- with index . 2 }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* A mount that outlives the container is made in the host's namespaces. */}}
{{- define "waggle.mountContext" -}}
seLinuxOptions: {{- toYaml .Values.securityContext.seLinuxOptions | nindent 2 }}
readOnlyRootFilesystem: true
{{- if .Values.securityContext.privileged }}
privileged: true
{{- else }}
allowPrivilegeEscalation: false
capabilities:
  # SYS_PTRACE: opening the namespaces of process 1 below /hostproc.
  # SYS_CHROOT: entering its mount namespace.
  # SYS_ADMIN: entering namespaces, and mounting.
  add: {{- toYaml .Values.securityContext.capabilities.mount | nindent 4 }}
  drop: [ALL]
{{- end }}
{{- end }}
