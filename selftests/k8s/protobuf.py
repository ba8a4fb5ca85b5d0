# SPDX-License-Identifier: Apache-2.0
"""Kubernetes objects, as in JSON, to the bytes of application/vnd.kubernetes.protobuf, by hand: the
fields of which some test wants the meaning. Numbers are those of k8s.io/api and apimachinery."""
import calendar
import struct
import time

TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\0"

# message -> field in JSON -> (number, type); [type]: repeated, map: of strings to strings
SCHEMA = {
    "ObjectMeta": {
        "name": (1, str), "namespace": (3, str), "uid": (5, str), "resourceVersion": (6, str),
        "generation": (7, int), "creationTimestamp": (8, "Time"),
        "deletionTimestamp": (9, "Time"), "labels": (11, map),
        "annotations": (12, map)},
    "ListMeta": {"resourceVersion": (2, str), "continue": (3, str),
                 "remainingItemCount": (4, int)},
    "Status": {"metadata": (1, "ListMeta"), "status": (2, str), "message": (3, str),
               "reason": (4, str), "code": (6, int)},
    "Service": {"metadata": (1, "ObjectMeta"), "spec": (2, "ServiceSpec"),
                "status": (3, "ServiceStatus")},
    "ServiceSpec": {
        "ports": (1, ["ServicePort"]), "selector": (2, map), "clusterIP": (3, str),
        "type": (4, str), "externalIPs": (5, [str]), "sessionAffinity": (7, str),
        "loadBalancerIP": (8, str), "loadBalancerSourceRanges": (9, [str]),
        "externalName": (10, str), "externalTrafficPolicy": (11, str),
        "healthCheckNodePort": (12, int), "publishNotReadyAddresses": (13, bool),
        "sessionAffinityConfig": (14, "SessionAffinityConfig"), "ipFamilyPolicy": (17, str),
        "clusterIPs": (18, [str]), "ipFamilies": (19, [str]),
        "allocateLoadBalancerNodePorts": (20, bool), "loadBalancerClass": (21, str),
        "internalTrafficPolicy": (22, str), "trafficDistribution": (23, str)},
    "ServicePort": {"name": (1, str), "protocol": (2, str), "port": (3, int),
                    "nodePort": (5, int), "appProtocol": (6, str)},
    "SessionAffinityConfig": {"clientIP": (1, "ClientIPConfig")},
    "ClientIPConfig": {"timeoutSeconds": (1, int)},
    "ServiceStatus": {"loadBalancer": (1, "LoadBalancerStatus")},
    "LoadBalancerStatus": {"ingress": (1, ["LoadBalancerIngress"])},
    "LoadBalancerIngress": {"ip": (1, str), "hostname": (2, str), "ipMode": (3, str)},
    "EndpointSlice": {"metadata": (1, "ObjectMeta"), "endpoints": (2, ["Endpoint"]),
                      "ports": (3, ["EndpointPort"]), "addressType": (4, str)},
    "Endpoint": {"addresses": (1, [str]), "conditions": (2, "EndpointConditions"),
                 "hostname": (3, str), "targetRef": (4, "ObjectReference"),
                 "nodeName": (6, str), "zone": (7, str), "hints": (8, "EndpointHints")},
    "EndpointConditions": {"ready": (1, bool), "serving": (2, bool), "terminating": (3, bool)},
    "EndpointHints": {"forZones": (1, ["ForName"]), "forNodes": (2, ["ForName"])},
    "ForName": {"name": (1, str)},
    "EndpointPort": {"name": (1, str), "protocol": (2, str), "port": (3, int),
                     "appProtocol": (4, str)},
    "ObjectReference": {"kind": (1, str), "namespace": (2, str), "name": (3, str),
                        "uid": (4, str)},
    "Node": {"metadata": (1, "ObjectMeta"), "spec": (2, "NodeSpec"), "status": (3, "NodeStatus")},
    "NodeSpec": {"podCIDR": (1, str), "providerID": (3, str), "unschedulable": (4, bool),
                 "taints": (5, ["Taint"]), "podCIDRs": (7, [str])},
    "Taint": {"key": (1, str), "value": (2, str), "effect": (3, str)},
    "NodeStatus": {"addresses": (5, ["NodeAddress"])},
    "NodeAddress": {"type": (1, str), "address": (2, str)},
    "Namespace": {"metadata": (1, "ObjectMeta")},
    "Pod": {"metadata": (1, "ObjectMeta"), "spec": (2, "PodSpec"), "status": (3, "PodStatus")},
    "PodSpec": {"containers": (2, ["Container"]), "serviceAccountName": (8, str),
                "nodeName": (10, str), "hostNetwork": (11, bool)},
    "Container": {"name": (1, str), "ports": (6, ["ContainerPort"])},
    "ContainerPort": {"name": (1, str), "containerPort": (3, int), "protocol": (4, str)},
    "PodStatus": {"phase": (1, str), "hostIP": (5, str), "podIP": (6, str),
                  "podIPs": (12, ["PodIP"])},
    "PodIP": {"ip": (1, str)},
    "NetworkPolicy": {"metadata": (1, "ObjectMeta"), "spec": (2, "NetworkPolicySpec")},
    "NetworkPolicySpec": {"podSelector": (1, "LabelSelector"), "ingress": (2, ["IngressRule"]),
                          "egress": (3, ["EgressRule"]), "policyTypes": (4, [str])},
    "IngressRule": {"ports": (1, ["NetworkPolicyPort"]), "from": (2, ["NetworkPolicyPeer"])},
    "EgressRule": {"ports": (1, ["NetworkPolicyPort"]), "to": (2, ["NetworkPolicyPeer"])},
    "NetworkPolicyPort": {"protocol": (1, str), "port": (2, "IntOrString"), "endPort": (3, int)},
    "NetworkPolicyPeer": {"podSelector": (1, "LabelSelector"),
                          "namespaceSelector": (2, "LabelSelector"), "ipBlock": (3, "IPBlock")},
    "IPBlock": {"cidr": (1, str), "except": (2, [str])},
    "LabelSelector": {"matchLabels": (1, map),
                      "matchExpressions": (2, ["LabelSelectorRequirement"])},
    "LabelSelectorRequirement": {"key": (1, str), "operator": (2, str), "values": (3, [str])},
    "IntOrString": {"type": (1, int), "intVal": (2, int), "strVal": (3, str)},
}


def number(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7f:
        out.append(value & 0x7f | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(tag, data):
    """A field that is bytes."""
    return number(tag << 3 | 2) + number(len(data)) + data


def text(tag, value):
    return field(tag, value.encode())


def one(tag, kind, value):
    if kind is str:
        return text(tag, value)
    if kind in (int, bool):
        return number(tag << 3) + number(int(value))
    if kind is map:
        return b"".join(field(tag, text(1, k) + text(2, v)) for k, v in sorted(value.items()))
    if kind == "Time":
        at = calendar.timegm(time.strptime(value, "%Y-%m-%dT%H:%M:%SZ"))
        return field(tag, number(1 << 3) + number(at))
    if kind == "IntOrString" and not isinstance(value, dict):
        value = {"type": 1, "strVal": value} if isinstance(value, str) else {"intVal": value}
    if isinstance(kind, list):
        return b"".join(one(tag, kind[0], v) for v in value)
    return field(tag, message(kind, value))


def message(kind, obj):
    """What the schema does not know is left out."""
    schema = SCHEMA[kind]
    return b"".join(one(*schema[key], value) for key, value in (obj or {}).items()
                    if key in schema and value is not None)


def envelope(api_version, kind, raw):
    return MAGIC + field(1, text(1, api_version) + text(2, kind)) + field(2, raw) + \
        field(3, b"") + field(4, b"")


def listing(api_version, kind, meta, items):
    """items: messages."""
    return envelope(api_version, kind,
                    field(1, message("ListMeta", meta)) + b"".join(field(2, i) for i in items))


def event(kind, api_version, object_kind, raw):
    """One frame of a watch."""
    body = text(1, kind) + field(2, field(1, envelope(api_version, object_kind, raw)))
    return struct.pack(">I", len(body)) + body


def status(obj):
    return envelope("v1", "Status", message("Status", obj))
