{{- define "waggle.name" -}}
{{ .Values.nameOverride | default "waggle" }}
{{- end }}

{{- define "waggle.namespace" -}}
{{ .Values.namespaceOverride | default .Release.Namespace }}
{{- end }}

{{- define "waggle.serviceAccount" -}}
{{ .Values.serviceAccounts.waggle.name | default (include "waggle.name" .) }}
{{- end }}

{{- /* What finds the pods; it never changes. */}}
{{- define "waggle.selector" -}}
k8s-app: {{ include "waggle.name" . }}
{{- end }}

{{- define "waggle.ownLabels" -}}
{{ include "waggle.selector" . }}
app.kubernetes.io/name: waggle
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "waggle.labels" -}}
{{ include "waggle.ownLabels" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "waggle.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- /* "https://HOST:PORT" of the cluster's own kube-public/cluster-info, for k8sServiceHost "auto". */}}
{{- define "waggle.clusterInfo" -}}
{{- $info := lookup "v1" "ConfigMap" "kube-public" "cluster-info" }}
{{- if not $info }}
{{- fail "\n\nk8sServiceHost=auto: the ConfigMap kube-public/cluster-info cannot be read (kubeadm's clusters have it; \"helm template\" never sees it): name the API server with k8sServiceHost and k8sServicePort" }}
{{- end }}
{{- (first (get ($info.data.kubeconfig | fromYaml) "clusters")).cluster.server }}
{{- end }}

{{- define "waggle.k8sServiceHost" -}}
{{- if eq .Values.k8sServiceHost "auto" }}
{{- (urlParse (include "waggle.clusterInfo" .)).hostname }}
{{- else }}
{{- .Values.k8sServiceHost }}
{{- end }}
{{- end }}

{{- define "waggle.k8sServicePort" -}}
{{- if eq .Values.k8sServiceHost "auto" }}
{{- splitList ":" (urlParse (include "waggle.clusterInfo" .)).host | last | regexFind "^[0-9]+$" | default "443" }}
{{- else }}
{{- .Values.k8sServicePort }}
{{- end }}
{{- end }}
