{{- /*
What the schema cannot say. It refuses unknown names and wrong types before any template is read;
here come values of Cilium that ask for what is not there (files/cilium.yaml), and values that do
not fit each other. All that is wrong is said at once.
*/}}
{{- define "waggle.validate" -}}
{{- $wrong := concat (include "waggle.refused" . | fromJsonArray) (include "waggle.misfits" . | fromJsonArray) }}
{{- if $wrong }}
{{- printf "\n\n%s\n" (join "\n" $wrong) | fail }}
{{- end }}
{{- end }}

{{- define "waggle.refused" -}}
{{- $wrong := list }}
{{- range $path, $entry := .Files.Get "files/cilium.yaml" | fromYaml }}
{{- $at := dict "value" $.Values }}
{{- range splitList "." $path }}
{{- $_ := set $at "value" (kindIs "map" $at.value | ternary (get ($at.value | default dict) .) "") }}
{{- end }}
{{- $value := $at.value }}
{{- $given := not (or (kindIs "invalid" $value) (and (kindIs "string" $value) (eq $value ""))) }}
{{- $accepted := has (toJson $value) (include "waggle.eachJson" ($entry.accept | default list) | fromJsonArray) }}
{{- if and $entry.switch (kindIs "map" $value) }}
{{- $accepted = or $accepted (get $value $entry.switch | toString | eq "false") (not (or $entry.byDefault (hasKey $value $entry.switch))) }}
{{- end }}
{{- if and $given (not $accepted) }}
{{- $wrong = append $wrong (printf "%s: %s" $path $entry.say) }}
{{- end }}
{{- end }}
{{- toJson $wrong }}
{{- end }}

{{- /* A list, each of its values as the text of its JSON. */}}
{{- define "waggle.eachJson" -}}
{{- $out := list }}
{{- range . }}{{ $out = append $out (toJson .) }}{{ end }}
{{- toJson $out }}
{{- end }}

{{- /* "true" if the text is a range in CIDR notation. */}}
{{- define "waggle.isRange4" -}}
{{- $byte := "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])" }}
{{- regexMatch (printf `^(%s\.){3}%s/([0-9]|[12][0-9]|3[0-2])$` $byte $byte) . }}
{{- end }}

{{- define "waggle.isRange6" -}}
{{- $groups := "([0-9a-fA-F]{1,4}(:[0-9a-fA-F]{1,4})*)" }}
{{- $form := regexMatch (printf "^%s?(::%s?)?/([0-9]|[1-9][0-9]|1[01][0-9]|12[0-8])$" $groups $groups) . }}
{{- $count := regexFindAll "[0-9a-fA-F]+" (splitList "/" . | first) -1 | len }}
{{- and $form (contains "::" . | ternary (lt $count 8) (eq $count 8)) }}
{{- end }}

{{- define "waggle.misfits" -}}
{{- $wrong := list }}
{{- with .Values }}
{{- if and .k8sServiceHost (ne .k8sServiceHost "auto") (not .k8sServicePort) }}
{{- $wrong = append $wrong "k8sServicePort: is missing beside k8sServiceHost: give the API server's port (6443 with kubeadm)" }}
{{- end }}
{{- if and .k8sServicePort (not .k8sServiceHost) }}
{{- $wrong = append $wrong "k8sServiceHost: is missing beside k8sServicePort: give the API server's address" }}
{{- end }}
{{- if contains "/" (.k8sServiceHost | default "") }}
{{- $wrong = append $wrong (printf "k8sServiceHost: %q: give the name or address alone, without https:// and port" .k8sServiceHost) }}
{{- end }}
{{- if not (or .ipv4.enabled .ipv6.enabled) }}
{{- $wrong = append $wrong "ipv4.enabled, ipv6.enabled: pods need one family at least" }}
{{- end }}
{{- if eq .routingMode "native" }}
{{- if and .ipv4.enabled .enableIPv4Masquerade (not .ipMasqAgent.enabled) (not .ipv4NativeRoutingCIDR) }}
{{- $wrong = append $wrong "ipv4NativeRoutingCIDR: is missing with routingMode=native: give the range of all pods, which the network routes without masquerading (or set enableIPv4Masquerade=false)" }}
{{- end }}
{{- if and .ipv6.enabled .enableIPv6Masquerade (not .ipMasqAgent.enabled) (not .ipv6NativeRoutingCIDR) }}
{{- $wrong = append $wrong "ipv6NativeRoutingCIDR: is missing with routingMode=native: give the range of all pods, which the network routes without masquerading (or set enableIPv6Masquerade=false)" }}
{{- end }}
{{- end }}
{{- if and .autoDirectNodeRoutes (eq .routingMode "tunnel") }}
{{- $wrong = append $wrong "autoDirectNodeRoutes: routes go with routingMode=native; routingMode=auto sets them up itself" }}
{{- end }}
{{- if and .directRoutingSkipUnreachable (not .autoDirectNodeRoutes) }}
{{- $wrong = append $wrong "directRoutingSkipUnreachable: goes with autoDirectNodeRoutes=true" }}
{{- end }}
{{- if and (ne .loadBalancer.mode "snat") (eq .routingMode "native") }}
{{- $wrong = append $wrong (printf "loadBalancer.mode: %s sends packets to other nodes by a tunnel: set routingMode=tunnel or auto (or loadBalancer.mode=snat)" .loadBalancer.mode) }}
{{- end }}
{{- if and (ne .loadBalancer.mode "snat") (ne .cni.chainingMode "none") }}
{{- $wrong = append $wrong (printf "loadBalancer.mode: %s sends packets to other nodes by a tunnel, and behind another network (cni.chainingMode) there is none: set loadBalancer.mode=snat" .loadBalancer.mode) }}
{{- end }}
{{- if and .cni.chainingTarget (eq .cni.chainingMode "none") }}
{{- $wrong = append $wrong "cni.chainingTarget: goes with cni.chainingMode, such as generic-veth" }}
{{- end }}
{{- if and (eq .ipam.mode "cluster-pool") .ipv4.enabled (not .ipam.operator.clusterPoolIPv4PodCIDRList) }}
{{- $wrong = append $wrong "ipam.operator.clusterPoolIPv4PodCIDRList: is empty: cluster-pool needs ranges (or set ipv4.enabled=false)" }}
{{- end }}
{{- if and (eq .ipam.mode "cluster-pool") .ipv6.enabled (not .ipam.operator.clusterPoolIPv6PodCIDRList) }}
{{- $wrong = append $wrong "ipam.operator.clusterPoolIPv6PodCIDRList: is empty: cluster-pool needs ranges (or set ipv6.enabled=false)" }}
{{- end }}
{{- if eq .ipam.mode "cluster-pool" }}
{{- range $family, $like := dict "4" "10.0.0.0/8" "6" "fd00::/104" }}
{{- $name := printf "clusterPoolIPv%sPodCIDRList" $family }}
{{- range include "waggle.commas" (get $.Values.ipam.operator $name) | splitList "," | compact }}
{{- if ne (include (printf "waggle.isRange%s" $family) .) "true" }}
{{- $wrong = append $wrong (printf "ipam.operator.%s: %q is no IPv%s range: write it like %s" $name . $family $like) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .prometheus.serviceMonitor.enabled (not .prometheus.enabled) }}
{{- $wrong = append $wrong "prometheus.serviceMonitor.enabled: there is nothing to scrape: set prometheus.enabled=true" }}
{{- end }}
{{- if and .prometheus.enabled (eq (int .prometheus.port) (int .healthPort)) }}
{{- $wrong = append $wrong "prometheus.port: is healthPort: give them different ports" }}
{{- end }}
{{- end }}
{{- $own := include "waggle.ownLabels" . | fromYaml }}
{{- range $name := list "commonLabels" "podLabels" }}
{{- range $label, $_ := get $.Values $name | default dict }}
{{- if hasKey $own $label }}
{{- $wrong = append $wrong (printf "%s: %q is a label of the chart's own, by which pods are found: give yours another name" $name $label) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.prometheus.serviceMonitor.enabled (not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) (not .Release.IsUpgrade) }}
{{- $wrong = append $wrong "prometheus.serviceMonitor.enabled: this cluster has no ServiceMonitor: install Prometheus' operator first (with \"helm template\" give --api-versions monitoring.coreos.com/v1)" }}
{{- end }}
{{- toJson $wrong }}
{{- end }}
