{{- /* A list of strings, or a string of them, as the agent reads it: with commas. */}}
{{- define "waggle.commas" -}}
{{- if kindIs "slice" . }}{{ join "," . }}{{ else if . }}{{ splitList "," (regexReplaceAll "\\s" . ",") | compact | join "," }}{{ end }}
{{- end }}

{{- /* The agent's --config-dir: one file a flag. All values are strings. */}}
{{- define "waggle.config" -}}
{{- $c := dict }}
{{- with .Values }}
{{- $_ := set $c "pin-dir" (printf "%s/waggle" (trimSuffix "/" .bpf.root)) }}
{{- $_ := set $c "cgroup" .cgroup.hostRoot }}
{{- $_ := set $c "health-addr" (printf "127.0.0.1:%d" (int .healthPort)) }}
{{- $_ := set $c "healthz-bind-address" .kubeProxyReplacementHealthzBindAddr }}
{{- $_ := set $c "log-level" (ternary "debug" "info" .debug.enabled) }}
{{- $_ := set $c "socket" (ternary .hubble.socketPath "" .hubble.enabled) }}
{{- $_ := set $c "socket-lb" (ternary (ternary "host" "full" .socketLB.hostNamespaceOnly) "off" .socketLB.enabled) }}
{{- $_ := set $c "lb-acceleration" .loadBalancer.acceleration }}
{{- $_ := set $c "lb-mode" .loadBalancer.mode }}
{{- $_ := set $c "lb-algorithm" .loadBalancer.algorithm }}
{{- $_ := set $c "ct-max" (add (int (.bpf.ctTcpMax | default 131072)) (int (.bpf.ctAnyMax | default 131072))) }}
{{- $_ := set $c "svc-max" (int .bpf.lbMapMax) }}
{{- $_ := set $c "slot-max" (mul 4 (int .bpf.lbMapMax)) }}
{{- with .MTU }}{{ $_ := set $c "mtu" (int .) }}{{ end }}
{{- with include "waggle.commas" .devices }}{{ $_ := set $c "devices" . }}{{ end }}
{{- with include "waggle.commas" .nodePort.addresses }}{{ $_ := set $c "nodeport-addresses" . }}{{ end }}
{{- if .prometheus.enabled }}{{ $_ := set $c "prometheus-serve-addr" (printf ":%d" (int .prometheus.port)) }}{{ end }}

{{- $_ := set $c "policy-audit-mode" .policyAuditMode }}
{{- $_ := set $c "routing-mode" .routingMode }}
{{- $_ := set $c "tunnel-protocol" .tunnelProtocol }}
{{- with .tunnelPort }}{{ $_ := set $c "tunnel-port" (int .) }}{{ end }}
{{- $_ := set $c "underlay-protocol" .underlayProtocol }}
{{- $_ := set $c "auto-direct-node-routes" .autoDirectNodeRoutes }}
{{- $_ := set $c "direct-routing-skip-unreachable" .directRoutingSkipUnreachable }}
{{- with .ipv4NativeRoutingCIDR }}{{ $_ := set $c "ipv4-native-routing-cidr" . }}{{ end }}
{{- with .ipv6NativeRoutingCIDR }}{{ $_ := set $c "ipv6-native-routing-cidr" . }}{{ end }}
{{- $_ := set $c "enable-ipv4-masquerade" .enableIPv4Masquerade }}
{{- $_ := set $c "enable-ipv6-masquerade" .enableIPv6Masquerade }}
{{- if .ipMasqAgent.enabled }}{{ $_ := set $c "ip-masq-agent-config" "/etc/waggle-ip-masq-agent/config" }}{{ end }}
{{- $_ := set $c "host-routing" (ternary "kernel" "bpf" (.bpf.hostLegacyRouting | default false)) }}

{{- $_ := set $c "enable-ipv4" .ipv4.enabled }}
{{- $_ := set $c "enable-ipv6" .ipv6.enabled }}
{{- $_ := set $c "ipam" .ipam.mode }}
{{- if eq .ipam.mode "cluster-pool" }}
{{- $_ := set $c "ipam-namespace" (include "waggle.namespace" $) }}
{{- $_ := set $c "cluster-pool-ipv4-cidr" (include "waggle.commas" .ipam.operator.clusterPoolIPv4PodCIDRList) }}
{{- $_ := set $c "cluster-pool-ipv4-mask-size" (int .ipam.operator.clusterPoolIPv4MaskSize) }}
{{- $_ := set $c "cluster-pool-ipv6-cidr" (include "waggle.commas" .ipam.operator.clusterPoolIPv6PodCIDRList) }}
{{- $_ := set $c "cluster-pool-ipv6-mask-size" (int .ipam.operator.clusterPoolIPv6MaskSize) }}
{{- end }}

{{- if and .cni.install (not .cni.customConf) }}
{{- $_ := set $c "cni-conf-dir" (printf "/host%s" .cni.confPath) }}
{{- $_ := set $c "cni-exclusive" .cni.exclusive }}
{{- $_ := set $c "cni-uninstall" .cni.uninstall }}
{{- end }}
{{- $_ := set $c "cni-chaining-mode" .cni.chainingMode }}
{{- with .cni.chainingTarget }}{{ $_ := set $c "cni-chaining-target" . }}{{ end }}
{{- end }}
{{- $c = mergeOverwrite $c (.Values.extraConfig | default dict) }}
{{- range $name, $value := $c }}
{{- /* As text, a large number would have an exponent. */}}
{{ $name }}: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}
{{- end }}
{{- end }}
